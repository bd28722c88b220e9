--- One function of the CPU and wall profile.
-- Fields (read-only; ns of the window, sums over its samples):
--
-- * `name`, `module` file name, `module_path`; `file` and `line` of its hottest line (what is inlined into it belongs
--   to the line that calls it), `definition_line`; nil where not known
-- * itself, with what is inlined into it, and what it calls of libc, the loader, the vdso and the allocator: `cpu_ns`,
--   `kernel_ns` (of it, in system calls), `memory_ns` (of it, in memcpy and the like, or in the allocator), `io_ns`,
--   `lock_ns`, `wall_ns` (cpu + io + lock), `idle_ns`; `samples` (idle ones not counted)
-- * with all that it calls: `cum_cpu_ns`, `cum_wall_ns`, and `allocator_ns` (CPU time of it in the allocator);
--   `allocating_ns` of it where this function called the allocator, itself or through a wrapper such as operator new
-- * `root` true: it only begins a thread, or is main
-- * `threads` how many it was busy in; `lock_threads` how many waited for a lock in it
-- * `stack` names of its heaviest stack, itself first, then its caller ...
-- * `calls` what it calls of libc and the like: { { name, ns, cpu_ns, kernel_ns, io_ns, lock_ns, idle_ns } ... longest
--   first }; `ns` is the sum of cpu, io, lock and idle; variants of memcpy and its like have the plain name
-- * `waits` what it waits for: { { name of a system call or "page fault", class, ns } ... longest first }
-- * `cpu_percent`, `wall_percent`, `cum_cpu_percent`, `cum_wall_percent` of the whole's cpu_ns and busy_ns; nil where
--   that is 0
-- @module lupe.profile_function
-- @usage
-- for f in view.profile:functions { by = "wall_ns" } do
--   if f.io_ns > f.cpu_ns then return f.name, f.waits[1].name, f.waits[1].class, f.threads end
-- end
-- --> load_page, read, io, 1

local memory_word = require("lupe.attribution").memory_word
local waits = require("lupe.waits")

local functions = {}

-- Out of reach of a rule that walks over fields.
local states = setmetatable({}, { __mode = "k" })
local PROFILE = {} -- key in a state, which no rule can name

local makers = {}

for _, name in ipairs({
  "cpu_ns", "kernel_ns", "memory_ns", "io_ns", "lock_ns", "idle_ns", "wall_ns", "samples", "cum_cpu_ns", "cum_wall_ns",
  "allocator_ns", "allocating_ns",
}) do
  makers[name] = function(profile, index) return profile.sums.of[name][index] end
end

local function some(text) return text ~= "" and text or nil end

local function percent(part, whole) return whole > 0 and 100 * part / whole or nil end

function makers.cpu_percent(profile, index) return percent(makers.cpu_ns(profile, index), profile.sums.cpu_ns) end

function makers.cum_cpu_percent(profile, index)
  return percent(makers.cum_cpu_ns(profile, index), profile.sums.cpu_ns)
end

function makers.wall_percent(profile, index) return percent(makers.wall_ns(profile, index), profile.busy_ns) end

function makers.cum_wall_percent(profile, index) return percent(makers.cum_wall_ns(profile, index), profile.busy_ns) end

function makers.name(profile, index) return profile.columns.text(profile.columns.functions[index].name) end

function makers.module_path(profile, index)
  local columns = profile.columns
  local module = columns.functions[index].module
  return module < columns.count.modules and columns.text(columns.modules[module].path) or ""
end

function makers.module(profile, index) return makers.module_path(profile, index):match("[^/]*$") end

function makers.root(profile, index) return profile.sums.of.root[index] ~= 0 end

function makers.definition_line(profile, index)
  local line = profile.columns.functions[index].line
  return line > 0 and line or nil
end

