--- Runs of the zoo's programs under lupe, recorded; and what the rules say of the recordings.
-- A run is { key = "PROGRAM.SCENARIO.SEED", entry = one of bench/zoo/labels.lua, seed, path of its recording }.
-- @module bench.zoo_runs

local harness = require("bench.harness")
local support = require("spec.support")

local zoo_runs = {}

local SAMPLE_BYTES, REPLAYS_AT_ONCE = 65536, 4

--- One run per entry and seed.
-- @tparam number seeds how many, from `first_seed` on
function zoo_runs.all(entries, first_seed, seeds, folder)
  local list = {}
  for seed = first_seed, first_seed + seeds - 1 do
    for _, entry in ipairs(entries) do
      local key = ("%s.%s.%d"):format(entry.program, entry.scenario, seed)
      list[#list + 1] = { key = key, entry = entry, seed = seed, path = folder .. "/" .. key .. ".rec" }
    end
  end
  return list
end

function zoo_runs.command(entry, seed, seconds)
  return { harness.program("zoo/" .. entry.program), entry.scenario, "--seed", seed, "--seconds", seconds }
end

--- The name alone: no arguments, templates, namespaces, and not what the compiler adds to copies.
function zoo_runs.plain(component)
  local name = component:gsub("%(anonymous namespace%)::", ""):gsub("%b<>", ""):gsub("%b()", ""):gsub("%b[]", "")
  name = name:gsub("^.*[ *&]", ""):gsub("%.[%a_]+%.?%d*$", "")
  return name
end

--- Whether a plain name is in a list of names, whatever its namespace.
function zoo_runs.is_one_of(list, name)
  for _, one in ipairs(list) do
    if name == one or name:match("[^:]*$") == one then return true end
  end
  return false
end

--- Calls `start(item)`, which returns a process, for every item, `most` at once and `apart` seconds from each other;
-- then `done(item, process)` when it has ended.
function zoo_runs.at_once(items, most, apart, start, done)
  local live, next_item, next_at = {}, 1, 0
  while next_item <= #items or #live > 0 do
    if next_item <= #items and #live < most and support.now() >= next_at then
      live[#live + 1] = { item = items[next_item], process = start(items[next_item]) }
      next_item, next_at = next_item + 1, support.now() + apart
    end
    for i = #live, 1, -1 do
      if not live[i].process:alive() then
        local ended = table.remove(live, i)
        done(ended.item, ended.process)
      end
    end
    support.sleep(0.01)
  end
end

local function failed(run, process, what)
  error(("%s: %s ended with %s: %s"):format(run.key, what, tostring(process.code or process.signal),
    process:stderr():sub(-2000)))
end

--- Runs what has no recording yet. A recording gets its name when it is whole.
-- @tparam number seconds of each
-- @tparam number most programs at once
-- @return how many were run, and the CPU share of the machine meanwhile (nil where none was)
function zoo_runs.record(list, seconds, most)
  local missing = {}
  for _, run in ipairs(list) do
    if not support.read_file(run.path) then missing[#missing + 1] = run end
  end
  local busy, total = harness.machine_ticks()
  zoo_runs.at_once(missing, most, seconds / (2 * most), function(run)
    local flags = { "--sample-bytes", SAMPLE_BYTES, "--record", run.path .. ".part" }
    -- Somewhat longer, so that there is a frame of the last second that is judged.
    return support.spawn(harness.lupe_words(0, flags, zoo_runs.command(run.entry, run.seed, seconds + 1.5)))
  end, function(run, process)
    if process.code ~= 0 then failed(run, process, "lupe") end
    assert(os.rename(run.path .. ".part", run.path))
  end)
  local busy_now, total_now = harness.machine_ticks()
  return #missing, #missing > 0 and (busy_now - busy) / (total_now - total) or nil
end

--- Replays all recordings: each run gets `frames`, as `lupe rules replay --report json` prints them.
function zoo_runs.replay(list)
  zoo_runs.at_once(list, REPLAYS_AT_ONCE, 0, function(run)
    return support.spawn({ support.built("lupe"), "rules", "replay", run.path, "--report", "json" })
  end, function(run, process)
    if process.code ~= 0 then failed(run, process, "replay") end
    local told = support.json.decode(process:stdout())
    if not told.complete then error(run.path .. ": " .. told.ending) end
    for _, frame in ipairs(told.frames) do
      -- Of another version's recording nothing can be said; it is not a run in which nothing was found.
      if frame.status == "damaged" then error(("%s: record it again"):format(frame.errors[1])) end
    end
    run.frames = told.frames
  end)
end

--- Of a replayed run, the frame nearest to a time.
function zoo_runs.frame(run, seconds)
  local best
  for _, frame in ipairs(run.frames) do
    if not best or math.abs(frame.seconds - seconds) < math.abs(best.seconds - seconds) then best = frame end
  end
  return best or error(run.path .. " holds no frames")
end

return zoo_runs
