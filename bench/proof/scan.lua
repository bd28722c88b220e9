--- How fast a proof reads memory, against what one core can read at all.
local harness = require("bench.harness")
local tasks = require("bench.proof.tasks")

local BUFFERS_MIB, POINTERS_MIB, PROOFS, RATE_MIB, RATE_ROUNDS = 2048, 512, 3, 512, 7
local ASKED_BYTES, ASKED_SHARE = 4e9, 0.7
local FLAGS = { "--cpu-hz", "0", "--wall-hz", "0", "--proof-interval-ms", "100" }

local function rate_of(kind, mib)
  local one = tasks.start({ harness.program("proof_heap"), kind, mib, 0 }, FLAGS)
  one:command()
  one:await_profile()
  local pid, rates, target = one:pid(), {}, nil
  for i = 1, harness.scaled(PROOFS, 1) do
    target = one:prove(pid).targets[1]
    rates[i] = target.scan_bytes_per_sec
  end
  one:write("quit\n")
  one:finish()
  return harness.median(rates), {
    rates = rates, heap_objects = target.heap_objects, read_bytes = target.read_bytes, table_bytes = target.table_bytes,
  }
end

return function()
  local function machine() return harness.measure({ harness.program("read_rate"), RATE_MIB, RATE_ROUNDS }) end
  local before = machine()
  local buffers, of_buffers = rate_of("buffers", harness.scaled(BUFFERS_MIB, 64))
  local pointers, of_pointers = rate_of("pointers", harness.scaled(POINTERS_MIB, 16))
  local after = machine()
  local memcpy = math.min(before.memcpy_bytes_per_sec, after.memcpy_bytes_per_sec)
  print(("  scan: %.2f GB/s of buffers, %.2f GB/s of pointers; memcpy reads %.2f GB/s here, reading alone %.2f"):format(
    buffers / 1e9, pointers / 1e9, memcpy / 1e9, after.read_bytes_per_sec / 1e9))
  local row = harness.row("scan of a heap of buffers", buffers / 1e9, ">=", ASKED_BYTES / 1e9,
    ("GB/s, or %g of memcpy"):format(ASKED_SHARE))
  row.pass = row.pass or buffers >= ASKED_SHARE * memcpy
  return { row }, {
    memcpy_before = before, memcpy_after = after, buffers = of_buffers, pointers = of_pointers,
    pointers_bytes_per_sec = pointers,
  }
end
