--- Whether CPU samples and looks at waiting threads are taken, and why not.
-- @module lupe.sampling

local sampling = {}

local STATES = { [0] = "off", "on", "foreign", "refused", "unreadable", "unsupported" } -- lupe_sampling_state
local UNSUPPORTED = "stacks cannot be taken with this glibc or kernel"
local REASONS = {
  cpu = {
    off = "CPU profiling is off", foreign = "the program has a handler for SIGPROF of its own",
    refused = "no CPU timer could be made for any thread", unsupported = UNSUPPORTED,
  },
  wall = {
    off = "wall profiling is off", unreadable = "the program's threads cannot be read (not dumpable, or confined)",
    unsupported = UNSUPPORTED,
  },
}
local NOT_YET = "sampling begins a moment after a program's start"

--- Why a state is not "on", or nil where it is.
-- @param kind "cpu" or "wall"
-- @param hz how often samples were to be taken; 0: never
-- @param[opt] off_because why that is so, by kind
function sampling.reason(kind, state, hz, off_because)
  if state == "on" then return nil end
  if state == "off" and hz > 0 then return NOT_YET end
  local reason = REASONS[kind][state] or REASONS[kind].off
  local because = state == "off" and (off_because or {})[kind]
  return because and reason .. ": " .. because or reason
end

--- Of all processes of a snapshot: "on" where any is.
-- @param columns of lupe.ffi
-- @param[opt] off_because as above
-- @return { state, reason = text or nil, hz }
function sampling.of(columns, kind, off_because)
  local field, hz, state = kind .. "_state", columns[kind .. "_hz"], "off"
  for i = 0, hz > 0 and columns.count.targets - 1 or -1 do -- where it was switched off some may not know it yet
    local seen = STATES[columns.targets[i][field]] or "off"
    if seen == "on" or state == "off" then state = seen end
    if state == "on" then break end
  end
  return { state = state, reason = sampling.reason(kind, state, hz, off_because), hz = hz }
end

return sampling
