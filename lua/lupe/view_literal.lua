--- A snapshot from a literal table, laid out exactly like one that C builds.
-- Everything has a default; times are ms since the run began, unless `started_ms` says otherwise:
--
--     { started_ms = 0, interval_ms = 1000, time_ms = of the last tick, generation = 1, sample_period_bytes = 0,
--       sites = { { name = "leak", module = "app", history = { 0, 65536, ... }, objects = { ... },
--                   inuse_space = last of the history, inuse_objects = last of objects or one per KiB,
--                   alloc_space = inuse_space, alloc_objects = inuse_objects, first_seen_ms, last_grown_ms,
--                   alloc_history = { bytes allocated until each tick; not known where absent },
--                   stack = { "leak", "main" }, or stacks = { { stack = { ... }, inuse_space = n } ... } } },
--       ticks = { ms, ... }, allocated = { bytes per tick },
--       memory = { { time_ms = 0, rss_bytes = n, ... } ... }, classes = { { size_bytes, live_count } ... },
--       targets = { { pid = 1, name = "app", live = true, heap_state = "on", allocator = "jemalloc",
--                     cpu_state = "on" where there is a profile, wall_state likewise } },
--       profile = { from_ms = 0, to_ms = 60000, cpu_hz = 99, wall_hz = 20, threads = { { tid, name, pid, switches } },
--                   samples = { { stack = { "leaf", "caller", ... }, lines = { 12, ... }, thread = 1 (in `threads`),
--                                 state = "user", "kernel", "running" or "waiting", syscall = number or nil: none,
--                                 futex = its command, count = 1, ns = count * 1e9 / cpu_hz (or wall_hz) } ... } },
--       spans = { { name = "request", pid = 1, durations_ms = { 12, 7.5, ... }, begun_in = "on_request" or
--                   "module!name" } ... }, span_seconds = 60, names_lost = 0, spans_lost = 0,
--       proofs = { of leak proofs: see lupe.proof_literal }, base = another such table, or base_reason = text }
--
-- A frame of a sample is "name", "module!name", or a table { name, module, file, line, definition_line, wrapper,
-- inlines } with inlines { { name, file, line } ... innermost first }. A frame of a site's stack is one of the first
-- two, or a table { name, module, file, line }; without a module it is in the site's. "[tag]!acme" is the tag "acme"
-- (lupe.site_groups).
-- A history shorter than the longest one ends with it: what came before is 0.
-- @module lupe.view_literal

local add_proofs = require("lupe.proof_literal")
local build = require("lupe.ffi").build
local span_bucket = require("lupe.span_buckets").of

local SPAN_BUCKETS = require("lupe.ffi").SPAN_BUCKETS
local NOTHING = 0xffffffff
local NO_SYSCALL = 0xffff
local STATES = { on = 0, no_jemalloc = 1, no_profiling = 2, prof_disabled = 3, no_hook = 4, switched_off = 5 }

local SAMPLING = { off = 0, on = 1, foreign = 2, refused = 3, unreadable = 4, unsupported = 5 }
local THREAD = { user = 0, kernel = 1, running = 2, waiting = 3 }

