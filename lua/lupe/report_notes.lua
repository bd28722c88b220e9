--- The report's notes: which processes have no profile, or no leak proof of their exit, and why; and where the last
-- data is older than the end.
-- @module lupe.report_notes

local format = require("lupe.format")
local sampling = require("lupe.sampling")
local targets = require("lupe.targets")

local SIGKILL = 9

--- One note for all processes of one name that have the same to be said of them.
local function grouped_notes(list, describe)
  local groups, order, notes = {}, {}, {}
  for _, target in ipairs(list) do
    local text = describe(target)
    if text then
      local key = target.name .. "\0" .. text
      if not groups[key] then
        groups[key] = { name = target.name, text = text, count = 0, pid = target.pid }
        order[#order + 1] = groups[key]
      end
      groups[key].count = groups[key].count + 1
    end
  end
  for i, group in ipairs(order) do
    local who = group.count == 1 and ("process %d"):format(group.pid) or ("%d processes"):format(group.count)
    notes[i] = ("%s (%s): %s"):format(group.name, who, group.text)
  end
  return notes
end

local function note_of(target)
  local reason = targets.heap_reason(target)
  if reason then return "the heap was not profiled: " .. reason end
  if target.heap_state == "no_hook" then
    return "this jemalloc cannot hand over stacks, so what was allocated and freed is not known"
  end
  return nil
end

--- Which processes have no profile of a kind that others have. What none has is said with the bottlenecks.
local function sampling_notes(list, view)
  local notes = {}
  for _, part in ipairs({ { "cpu", "CPU" }, { "wall", "wall" } }) do
    local kind, known = part[1], view and view.profile[part[1]]
    if known and known.state == "on" then
      local found = grouped_notes(list, function(target)
        local state = target[kind .. "_state"]
        local missing = state ~= "on" and state ~= "off" -- it may have ended before sampling began
        return missing and ("no %s profile: %s"):format(part[2], sampling.reason(kind, state, known.hz)) or nil
      end)
      for _, note in ipairs(found) do notes[#notes + 1] = note end
    end
  end
  return notes
end

--- Which processes should have been proved as they exited, and were not.
local function unproved_notes(list, view)
  local proved = {}
  for _, target in ipairs(view and view.proof and view.proof.targets or {}) do proved[target.pid] = true end
  return grouped_notes(list, function(target)
    local missing = not proved[target.pid] and not targets.heap_reason(target)
    return missing and "no leak proof at its exit: a signal ended it, or it left by _exit" or nil
  end)
end

--- @param app, info, view of lupe.report
-- @return array of texts, and why nothing at all was profiled (or nil)
return function(app, info, view)
  local list = app.host.targets()
  local notes = grouped_notes(list, note_of)
  local profiled, reason = false, nil
  for _, target in ipairs(list) do
    local why = targets.heap_reason(target)
    if why then reason = reason or why else profiled = true end
  end
  if info.signal == SIGKILL and view then
    notes[#notes + 1] = ("SIGKILL left no time for a last profile: the figures are from %s before the end")
      :format(format.duration(math.max(0, app.host.now_ms() - view.time_ms)))
  end
  if not profiled and #notes == 1 then notes = {} end -- the answer says it
  local unproved = app.config.proof == "exit" and unproved_notes(list, view) or {}
  for _, more in ipairs({ sampling_notes(list, view), unproved, info.notes or {} }) do
    for _, note in ipairs(more) do notes[#notes + 1] = note end
  end
  if profiled then return notes, nil end
  if not app.config.enable_profiling then return notes, "profiling is switched off (ENABLE_PROFILING=false)" end
  return notes, reason or info.reason or "the program never connected to lupe: it is statically linked or setuid, "
    .. "clears its environment, or ended before it was loaded"
end
