--- What memory a proof adds while it runs: the program's and its hidden child's, together, beyond what was there.
local harness = require("bench.harness")
local tasks = require("bench.proof.tasks")
local support = require("spec.support")

local HEAP_MIB, WRITES_MIB_PER_S, EVERY_MS, ASKED_MIB = 1024, { 0, 100 }, 4, 16
local FLAGS = { "--cpu-hz", "0", "--wall-hz", "0", "--proof-interval-ms", "500" }

local function measure(mib, rate)
  local one = tasks.start({ harness.program("proof_heap"), "blocks", mib, rate }, FLAGS)
  one:command()
  one:await_profile()
  local pid = one:pid()
  local watch = support.spawn({ harness.program("proof_children"), "memory", pid, EVERY_MS })
  tasks.sleep(0.1) -- the first reading is of the program as it was
  one:command("open")
  local proof = one:prove(pid)
  local wrote = one:command("close").written_bytes
  watch:kill(15)
  watch:wait(30)
  one:write("quit\n")
  one:finish()
  local seen = support.json.decode(watch:stdout())
  if seen.looks_with_child == 0 then error("the child was never seen: " .. watch:stdout()) end
  seen.elapsed_ms, seen.written_in_all_bytes = proof.targets[1].elapsed_ms, wrote
  seen.written_bytes = rate * harness.MIB * seen.with_child_ms / 1000 -- what both children together can have copied
  seen.table_bytes = proof.targets[1].table_bytes
  seen.added_bytes = seen.most_bytes - seen.first_bytes
  return seen
end

return function()
  local rows, details = {}, {}
  for _, rate in ipairs(WRITES_MIB_PER_S) do
    local seen = measure(harness.scaled(HEAP_MIB, 64), rate)
    print(("  memory, writing %d MiB/s: %.1f MiB more at most, %.1f MiB written while a child lived;"
      .. " MemAvailable fell by %.1f MiB; %d looks, %d with the child"):format(rate, seen.added_bytes / harness.MIB,
      seen.written_bytes / harness.MIB, (seen.available_bytes - seen.least_available_bytes) / harness.MIB, seen.looks,
      seen.looks_with_child))
    rows[#rows + 1] = harness.row(
      ("memory added by a proof beyond what is written, at %d MiB/s"):format(rate),
      (seen.added_bytes - seen.written_bytes) / harness.MIB, "<=", ASKED_MIB, "MiB")
    details[("writing_%d_mib_per_s"):format(rate)] = seen
  end
  return rows, details
end
