--- Whether a program notices: 100 proofs in a row under load, then 200 whose child is killed at a random moment.
-- The program forks children of its own and waits for any child; it counts what is not as it should be.
local harness = require("bench.harness")
local tasks = require("bench.proof.tasks")
local support = require("spec.support")

local PROOFS, KILLS, HEAP_MIB, SETTLE_SECONDS, ASKED_RSS_MIB = 100, 200, 200, 2, 4
local FLAGS = { "--proof-interval-ms", "20" }

local function descriptors(pid)
  local pipe = assert(io.popen(("ls -l /proc/%d/fd"):format(pid)))
  local list = {}
  for line in pipe:lines() do
    local fd, what = line:match(" (%d+) %-> (.*)$")
    if fd then list[#list + 1] = fd .. " " .. what:gsub("%[%d+%]", "") end
  end
  pipe:close()
  table.sort(list)
  return table.concat(list, "\n")
end

-- The least of some readings: what it allocates and frees meanwhile comes and goes.
local function settled(pid)
  local readings = {}
  for i = 1, 20 do
    tasks.sleep(SETTLE_SECONDS / 20)
    readings[i] = harness.rss_bytes(pid)
  end
  return { rss_bytes = harness.median(readings), descriptors = descriptors(pid) }
end

-- Lines are numbered; what is missing or out of order is strange.
local function strange_lines(text)
  local expected, strange = 0, 0
  for serial in text:gmatch("line (%d+)\n") do
    if tonumber(serial) ~= expected then strange = strange + 1 end
    expected = tonumber(serial) + 1
  end
  return strange, expected
end

local function outcomes_of(counts, proof)
  local outcome = proof.targets[1] and proof.targets[1].outcome or proof.status
  counts[outcome] = (counts[outcome] or 0) + 1
end

local function kill_children(one, pid, count)
  local killer = support.spawn({ harness.program("proof_children"), "kill", pid, count, 1 })
  local outcomes = {}
  while killer:alive() do outcomes_of(outcomes, one:prove(pid, true)) end
  if killer.code ~= 0 then error("proof_children: " .. killer:stderr()) end
  return support.json.decode(killer:stdout()), outcomes
end

return function()
  local one = tasks.start({ harness.program("proof_parent"), harness.scaled(HEAP_MIB, 20) }, FLAGS)
  one:await_profile()
  local pid, outcomes = one:pid(), {}
  one:prove(pid) -- the first one's memory and descriptors, where it keeps any, are not yet there before it
  local before = settled(pid)
  for _ = 1, harness.scaled(PROOFS, 3) do outcomes_of(outcomes, one:prove(pid)) end
  local after = settled(pid)
  local killed, killed_outcomes = kill_children(one, pid, harness.scaled(KILLS, 3))
  local last = settled(pid)
  one:write("\n")
  local code = one:finish()
  if code ~= 0 then one:fail("exit code " .. tostring(code)) end
  local out = one.process:stdout()
  local told = support.json.decode(out:match("{[^\n]*}") or error("no figures: " .. out:sub(-500)))
  local strange, lines = strange_lines(out)
  local wrong = told.strange + told.interrupted + math.abs(told.forked - told.waited)
    + math.abs(told.forked - told.signalled)
  local changed = 0
  for _, now in ipairs({ after, last }) do
    if now.descriptors ~= before.descriptors then changed = changed + 1 end
  end
  if changed > 0 then
    print("  descriptors before:\n" .. before.descriptors .. "\n  after:\n" .. after.descriptors .. "\n  last:\n"
      .. last.descriptors)
  end
  local function grew(now) return (now.rss_bytes - before.rss_bytes) / harness.MIB end
  print(("  %d children forked, %d waited for, %d signals; RSS %.1f MiB, %+.1f after the proofs, %+.1f after the kills")
    :format(told.forked, told.waited, told.signalled, before.rss_bytes / harness.MIB, grew(after), grew(last)))
  return {
    harness.row(("proofs in a row under load that are complete, of %d"):format(harness.scaled(PROOFS, 3)),
      outcomes.complete or 0, ">=", harness.scaled(PROOFS, 3)),
    harness.row("children killed at a random moment", killed.killed, ">=", harness.scaled(KILLS, 3)),
    harness.row("children, signals and waits of the program that were not its own", wrong, "<=", 0),
    harness.row(("lines of its output missing or out of order, of %d"):format(lines),
      strange + math.abs(lines - told.lines), "<=", 0),
    harness.row("times that its descriptors were not as before", changed, "<=", 0),
    harness.row("its RSS after all of it, more than before", math.max(grew(after), grew(last)), "<=", ASKED_RSS_MIB,
      "MiB"),
  }, { told = told, outcomes = outcomes, killed = killed, killed_outcomes = killed_outcomes,
    rss_mib = before.rss_bytes / harness.MIB, rss_after_mib = grew(after), rss_after_kills_mib = grew(last) }
end
