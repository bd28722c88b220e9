--- The samples of a window summed up: over the whole, by thread, by stack, and by function.
-- Two passes over columns in compiled loops: the rows, then the stacks that have any. Figures are ns, in arrays
-- from index 0 (lupe.ffi's numbers).
--
-- * the whole: `cpu_ns kernel_ns memory_ns allocator_ns io_ns lock_ns idle_ns running_ns cpu_samples wall_samples`
-- * `thread`, by thread: `cpu_ns running_ns io_ns lock_ns idle_ns samples`
-- * `stack`, by stack: `cpu_ns kernel_ns io_ns lock_ns idle_ns samples` (idle ones not counted), and `self`: the
--   function whose time it is (-1: no samples, or no frames), `self_at`: its place in stack_frames
-- * `of`, by function: `cpu_ns kernel_ns memory_ns io_ns lock_ns idle_ns samples` of stacks whose self it is, `wall_ns`
--   (cpu + io + lock); `cum_cpu_ns cum_wall_ns allocator_ns` of all stacks that it is in, each counted once;
--   `allocating_ns` in the allocator, of stacks in which it is who called that; `best_stack`, `best_cum_stack` (plus 1;
--   0: none); `root`: 1 it only begins threads, 2 it is main
-- * `tag`, by function that is a tag: `cpu_ns samples` of stacks whose innermost tag it is, on a core; nil where there
--   are none. Tags are no callers: they are in none of the other figures. `last_frame` of lupe.tags
-- * `frame`, by frame: `cpu_ns wall_ns` of stacks in which it is the self
-- @module lupe.profile_sums

local attribution = require("lupe.attribution")
local bit = require("bit")
local numbers = require("lupe.ffi").numbers
local tags = require("lupe.tags")
local waits = require("lupe.waits")

local USER, KERNEL, RUNNING, WAITING = 0, 1, 2, 3 -- lupe_thread_state
local NOTHING = 0xffffffff
local IO, LOCK, IDLE = 1, 2, 3
local CLASS = { io = IO, lock = LOCK, idle = IDLE }
local DEEPEST_WAITER = 12 -- frames looked at for the function that waits: libc's own, and a runtime's over them

local function arrays(count, names)
  local made = {}
  for name in names:gmatch("%S+") do made[name] = numbers(count) end
  return made
end

--- What a function's name and module tell, by its index; each worked out when first asked for, as text is slow.
local function traits_of(columns)
  local text, functions = columns.text, columns.functions
  local libc_modules, traits = {}, {}

  local function trait(work_out)
    local known = {}
    return function(index)
      local answer = known[index]
      if answer == nil then
        local f = functions[index]
        answer = work_out(text(f.name), f) or false
        known[index] = answer
      end
      return answer
    end
  end
  local function file_name(module)
    return module < columns.count.modules and text(columns.modules[module].path):match("[^/]*$") or ""
  end
  function traits.passed_over(index)
    local module = functions[index].module
    local answer = libc_modules[module]
    if answer == nil then
      answer = attribution.passed_over(file_name(module))
      libc_modules[module] = answer
    end
    return answer
  end
  traits.allocates = trait(function(name, f) return attribution.allocates(name, file_name(f.module)) end)
  --- Its time is its caller's.
  function traits.works_for_callers(index) return traits.passed_over(index) or traits.allocates(index) end
  traits.moves_memory = trait(attribution.memory_word)
  traits.futex_word = trait(waits.futex_word)
  function traits.begins(index)
    local f = functions[index]
    return attribution.begins_thread(text(f.name), traits.passed_over(index), f.named == 1)
  end
  return traits
end

--- Classes of waits as numbers: by state, and of futex calls by the functions on their stack.
local function classifier(columns, traits)
  local by_state, by_stack = {}, {}
  local function of_stack(stack)
    local first, last = columns.stack_first[stack], columns.stack_first[stack + 1] - 1
    for k = first, math.min(last, first + DEEPEST_WAITER - 1) do
      local word = traits.futex_word(columns.frames[columns.stack_frames[k]]["function"])
      if word then return CLASS[word] end
    end
    return 0
  end
  return function(state, stack)
    local class = by_state[state]
    if not class then
      local syscall, futex = waits.parts(state)
      class = CLASS[waits.class(syscall, futex)]
      if syscall == waits.FUTEX then class = -class end -- unless the stack says better
      by_state[state] = class
    end
    if class > 0 then return class end
    if stack == NOTHING then return -class end
    local better = by_stack[stack]
    if not better then
      better = of_stack(stack)
      by_stack[stack] = better
    end
    return better > 0 and better or -class
  end
end

local function sum_rows(columns, sums, class_of)
  local rows, stacks = columns.count.sample_ns, columns.count.stacks
  local stack_of, thread_of, state_of = columns.sample_stack, columns.sample_thread, columns.sample_state
  local count_of, ns_of = columns.sample_count, columns.sample_ns
  local thread, stack = sums.thread, sums.stack
  local cpu_samples, wall_samples = 0, 0
  for i = 0, rows - 1 do
    local at, who, state, ns, count = stack_of[i], thread_of[i], state_of[i], ns_of[i], count_of[i]
    local kind = bit.band(state, 0xff)
    local known = at < stacks
    thread.samples[who] = thread.samples[who] + count
    if kind == USER or kind == KERNEL then
      cpu_samples = cpu_samples + count
      thread.cpu_ns[who] = thread.cpu_ns[who] + ns
      sums.kernel_ns = sums.kernel_ns + (kind == KERNEL and ns or 0)
      if known then
        stack.cpu_ns[at], stack.samples[at] = stack.cpu_ns[at] + ns, stack.samples[at] + count
        if kind == KERNEL then stack.kernel_ns[at] = stack.kernel_ns[at] + ns end
      end
    elseif kind == RUNNING then
      wall_samples = wall_samples + count
      thread.running_ns[who] = thread.running_ns[who] + ns
    elseif kind == WAITING then
      wall_samples = wall_samples + count
      local class = class_of(state, at)
      if class == IO then
        thread.io_ns[who] = thread.io_ns[who] + ns
        if known then stack.io_ns[at], stack.samples[at] = stack.io_ns[at] + ns, stack.samples[at] + count end
      elseif class == LOCK then
        thread.lock_ns[who] = thread.lock_ns[who] + ns
        if known then stack.lock_ns[at], stack.samples[at] = stack.lock_ns[at] + ns, stack.samples[at] + count end
      else
        thread.idle_ns[who] = thread.idle_ns[who] + ns
        if known then stack.idle_ns[at] = stack.idle_ns[at] + ns end
      end
    end
  end
  sums.cpu_samples, sums.wall_samples = cpu_samples, wall_samples
  for name, values in pairs(thread) do
    if sums[name] then
      for i = 0, columns.count.threads - 1 do sums[name] = sums[name] + values[i] end
    end
  end
end

--- The leaf end of one stack: where its self is, whether the allocator is at work, whether it is memory's time.
local function look_at(columns, traits, first, last)
  local frames, function_of = columns.frames, columns.stack_frames
  local self_at, allocates = nil, false
  for k = first, last do
    local f = frames[function_of[k]]["function"]
    allocates = allocates or traits.allocates(f)
    if not traits.works_for_callers(f) then
      self_at = k
      break
    end
  end
  return self_at or first, allocates, allocates or traits.moves_memory(frames[function_of[first]]["function"])
end

--- Who called the allocator: the first frame that neither is part of it nor wraps it; nil where nobody is left.
local function who_allocates(columns, traits, first, last)
  for k = first, last do
    local index = columns.frames[columns.stack_frames[k]]["function"]
    if not traits.works_for_callers(index) and columns.functions[index].wrapper ~= 1 then return index end
  end
end

--- Marks the functions at a stack's root end that only begin the thread, and main.
local function mark_roots(columns, traits, root, first, last)
  for k = last, first, -1 do
    local index = columns.frames[columns.stack_frames[k]]["function"]
    if root[index] ~= 1 then
      if not traits.begins(index) then
        if columns.text(columns.functions[index].name) == "main" then root[index] = 2 end
        return
      end
      root[index] = 1
    end
  end
end

local function add_below(columns, of, mark, stack, first, last, cpu, wall, allocator)
  local frames, frame_of = columns.frames, columns.stack_frames
  for k = first, last do
    local f = frames[frame_of[k]]["function"]
    if mark[f] ~= stack + 1 then -- a function that calls itself is in this stack once
      mark[f] = stack + 1
      of.cum_cpu_ns[f] = of.cum_cpu_ns[f] + cpu
      of.cum_wall_ns[f] = of.cum_wall_ns[f] + wall
      of.allocator_ns[f] = of.allocator_ns[f] + allocator
      if wall > of.best_cum_ns[f] then of.best_cum_ns[f], of.best_cum_stack[f] = wall, stack + 1 end
    end
  end
end

--- The CPU time of each tag; while it waits a thread is seen without tags.
local function sum_tags(columns, stack, is_tag)
  local tag = arrays(columns.count.functions, "cpu_ns samples")
  local of = tags.of_stacks(columns, is_tag)
  for at = 0, columns.count.stacks - 1 do
    local f = of[at] - 1
    if f >= 0 and stack.cpu_ns[at] > 0 then
      tag.cpu_ns[f], tag.samples[f] = tag.cpu_ns[f] + stack.cpu_ns[at], tag.samples[f] + stack.samples[at]
    end
  end
  return tag
end

local function sum_stacks(columns, sums, traits)
  local stack, of, frame = sums.stack, sums.of, sums.frame
  local mark, last_frame = numbers(columns.count.functions), sums.last_frame
  for at = 0, columns.count.stacks - 1 do
    local cpu, io, lock, idle = stack.cpu_ns[at], stack.io_ns[at], stack.lock_ns[at], stack.idle_ns[at]
    local first, last = columns.stack_first[at], last_frame(at)
    stack.self[at] = -1
    if cpu + io + lock + idle > 0 and first <= last then
      local self_at, allocates, memory = look_at(columns, traits, first, last)
      local index = columns.stack_frames[self_at]
      local f = columns.frames[index]["function"]
      local wall = cpu + io + lock
      stack.self[at], stack.self_at[at] = f, self_at
      of.cpu_ns[f], of.kernel_ns[f] = of.cpu_ns[f] + cpu, of.kernel_ns[f] + stack.kernel_ns[at]
      of.io_ns[f], of.lock_ns[f], of.idle_ns[f] = of.io_ns[f] + io, of.lock_ns[f] + lock, of.idle_ns[f] + idle
      of.wall_ns[f], of.samples[f] = of.wall_ns[f] + wall, of.samples[f] + stack.samples[at]
      frame.cpu_ns[index], frame.wall_ns[index] = frame.cpu_ns[index] + cpu, frame.wall_ns[index] + wall + idle
      if memory then
        of.memory_ns[f] = of.memory_ns[f] + cpu
        sums.memory_ns = sums.memory_ns + cpu
      end
      if allocates then
        sums.allocator_ns = sums.allocator_ns + cpu
        local caller = who_allocates(columns, traits, first, last)
        if caller then of.allocating_ns[caller] = of.allocating_ns[caller] + cpu end
      end
      -- What the program is busy with comes before where it idles.
      local weight = wall > 0 and wall + 1e15 or idle
      if weight > of.best_ns[f] then of.best_ns[f], of.best_stack[f] = weight, at + 1 end
      mark_roots(columns, traits, of.root, first, last)
      if wall > 0 then add_below(columns, of, mark, at, first, last, cpu, wall, allocates and cpu or 0) end
    end
  end
end

--- @tparam table columns of lupe.ffi
return function(columns)
  local sums = {
    cpu_ns = 0, kernel_ns = 0, memory_ns = 0, allocator_ns = 0, io_ns = 0, lock_ns = 0, idle_ns = 0, running_ns = 0,
    thread = arrays(columns.count.threads, "cpu_ns running_ns io_ns lock_ns idle_ns samples"),
    stack = arrays(columns.count.stacks, "cpu_ns kernel_ns io_ns lock_ns idle_ns samples self self_at"),
    of = arrays(columns.count.functions, [[cpu_ns kernel_ns memory_ns io_ns lock_ns idle_ns wall_ns samples
      cum_cpu_ns cum_wall_ns allocator_ns allocating_ns best_ns best_stack best_cum_ns best_cum_stack root]]),
    frame = arrays(columns.count.frames, "cpu_ns wall_ns"),
  }
  local traits, is_tag = traits_of(columns), tags.functions(columns)
  local class_of = classifier(columns, traits)
  sums.last_frame = tags.last_frame(columns, is_tag)
  sum_rows(columns, sums, class_of)
  sums.tag = is_tag and sum_tags(columns, sums.stack, is_tag)
  sum_stacks(columns, sums, traits)
  sums.class_of, sums.traits = class_of, traits
  return sums
end
