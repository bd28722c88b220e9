--- How long a program stands still for a leak proof, beyond what fork alone costs there.
--
-- A thread of the program allocates and writes without a pause, and notes its longest turns: in a window in which a
-- proof is made, in one of the same length in which the program forks twice as a program would (the child exits at
-- once), and in one in which nothing happens. Waiting for a processor is not counted: a proof's child takes one.
-- A fork takes longer from one to the next here, as memory is shared with ever more that was: so each round has
-- both, by turns one or the other first, and what counts is the median of what lies between the two of a round.
local harness = require("bench.harness")
local tasks = require("bench.proof.tasks")

local SIZES_MIB, ROUNDS, ASKED_MS = { 1024, 4096 }, 9, 1
local FLAGS = { "--cpu-hz", "0", "--wall-hz", "0", "--proof-interval-ms", "200" }

local function window(one, seconds, within)
  one:command("open")
  local result = within and within(seconds)
  if not within then tasks.sleep(seconds) end
  return one:command("close"), result
end

local function fork_twice(one)
  return function(seconds)
    local forks = {}
    for i = 1, 2 do
      forks[i] = one:command("fork").fork_ms
      tasks.sleep(math.max(0, seconds / 2 - forks[i] / 1000))
    end
    return forks
  end
end

local function measure(mib)
  local one = tasks.start({ harness.program("proof_heap"), "blocks", mib, "spin" }, FLAGS)
  one:command()
  one:await_profile()
  local pid, rounds = one:pid(), {}
  local seconds = 1 -- of a window, until a proof has shown how long one takes
  for i = 1, harness.scaled(ROUNDS, 2) do
    local proved, proof, forked, forks
    if i % 2 == 0 then forked, forks = window(one, seconds, fork_twice(one)) end
    proved, proof = window(one, nil, function() return one:prove(pid) end)
    seconds = proof.targets[1].elapsed_ms / 1000
    if not forked then forked, forks = window(one, seconds, fork_twice(one)) end
    local idle = window(one, seconds)
    rounds[i] = {
      proof_ms = proved.longest_running_ms[1], fork_ms = forked.longest_running_ms[1],
      beyond_ms = proved.longest_running_ms[1] - forked.longest_running_ms[1],
      idle_ms = idle.longest_running_ms[1],
      proof_with_waits_ms = proved.longest_ms[1],
      fork_with_waits_ms = forked.longest_ms[1], idle_with_waits_ms = idle.longest_ms[1],
      told_pause_ms = proof.targets[1].pause_ms, fork_call_ms = math.max(unpack(forks)),
      elapsed_ms = proof.targets[1].elapsed_ms, next_longest_ms = proved.longest_running_ms,
    }
  end
  one:write("quit\n")
  one:finish()
  return rounds
end

local function median(rounds, field)
  local values = {}
  for i, round in ipairs(rounds) do values[i] = round[field] end
  return harness.median(values)
end

return function()
  local rows, details = {}, {}
  for _, full in ipairs(SIZES_MIB) do
    local mib = harness.scaled(full, 64)
    local rounds = measure(mib)
    local proof, fork = median(rounds, "proof_ms"), median(rounds, "fork_ms")
    print(("  %d MiB: longest turn with a proof %.2f ms, with plain forks %.2f, with nothing %.2f (medians of %d);")
      :format(mib, proof, fork, median(rounds, "idle_ms"), #rounds))
    print(("    waits for a processor included: %.2f, %.2f, %.2f; fork() %.2f ms; lupe tells %.2f ms"):format(
      median(rounds, "proof_with_waits_ms"), median(rounds, "fork_with_waits_ms"),
      median(rounds, "idle_with_waits_ms"), median(rounds, "fork_call_ms"), median(rounds, "told_pause_ms")))
    rows[#rows + 1] = harness.row(("pause at %d MiB of heap, beyond plain fork's %.1f ms"):format(mib, fork),
      median(rounds, "beyond_ms"), "<=", ASKED_MS, "ms")
    details[("heap_%d_mib"):format(mib)] = rounds
  end
  return rows, details
end