--- Gives each distinct key a 0-based number, and keeps what was made for it.
local function numbering(list)
  local numbers = {}
  return function(key, make)
    if not numbers[key] then
      list[#list + 1] = make()
      numbers[key] = #list - 1
    end
    return numbers[key]
  end
end

local function sum_into(totals, history)
  for i, value in ipairs(history) do totals[i] = (totals[i] or 0) + value end
end

--- A history as long as the timeline.
local function aligned(history, ticks)
  local out, missing = {}, ticks - #history
  for i = 1, ticks do out[i] = i > missing and history[i - missing] or 0 end
  return out
end

local function longest_history(sites)
  local ticks = 0
  for _, site in ipairs(sites) do ticks = math.max(ticks, #(site.history or {})) end
  return ticks
end

--- First profile with the site live, last one in which it grew.
local function times_of(history, ticks)
  local first, grown = 0, 0
  for i, value in ipairs(history) do
    if value > 0 and first == 0 then first = ticks[i] end
    if value > (history[i - 1] or 0) then grown = ticks[i] end
  end
  return first, grown
end

local function target_of(target, profiled)
  local copy = {}
  for name, value in pairs(target) do copy[name] = value end
  copy.pid, copy.ppid = target.pid or 1, target.ppid or 0
  copy.live = target.live == false and 0 or 1
  copy.heap_state = STATES[target.heap_state or "on"]
  copy.name, copy.allocator = target.name or "app", target.allocator or "jemalloc"
  copy.cpu_state = SAMPLING[target.cpu_state or (profiled and profiled.cpu_hz ~= 0 and "on" or "off")]
  copy.wall_state = SAMPLING[target.wall_state or (profiled and profiled.wall_hz ~= 0 and "on" or "off")]
  return copy
end

local function memory_of(row)
  local copy = {}
  for name, value in pairs(row) do copy[name] = value end
  copy.has_allocator = row.allocated_bytes and 1 or 0
  return copy
end

--- A frame as it may be written: "name", "module!name" or a table.
local function frame_parts(given, line, default_module)
  local frame = type(given) == "table" and given or { name = given }
  local module, name = frame.name:match("^([^!]+)!(.+)$")
  return name or frame.name, module or frame.module or default_module or "app", frame.file or "",
    frame.line or line or 0, frame.inlines or {}
end

--- `state` of record.h.
local function state_of(sample)
  local state = THREAD[sample.state or "user"]
  if state ~= THREAD.waiting then return state end
  return state + (sample.futex or 0) * 2 ^ 8 + (sample.syscall or NO_SYSCALL) * 2 ^ 16
end

local function ns_of(sample, profile)
  if sample.ns then return sample.ns end
  local by_clock = sample.state == "running" or sample.state == "waiting"
  return (sample.count or 1) * 1e9 / (by_clock and profile.wall_hz or profile.cpu_hz)
end

--- @tparam table t as above
-- @return address, size and owner, as lupe.ffi.build gives them
return function(t)
  local sites = t.sites or {}
  local ticks = t.ticks or {}
  for i = 1, t.ticks and 0 or longest_history(sites) do
    ticks[i] = (t.started_ms or 0) + i * (t.interval_ms or 1000)
  end
  local count = #ticks

  local arrays = {
    modules = {}, functions = {}, frames = {}, stack_first = {}, stack_frames = {}, stack_site = {},
    stack_inuse_space = {}, stack_inuse_objects = {}, stack_alloc_space = {}, stack_alloc_objects = {},
    site_function = {}, site_inuse_space = {}, site_inuse_objects = {}, site_alloc_space = {},
    site_alloc_objects = {}, site_first_seen_ms = {}, site_last_grown_ms = {}, site_history_space = {},
    site_history_objects = {}, site_history_alloc = {}, site_top_stack = {}, tick_time_ms = ticks,
    tick_inuse_space = {}, tick_allocated = t.allocated or {}, classes = t.classes or {}, targets = {},
    memory = {}, inlines = {}, spans = {}, span_buckets = {}, span_totals = {},
    threads = {}, sample_stack = {}, sample_thread = {},
    sample_state = {},
    sample_count = {}, sample_ns = {}, proofs = {}, proof_rows = {},
  }
  local module_number, function_number = numbering(arrays.modules), numbering(arrays.functions)
  local frame_number = numbering(arrays.frames)
  local stack_number = numbering(arrays.stack_site)

  local function module_of(path)
    return module_number(path, function() return { path = path, build_id = "" } end)
  end
  local function function_of(name, path)
    local module = module_of(path)
    return function_number(path .. "\0" .. name, function() return { name = name, module = module, named = 1 } end)
  end
  local function add_stack(owner, names, path, space, objects, alloc_space, alloc_objects)
    arrays.stack_first[#arrays.stack_first + 1] = #arrays.stack_frames
    for _, given in ipairs(names) do
      local name, where, file, line = frame_parts(given, nil, path)
      local number = function_of(name, where)
      arrays.stack_frames[#arrays.stack_frames + 1] = frame_number(table.concat({ where, name, file, line }, "\0"),
        function() return { ["function"] = number, module = module_of(where), file = file, line = line } end)
    end
    local at = #arrays.stack_site + 1
    arrays.stack_site[at], arrays.stack_inuse_space[at], arrays.stack_inuse_objects[at] = owner, space, objects
    arrays.stack_alloc_space[at], arrays.stack_alloc_objects[at] = alloc_space, alloc_objects
    return at - 1
  end

  local function inlines_of(list)
    local first = #arrays.inlines
    for _, inline in ipairs(list) do
      arrays.inlines[#arrays.inlines + 1] = { name = inline.name, file = inline.file or "", line = inline.line or 0 }
    end
    return first, #list
  end
  local function sampled_frame(given, line)
    local name, path, file, at, inlines = frame_parts(given, line)
    local number = function_of(name, path)
    if type(given) == "table" then
      local about = arrays.functions[number + 1]
      about.wrapper, about.file, about.line = given.wrapper and 1 or 0, file, given.definition_line or 0
    end
    local key = table.concat({ path, name, file, at, inlines[1] and tostring(inlines) or "" }, "\0")
    return frame_number(key, function()
      local first, inlined = inlines_of(inlines)
      return {
        ["function"] = number, module = module_of(path), file = file, line = at, inline_first = first,
        inline_count = inlined,
      }
    end)
  end
  local function sampled_stack(names, lines)
    local numbers = {}
    for k, name in ipairs(names) do numbers[k] = sampled_frame(name, lines and lines[k]) end
    return stack_number(table.concat(numbers, " "), function()
      arrays.stack_first[#arrays.stack_first + 1] = #arrays.stack_frames
      for _, number in ipairs(numbers) do arrays.stack_frames[#arrays.stack_frames + 1] = number end
      for _, column in ipairs({ "inuse_space", "inuse_objects", "alloc_space", "alloc_objects" }) do
        local list = arrays["stack_" .. column]
        list[#list + 1] = 0
      end
      return NOTHING
    end)
  end
  local function target_number(pid)
    for k, each in ipairs(t.targets or {}) do
      if pid and each.pid == pid then return k - 1 end
    end
    return 0
  end
  --- One of the stacks of a site, by the name ("module!name" where several modules have it).
  local function stack_of(name, which)
    for i, site in ipairs(sites) do
      if site.name == name or ("%s!%s"):format(site.module or "app", site.name) == name then
        for at, owner in ipairs(arrays.stack_site) do
          which = owner == i - 1 and which - 1 or which
          if which == 0 then return at - 1 end
        end
      end
    end
    error(("proofs: no such stack of a site %q"):format(name), 0)
  end
  local function live_of(stack) return arrays.stack_inuse_objects[stack + 1], arrays.stack_inuse_space[stack + 1] end
  local function add_profile(profile)
    for i, thread in ipairs(profile.threads) do
      arrays.threads[i] = {
        target = target_number(thread.pid), tid = thread.tid or i, name = thread.name or "",
        switches = thread.switches or 0,
      }
    end
    for i, sample in ipairs(profile.samples) do
      arrays.sample_stack[i] = sample.stack and sampled_stack(sample.stack, sample.lines) or NOTHING
      arrays.sample_thread[i] = (sample.thread or 1) - 1
      arrays.sample_state[i] = state_of(sample)
      arrays.sample_count[i], arrays.sample_ns[i] = sample.count or 1, ns_of(sample, profile)
    end
  end

  for i, site in ipairs(sites) do
    local path = site.module or "app"
    local history = aligned(site.history or {}, count)
    local space = site.inuse_space or history[count] or 0
    local objects, allocated = aligned(site.objects or {}, count), aligned(site.alloc_history or {}, count)
    local live = site.inuse_objects or (site.objects and objects[count]) or math.ceil(space / 1024)
    local alloc_space, alloc_objects = site.alloc_space or space, site.alloc_objects or live
    local first, grown = times_of(history, ticks)
    arrays.site_function[i] = function_of(site.name, path)
    arrays.site_inuse_space[i], arrays.site_inuse_objects[i] = space, live
    arrays.site_alloc_space[i], arrays.site_alloc_objects[i] = alloc_space, alloc_objects
    arrays.site_first_seen_ms[i] = site.first_seen_ms or first
    arrays.site_last_grown_ms[i] = site.last_grown_ms or grown
    for k = 1, count do
      arrays.site_history_space[(i - 1) * count + k] = history[k]
      arrays.site_history_objects[(i - 1) * count + k] = objects[k]
      arrays.site_history_alloc[(i - 1) * count + k] = allocated[k]
    end
    sum_into(arrays.tick_inuse_space, history)

    local only = {
      stack = site.stack or { site.name }, inuse_space = space, alloc_space = alloc_space,
      alloc_objects = alloc_objects,
    }
    local stacks = site.stacks or { only }
    local best, best_space = nil, -1
    for _, stack in ipairs(stacks) do
      local bytes = stack.inuse_space or 0
      local number = add_stack(i - 1, stack.stack, path, bytes, stack.inuse_objects or live,
        stack.alloc_space or bytes, stack.alloc_objects or stack.inuse_objects or live)
      if bytes > best_space then best, best_space = number, bytes end
    end
    arrays.site_top_stack[i] = best
  end
  local profile
  if t.profile then
    profile = {
      from_ms = 0, to_ms = 60000, cpu_hz = 99, wall_hz = 20, threads = { { tid = 1, name = "app" } }, samples = {},
    }
    for name, value in pairs(t.profile) do profile[name] = value end
    add_profile(profile)
  end
  for i, span in ipairs(t.spans or {}) do
    local row = { name = span.name, target = target_number(span.pid), count = 0, total_ns = 0, max_ns = 0 }
    row["function"] = NOTHING
    if span.begun_in then
      local name, path = frame_parts(span.begun_in)
      row["function"] = function_of(name, path)
    end
    for b = 1, SPAN_BUCKETS do arrays.span_buckets[(i - 1) * SPAN_BUCKETS + b] = 0 end
    for _, ms in ipairs(span.durations_ms or {}) do
      local ns = ms * 1e6
      local at = (i - 1) * SPAN_BUCKETS + 1 + span_bucket(ns, SPAN_BUCKETS)
      arrays.span_buckets[at] = arrays.span_buckets[at] + 1
      row.count, row.total_ns, row.max_ns = row.count + 1, row.total_ns + ns, math.max(row.max_ns, ns)
    end
    arrays.spans[i] = row
    arrays.span_totals[i] = { name = span.name, count = row.count, total_ns = row.total_ns }
  end
  arrays.stack_first[#arrays.stack_first + 1] = #arrays.stack_frames
  for i = 1, count do
    arrays.tick_inuse_space[i] = arrays.tick_inuse_space[i] or 0
    arrays.tick_allocated[i] = arrays.tick_allocated[i] or 0
  end
  for i, row in ipairs(t.memory or {}) do arrays.memory[i] = memory_of(row) end
  for i, target in ipairs(t.targets or { {} }) do arrays.targets[i] = target_of(target, profile) end

  local time_ms = t.time_ms or ticks[count] or profile and profile.to_ms or 0
  local span_to_ms = profile and profile.to_ms or time_ms
  add_proofs(t.proofs or {}, arrays, {
    target_of = target_number, stack_of = stack_of, live = live_of, time_ms = time_ms,
    sample_period_bytes = t.sample_period_bytes or 0,
  })
  return build({
    time_ms = time_ms, started_ms = t.started_ms or 0, generation = t.generation or 1,
    tick_count = count, heap_interval_ms = t.interval_ms or 1000, sample_period_bytes = t.sample_period_bytes or 0,
    dropped_records = t.dropped_records or 0, truncated_stacks = t.truncated_stacks or 0,
    stack_overflows = t.stack_overflows or 0, profile_from_ms = profile and profile.from_ms or 0,
    profile_to_ms = profile and profile.to_ms or 0, cpu_hz = profile and profile.cpu_hz or 0,
    wall_hz = profile and profile.wall_hz or 0,
    span_from_ms = math.max(0, span_to_ms - 1000 * (t.span_seconds or 60)), span_to_ms = span_to_ms,
    mark_names_lost = t.names_lost or 0, spans_lost = t.spans_lost or 0,
  }, arrays)
end
