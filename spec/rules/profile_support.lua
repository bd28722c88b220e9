--- Literal profiles for the specs of rules about time: seconds in words, made into samples.
local given = require("spec.rules.support")

local M = { run = given.run }

local CPU_HZ, WALL_HZ = 100, 20
M.READ, M.WRITE, M.POLL, M.NANOSLEEP, M.FUTEX, M.EPOLL_WAIT, M.FSYNC = 0, 1, 7, 35, 202, 232, 74

--- `seconds` on a core in a stack. `more`: state, thread, lines.
function M.cpu(seconds, stack, more)
  local sample = { stack = stack, count = seconds * CPU_HZ, ns = seconds * 1e9, state = "user" }
  for name, value in pairs(more or {}) do sample[name] = value end
  return sample
end

--- `seconds` waiting in a system call. `more`: thread, futex.
function M.wait(seconds, syscall, stack, more)
  local sample = {
    stack = stack, count = seconds * WALL_HZ, ns = seconds * 1e9, state = "waiting", syscall = syscall,
  }
  for name, value in pairs(more or {}) do sample[name] = value end
  return sample
end

--- `seconds` seen on a core by the clock.
function M.running(seconds, thread)
  return { state = "running", count = seconds * WALL_HZ, ns = seconds * 1e9, thread = thread or 1 }
end

--- A program profiled for a minute.
function M.program(samples, threads, more)
  local described = { profile = { samples = samples, threads = threads, cpu_hz = CPU_HZ, wall_hz = WALL_HZ } }
  for name, value in pairs(more or {}) do described.profile[name] = value end
  return described
end

--- `count` threads of the same name, each with so many switches in the window.
function M.threads(count, switches)
  local list = {}
  for i = 1, count do list[i] = { tid = 100 + i, name = "worker" .. i, switches = switches or 0 } end
  return list
end

return M
