--- Where the time went in a window, as rules and routes see it: CPU samples and looks by the clock on the wall.
-- Times are ns, summed over threads: 16 threads that wait for a second are 16e9.
--
-- Fields:
--
-- * `cpu`, `wall` { state = "on", "off", "foreign", "refused", "unreadable" or "unsupported"; reason = text, nil where
--   on; hz }; of several processes "on" where any is. `threads_untimed`, `threads_unread` threads that have no CPU
--   timer, and whose waits cannot be read
-- * `from_ms`, `to_ms`, `seconds` of the window; `cpu_samples`, `wall_samples`, `total_samples`
-- * `cpu_ns` on a core, of it `kernel_ns` in system calls, `memory_ns` in memcpy and the like and in the allocator, and
--   `allocator_ns` in the latter;
--   `io_ns`, `lock_ns`, `idle_ns` waiting (see lupe.waits); `running_ns` on a core or waiting for one, by the clock (it
--   is no part of the rest); `busy_ns` cpu + io + lock: thread time that is not idle
-- * `bound` { cpu (cpu - memory), io, lock, memory } shares of busy_ns, 0..1, sum 1. nil where nothing was busy, or the
--   CPU was not profiled; without waits, io and lock are nil
--
-- Methods:
--
-- * `functions { by, limit, roots }` an iterator over lupe.profile_function, largest `by` first, only those that have
--   any. `by`: "wall_ns" where not given. Functions that only begin a thread are left out unless `roots` is true; in
--   orders of what is called (`cum_...`, `allocator_ns`) so are main, and functions of libc and the allocator, whose
--   time is their callers'.
-- * `threads()` an array, busiest first (lupe.profile_threads)
-- * `waits()` an array { name of a system call or "page fault", class "io", "lock" or "idle", ns, count }, longest
--   first
-- * `tags()` an array { name, cpu_ns, cpu_percent, samples } of what the program says its work is for (lupe.tags), most
--   cpu_ns first; of several in one stack the innermost counts. While it waits a thread is seen without tags
-- * `stacks { type }` an iterator: frames leaf first { name, module, file, line, inlines = { { name, file, line } } or
--   nil }, ns, samples, and the name of its innermost tag or nil.
--   `type` "cpu", "wall" (cpu + io + lock), "io", "lock", "idle"
-- * `lacks(count, kind)` nil where there are so many samples, or none to come as profiling is not on; else
--   { needed_seconds }: what a rule returns when it has too little to say. `kind` "cpu"; "wall": looks at threads; nil:
--   CPU samples, and looks at threads that waited for I/O or locks. A thread that stands still is written down once for
--   many looks: those count
-- @module lupe.profile_view
-- @usage
-- local profile = view.profile
-- for f in profile:functions { by = "cpu_ns", limit = 1 } do
--   return f.name, words.percent(f.cpu_percent), words.percent(100 * profile.bound.cpu)
-- end
-- --> encode, 60 %, 75 %
-- @usage
-- local longest = view.profile:waits()[1]
-- return longest.name, longest.class, longest.ns / 1e9
-- --> epoll_wait, idle, 30

local functions = require("lupe.profile_function")
local largest = require("lupe.largest")
local lazy = require("lupe.lazy")
local options_of = require("lupe.options")
local profile_threads = require("lupe.profile_threads")
local sampling = require("lupe.sampling")
local summed = require("lupe.profile_sums")
local waits = require("lupe.waits")

local function sum_over_targets(columns, field)
  local sum = 0
  for i = 0, columns.count.targets - 1 do sum = sum + columns.targets[i][field] end
  return sum
end

--- Fields of lupe.profile_sums that are fields here too.
local TOTALS = {
  "cpu_ns", "kernel_ns", "memory_ns", "allocator_ns", "io_ns", "lock_ns", "idle_ns", "running_ns", "cpu_samples",
  "wall_samples",
}
local ORDERS = {
  "cpu_ns", "cum_cpu_ns", "wall_ns", "cum_wall_ns", "io_ns", "lock_ns", "idle_ns", "allocator_ns", "allocating_ns",
  "kernel_ns", "memory_ns", "samples",
}
local BELOW = { cum_cpu_ns = true, cum_wall_ns = true, allocator_ns = true }
local TYPES = { "cpu", "wall", "io", "lock", "idle" }
local FUNCTION_OPTIONS = { by = ORDERS, limit = "number", roots = "boolean" }
local WAITING = 3 -- lupe_thread_state
local MAIN = 2 -- of lupe.profile_sums' root