--- File and line with most CPU time, by the clock where there is none; the first of equal ones.
local function hottest(profile, index)
  local columns, frame = profile.columns, profile.sums.frame
  local weight = makers.cpu_ns(profile, index) > 0 and frame.cpu_ns or frame.wall_ns
  local sums, best = {}, nil
  for _, i in ipairs(profile.frames_of(index)) do
    local at = columns.frames[i]
    if at.line > 0 and weight[i] > 0 then
      local key = columns.text(at.file) .. "\0" .. at.line
      local sum = sums[key] or { file = columns.text(at.file), line = tonumber(at.line), ns = 0 }
      sums[key], sum.ns = sum, sum.ns + weight[i]
    end
  end
  for _, sum in pairs(sums) do
    if not best or sum.ns > best.ns or (sum.ns == best.ns and (sum.line < best.line
      or (sum.line == best.line and sum.file < best.file))) then best = sum end
  end
  return best
end

function makers.line(profile, index)
  local best = hottest(profile, index)
  return best and best.line
end

function makers.file(profile, index)
  local best = hottest(profile, index)
  return best and some(best.file) or some(profile.columns.text(profile.columns.functions[index].file))
end

function makers.threads(profile, index) return profile.threads_of().busy[index] or 0 end

function makers.lock_threads(profile, index) return profile.threads_of().lock[index] or 0 end

function makers.stack(profile, index)
  local columns, of = profile.columns, profile.sums.of
  local stack = of.best_stack[index] > 0 and of.best_stack[index] or of.best_cum_stack[index]
  local names, found = {}, false
  if stack == 0 then return { makers.name(profile, index) } end
  for k = columns.stack_first[stack - 1], profile.sums.last_frame(stack - 1) do
    local f = columns.frames[columns.stack_frames[k]]["function"]
    found = found or f == index
    if found then names[#names + 1] = columns.text(columns.functions[f].name) end
  end
  return names
end

local function longest_first(by_name)
  local list = {}
  for _, entry in pairs(by_name) do list[#list + 1] = entry end
  table.sort(list, function(a, b)
    if a.ns ~= b.ns then return a.ns > b.ns end
    return a.name < b.name
  end)
  return list
end

function makers.calls(profile, index)
  local columns, stack, by_name = profile.columns, profile.sums.stack, {}
  for at = 0, columns.count.stacks - 1 do
    if stack.self[at] == index and stack.self_at[at] > columns.stack_first[at] then
      local called = columns.frames[columns.stack_frames[stack.self_at[at] - 1]]["function"]
      local name = columns.text(columns.functions[called].name)
      name = memory_word(name) or name -- which variant of memcpy the processor got helps nobody
      local entry = by_name[name] or {
        name = name, ns = 0, cpu_ns = 0, kernel_ns = 0, io_ns = 0, lock_ns = 0, idle_ns = 0,
      }
      by_name[name] = entry
      for _, field in ipairs({ "cpu_ns", "kernel_ns", "io_ns", "lock_ns", "idle_ns" }) do
        entry[field] = entry[field] + stack[field][at]
        if field ~= "kernel_ns" then entry.ns = entry.ns + stack[field][at] end
      end
    end
  end
  return longest_first(by_name)
end

function makers.waits(profile, index)
  local by_name = {}
  profile.each_wait(function(stack, _, state, class, ns)
    if stack and profile.sums.stack.self[stack] == index then
      local name = waits.name((waits.parts(state)))
      local key = name .. class
      local entry = by_name[key] or { name = name, class = class, ns = 0 }
      by_name[key], entry.ns = entry, entry.ns + ns
    end
  end)
  return longest_first(by_name)
end

local meta = { __metatable = "read-only" }

function meta.__index(self, name)
  local state = states[self]
  local value = state[name]
  if value == nil and makers[name] then
    value = makers[name](state[PROFILE], state.index)
    state[name] = value
  end
  return value
end

function meta.__newindex(_, name)
  error(("a function is read-only (field '%s')"):format(tostring(name)), 2)
end

--- @tparam table profile { columns, sums, busy_ns, frames_of, threads_of, each_wait } of lupe.profile_view
-- @tparam number index 0-based
function functions.new(profile, index)
  local object = setmetatable({}, meta)
  states[object] = { [PROFILE] = profile, index = index }
  return object
end

return functions
