--- The threads of a process and their CPU time, from /proc/PID/task.
-- @module lupe.threads

local files = require("lupe.ffi")

local TICK_NS = 1e7     -- USER_HZ is 100 on every architecture that Linux reports these times for
local MOST_THREADS = 2000

--- Name, user and system ticks. The name stands in parentheses and may hold blanks and parentheses itself.
local function parse(line)
  local name, rest = line:match("^%d+ %((.*)%) (.*)$")
  if not name then return nil end
  local fields = {}
  for word in rest:gmatch("%S+") do fields[#fields + 1] = word end
  return name, tonumber(fields[12]), tonumber(fields[13])
end

--- @param pid of a process that may have ended: then there are none
-- @return array of { pid, tid, name, user_ns, system_ns }, at most 2,000, the oldest first
return function(pid)
  local list = {}
  for _, tid in ipairs(files.list(("/proc/%d/task"):format(pid)) or {}) do
    if #list == MOST_THREADS then break end
    local file = io.open(("/proc/%d/task/%s/stat"):format(pid, tid), "r")
    local line = file and file:read("*l")
    if file then file:close() end
    local name, user, system = nil, nil, nil
    if line then name, user, system = parse(line) end
    if system then
      list[#list + 1] = {
        pid = pid, tid = tonumber(tid), name = name, user_ns = user * TICK_NS, system_ns = system * TICK_NS,
      }
    end
  end
  return list
end