--- What lupe.profile_function and lupe.profile_threads work with.
local function inner_of(columns)
  local sums = summed(columns)
  local inner = { columns = columns, sums = sums, busy_ns = sums.cpu_ns + sums.io_ns + sums.lock_ns }

  --- each(stack or nil, thread, state, class, ns, count) for all rows that wait.
  function inner.each_wait(each)
    local names = { "io", "lock", "idle" }
    for i = 0, columns.count.sample_ns - 1 do
      local state, stack = columns.sample_state[i], columns.sample_stack[i]
      if state % 256 == WAITING then
        each(stack < columns.count.stacks and stack or nil, columns.sample_thread[i], state,
          names[sums.class_of(state, stack)], columns.sample_ns[i], columns.sample_count[i])
      end
    end
  end

  local frames
  --- Frames of a function that its time was seen in.
  function inner.frames_of(index)
    if not frames then
      frames = {}
      for i = 0, columns.count.frames - 1 do
        if sums.frame.wall_ns[i] > 0 then
          local f = columns.frames[i]["function"]
          local list = frames[f] or {}
          frames[f], list[#list + 1] = list, i
        end
      end
    end
    return frames[index] or {}
  end

  local threads
  --- How many threads, by function: `busy` in it, waiting for a `lock` in it.
  function inner.threads_of()
    if threads then return threads end
    threads = { busy = {}, lock = {} }
    local seen = { busy = {}, lock = {} }
    local function count(what, self, thread)
      local key = self * columns.count.threads + thread
      if seen[what][key] then return end
      seen[what][key] = true
      threads[what][self] = (threads[what][self] or 0) + 1
    end
    for i = 0, columns.count.sample_ns - 1 do
      local state, stack = columns.sample_state[i], columns.sample_stack[i]
      local self = stack < columns.count.stacks and sums.stack.self[stack] or -1
      local class = state % 256 == WAITING and sums.class_of(state, stack) or 0
      if self >= 0 and class < 3 then count("busy", self, columns.sample_thread[i]) end
      if self >= 0 and class == 2 then count("lock", self, columns.sample_thread[i]) end
    end
    return threads
  end
  return inner
end

--- The tags that have any time.
local function tags_of(inner)
  local columns, tag, list = inner.columns, inner.sums.tag, {}
  for i = 0, tag and columns.count.functions - 1 or -1 do
    if tag.cpu_ns[i] > 0 then
      list[#list + 1] = {
        name = columns.text(columns.functions[i].name), cpu_ns = tag.cpu_ns[i],
        cpu_percent = 100 * tag.cpu_ns[i] / inner.sums.cpu_ns, samples = tag.samples[i],
      }
    end
  end
  table.sort(list, function(a, b)
    if a.cpu_ns ~= b.cpu_ns then return a.cpu_ns > b.cpu_ns end
    return a.name < b.name
  end)
  return list
end

local function bound_of(inner, cpu, wall)
  local sums, busy = inner.sums, inner.busy_ns
  if busy <= 0 or cpu.state ~= "on" then return nil end
  local waited = wall.state == "on"
  return {
    cpu = (sums.cpu_ns - sums.memory_ns) / busy, memory = sums.memory_ns / busy,
    io = waited and sums.io_ns / busy or nil, lock = waited and sums.lock_ns / busy or nil,
  }
end

local function waits_of(inner)
  local list, known = {}, {}
  inner.each_wait(function(_, _, state, class, ns, count)
    local name = waits.name((waits.parts(state)))
    local entry = known[name .. class]
    if not entry then
      entry = { name = name, class = class, ns = 0, count = 0 }
      known[name .. class], list[#list + 1] = entry, entry
    end
    entry.ns, entry.count = entry.ns + ns, entry.count + count
  end)
  table.sort(list, function(a, b)
    if a.ns ~= b.ns then return a.ns > b.ns end
    return a.name .. a.class < b.name .. b.class
  end)
  return list
end

--- A frame by its index, made once: stacks share most of theirs.
local function frames_by_index(columns)
  local known = {}
  local function some(text) return text ~= "" and text or nil end
  return function(index)
    local frame = known[index]
    if frame then return frame end
    local at = columns.frames[index]
    local path = at.module < columns.count.modules and columns.text(columns.modules[at.module].path) or ""
    frame = {
      name = columns.text(columns.functions[at["function"]].name), module = path:match("[^/]*$"),
      file = some(columns.text(at.file)), line = at.line > 0 and at.line or nil,
    }
    if at.inline_count > 0 then
      frame.inlines = {}
      for i = at.inline_first, at.inline_first + at.inline_count - 1 do
        local inline = columns.inlines[i]
        frame.inlines[#frame.inlines + 1] = {
          name = columns.text(inline.name), file = some(columns.text(inline.file)),
          line = inline.line > 0 and inline.line or nil,
        }
      end
    end
    known[index] = frame
    return frame
  end
end

--- @tparam table columns of lupe.ffi
-- @tparam[opt] table kept where the sums are put, for other views of the same snapshot
-- @tparam[opt] table off_because "cpu" or "wall" -> why there are no such samples
return function(columns, kept, off_because)
  local objects, frame_of = {}, nil
  kept = kept or {}
  local function summary()
    kept.profile = kept.profile or inner_of(columns)
    return kept.profile
  end

  local function function_at(index)
    objects[index] = objects[index] or functions.new(summary(), index)
    return objects[index]
  end

  local function function_iterator(_, options)
    options = options_of.check("functions", options, FUNCTION_OPTIONS)
    local by = options.by or "wall_ns"
    local sums = summary().sums
    local keys, root, below, helps = sums.of[by], sums.of.root, BELOW[by], sums.traits.works_for_callers
    local candidates, count = {}, 0
    for i = 0, columns.count.functions - 1 do
      if keys[i] > 0 and (options.roots or (root[i] == 0 and not (below and helps(i)))
        or (root[i] == MAIN and not below)) then
        count = count + 1
        candidates[count] = i
      end
    end
    candidates, count = largest(candidates, count, keys, options.limit or count)
    local at = 0
    return function()
      at = at + 1
      local index = candidates[at]
      if at > count then return nil end
      return function_at(index)
    end
  end

  local function stack_iterator(_, options)
    local kind = options_of.check("stacks", options, { type = TYPES }).type or "cpu"
    frame_of = frame_of or frames_by_index(columns)
    local stack, last_frame = summary().sums.stack, summary().sums.last_frame
    local values, at = stack[kind .. "_ns"], -1 -- none of "wall": a sum
    return function()
      while at < columns.count.stacks - 1 do
        at = at + 1
        local ns = values and values[at] or stack.cpu_ns[at] + stack.io_ns[at] + stack.lock_ns[at]
        if ns > 0 then
          local frames = {}
          local last = last_frame(at)
          for k = columns.stack_first[at], last do frames[#frames + 1] = frame_of(columns.stack_frames[k]) end
          local tag = last + 1 < columns.stack_first[at + 1] and frame_of(columns.stack_frames[last + 1]).name or nil
          return frames, ns, stack.samples[at], tag
        end
      end
    end
  end

  local function lacks(self, wanted, kind)
    local hz, have = 0, 0
    if kind ~= "wall" and self.cpu.state == "on" then hz, have = self.cpu.hz, self.cpu_samples end
    if kind ~= "cpu" and self.wall.state == "on" then
      local seen_ns = self.io_ns + self.lock_ns + (kind and self.idle_ns + self.running_ns or 0)
      hz, have = hz + self.wall.hz, have + seen_ns / 1e9 * self.wall.hz
    end
    if hz == 0 or have >= wanted then return nil end
    return { needed_seconds = math.max(wanted / hz, self.seconds * wanted / math.max(1, have)) }
  end

  local makers = {
    cpu = function() return sampling.of(columns, "cpu", off_because) end,
    wall = function() return sampling.of(columns, "wall", off_because) end,
    bound = function(self) return bound_of(summary(), self.cpu, self.wall) end,
    busy_ns = function() return summary().busy_ns end,
    total_samples = function(self) return self.cpu_samples + self.wall_samples end,
    threads_untimed = function() return sum_over_targets(columns, "threads_untimed") end,
    threads_unread = function() return sum_over_targets(columns, "threads_unread") end,
  }
  for _, name in ipairs(TOTALS) do
    makers[name] = function() return summary().sums[name] end
  end
  return lazy(makers, {
    from_ms = columns.profile_from_ms, to_ms = columns.profile_to_ms,
    seconds = (columns.profile_to_ms - columns.profile_from_ms) / 1000,
    functions = function_iterator, stacks = stack_iterator, lacks = lacks,
    threads = function(self) return profile_threads(summary(), self.wall.state == "on", function_at) end,
    waits = function() return waits_of(summary()) end,
    tags = function() return tags_of(summary()) end,
  }, "view.profile")
end
