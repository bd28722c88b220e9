--- The processes of the run, and the one that a request picked.
-- @module lupe.targets

local problem = require("lupe.problem")

local targets = {}

-- What an agent's heap state means for the one who asks; a more exact text by the host wins.
local REASONS = {
  no_jemalloc = "the process does not use jemalloc",
  no_profiling = "this jemalloc was built without profiling (--enable-prof)",
  prof_disabled = "jemalloc's profiling is off in this process (opt.prof): MALLOC_CONF did not reach it",
  switched_off = "lupe was told to leave the allocator alone (--allocator=system)",
}

--- Why there is no heap profile of a target, or nil where there is one.
function targets.heap_reason(target)
  if target.heap_state == "on" or target.heap_state == "no_hook" then return nil end
  return target.reason or REASONS[target.heap_state] or target.heap_state
end

--- The live targets that a request is about.
-- @param pid the one asked for, or nil for all
-- @return array of targets, at least one. Raises a problem: 404 unknown, 503 gone.
function targets.select(host, pid)
  local live, asked = {}, nil
  for _, target in ipairs(host.targets()) do
    if target.live and (not pid or target.pid == pid) then live[#live + 1] = target end
    if target.pid == pid then asked = target end
  end
  if live[1] then return live end
  if asked then problem.raise(503, "target-gone", ("process %d (%s) has ended"):format(pid, asked.name)) end
  if pid then
    problem.raise(404, "unknown-target", ("no process %d in this run; /api/targets lists them"):format(pid))
  end
  problem.raise(503, "no-target", "no live process has connected: it has not started yet, has ended, or cannot be "
    .. "profiled (see lupe's own messages)")
end

--- The memory figures of those that `select` gave. Raises a problem (503) where they have ended since.
function targets.figures(host, pid)
  local figures = host.memory(pid)
  if figures then return figures end
  problem.raise(503, "target-gone", (pid and "process %d" or "the last process"):format(pid) .. " has just ended")
end

--- The allocator of several targets in one word or two, and why heap figures are missing (or nil).
function targets.allocator(selected)
  local reason
  for _, target in ipairs(selected) do
    local why = targets.heap_reason(target)
    if not why then return target.allocator, nil end
    reason = reason or why
  end
  return selected[1].allocator, reason
end

return targets
