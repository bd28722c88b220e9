--- The threads of the CPU and wall profile, busiest first: most time on a core, then most time wanting one.
-- Each: `pid`, `tid`, `name` ("" not known); ns of the window `cpu_ns` on a core, `running_ns` on a core or waiting for
-- one (by the clock), `io_ns`, `lock_ns`, `idle_ns`; `cpu_percent`, `wall_percent` its shares of all cpu_ns and busy_ns
-- (nil where those are 0); `seconds_seen` how long it was looked at, and `switches` how often
-- it was put on a core (both nil without wall profiling); `samples`; and a method
-- `where(class)`: the function (lupe.profile_function) that most of its "cpu", "io", "lock" or "idle" time was spent
-- in, the ns of that, and the name of the system call that it waited in longest there (nil for "cpu"); nil where there
-- is none.
-- @module lupe.profile_threads
-- @usage
-- local busiest = view.profile:threads()[1]
-- local f, ns = busiest:where("cpu")
-- return busiest.name, words.percent(busiest.cpu_percent), f.name, ns / 1e9
-- --> worker-1, 100 %, encode, 18

local bit = require("bit")
local lazy = require("lupe.lazy")
local waits = require("lupe.waits")

local WAITING, KERNEL = 3, 1 -- lupe_thread_state
local CLASSES = { [0] = "cpu", "io", "lock", "idle" }

--- class -> self -> { ns, by = { syscall -> ns } } of one thread.
local function places(inner, thread)
  local columns, sums = inner.columns, inner.sums
  local found = { cpu = {}, io = {}, lock = {}, idle = {} }
  for i = 0, columns.count.sample_ns - 1 do
    local stack, state = columns.sample_stack[i], columns.sample_state[i]
    local kind = bit.band(state, 0xff)
    if columns.sample_thread[i] == thread and stack < columns.count.stacks and (kind <= KERNEL or kind == WAITING) then
      local by_self = found[CLASSES[kind == WAITING and sums.class_of(state, stack) or 0]]
      local self = sums.stack.self[stack]
      local entry = by_self[self] or { ns = 0, by = {} }
      by_self[self], entry.ns = entry, entry.ns + columns.sample_ns[i]
      if kind == WAITING then
        local name = waits.name((waits.parts(state)))
        entry.by[name] = (entry.by[name] or 0) + columns.sample_ns[i]
      end
    end
  end
  return found
end

--- The key with the largest figure, the lower key of equal ones.
local function most(figures)
  local best, ns
  for key, figure in pairs(figures) do
    if not ns or figure > ns or (figure == ns and key < best) then best, ns = key, figure end
  end
  return best
end

local function where(function_at, found, class)
  local figures = {}
  for self, entry in pairs(found[class] or {}) do
    if self >= 0 then figures[self] = entry.ns end
  end
  local self = most(figures)
  if not self then return nil end
  return function_at(self), figures[self], most(found[class][self].by)
end

local function percent(part, whole) return whole > 0 and 100 * part / whole or nil end

local function thread_of(inner, index, looked_at, function_at)
  local columns, sums = inner.columns, inner.sums.thread
  local thread = columns.threads[index]
  local target = thread.target < columns.count.targets and columns.targets[thread.target]
  local seen_ns = sums.running_ns[index] + sums.io_ns[index] + sums.lock_ns[index] + sums.idle_ns[index]
  local busy_ns = sums.cpu_ns[index] + sums.io_ns[index] + sums.lock_ns[index]
  local found
  return lazy({}, {
    pid = target and target.pid or 0, tid = thread.tid, name = columns.text(thread.name),
    cpu_ns = sums.cpu_ns[index], running_ns = sums.running_ns[index], io_ns = sums.io_ns[index],
    lock_ns = sums.lock_ns[index], idle_ns = sums.idle_ns[index], samples = sums.samples[index],
    cpu_percent = percent(sums.cpu_ns[index], inner.sums.cpu_ns), wall_percent = percent(busy_ns, inner.busy_ns),
    seconds_seen = looked_at and seen_ns / 1e9 or nil, switches = looked_at and thread.switches or nil,
    where = function(_, class)
      found = found or places(inner, index)
      return where(function_at, found, class)
    end,
  }, "a thread")
end

--- @tparam table inner of lupe.profile_view
-- @tparam boolean looked_at wall profiling is on
-- @tparam function function_at the function of an index
return function(inner, looked_at, function_at)
  local list, order = {}, {}
  for i = 0, inner.columns.count.threads - 1 do order[i + 1] = i end
  local cpu, running = inner.sums.thread.cpu_ns, inner.sums.thread.running_ns
  table.sort(order, function(a, b)
    if cpu[a] ~= cpu[b] then return cpu[a] > cpu[b] end
    if running[a] ~= running[b] then return running[a] > running[b] end
    return a < b
  end)
  for i, index in ipairs(order) do list[i] = thread_of(inner, index, looked_at, function_at) end
  return list
end
