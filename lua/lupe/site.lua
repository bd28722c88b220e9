--- One call site: a function that allocates, with all stacks that end in it.
-- Fields (read-only; bytes and objects are corrected for sampling; times Unix ms):
--
-- * `name` demangled, or `module+0xOFFSET`; `module` file name; `module_path`; `index` 0-based
-- * `inuse_space`, `inuse_objects` live now; `alloc_space`, `alloc_objects` since the start (0: not known)
-- * `average_size` bytes of a live object, nil where nothing lives
-- * `survival` 0..1, live share of all that was allocated, nil where that is not known
-- * `share` 0..1 of all live bytes; `sampling_error_bytes` standard error of `inuse_space`, at most
-- * `first_seen_ms`, `last_grown_ms` nil: never
-- * `stack` names of its stack with most live bytes: the site itself, its caller, the caller's caller ... (the
--   allocator's wrappers, which it called, are left out); `frames` the same as
--   { name, module, file, line, address } (`file`, `line` nil where not known); `file`, `line` of the site itself there
-- * `stacks` all, most live bytes first: { inuse_space, inuse_objects, alloc_space, alloc_objects,
--   stack = names, frames = ... }
--
-- Methods: `site:trend(column, options)` (see lupe.trend; column "inuse_space", "inuse_objects" or
-- "alloc_space", what was allocated until then; options `since_ms`), nil and a reason where the history is too
-- short; `site:history(column)` gives two arrays, times (ms) and values.
-- @module lupe.site

local trend = require("lupe.trend")

local site = {}

-- What a site knows, out of reach of a rule that walks over its fields.
local states = setmetatable({}, { __mode = "k" })
local HEAP = {} -- key in a state, which no rule can name

local function file_name(path) return path:match("[^/]+$") or path end

local function function_of(columns, index) return columns.functions[columns.site_function[index]] end

local function module_path(columns, index)
  if index >= columns.count.modules then return "" end
  return columns.text(columns.modules[index].path)
end

local function frame_of(columns, index)
  local frame = columns.frames[index]
  local line = tonumber(frame.line)
  local file = columns.text(frame.file)
  return {
    name = columns.text(columns.functions[frame["function"]].name),
    module = file_name(module_path(columns, frame.module)),
    file = file ~= "" and file or nil,
    line = line > 0 and line or nil,
    address = tonumber(frame.address),
  }
end

--- First and last of a stack's frames, from the site outwards: what stands before it is the allocator.
local function bounds(columns, stack)
  local first, last = columns.stack_first[stack], columns.stack_first[stack + 1] - 1
  local wanted = columns.site_function[columns.stack_site[stack]]
  for i = first, last do
    if columns.frames[columns.stack_frames[i]]["function"] == wanted then return i, last end
  end
  return first, last
end

local function stack_frames(columns, stack)
  local frames = {}
  local first, last = bounds(columns, stack)
  for i = first, last do frames[#frames + 1] = frame_of(columns, columns.stack_frames[i]) end
  return frames
end

local function stack_names(columns, stack)
  local names = {}
  local first, last = bounds(columns, stack)
  for i = first, last do
    local frame = columns.frames[columns.stack_frames[i]]
    names[#names + 1] = columns.text(columns.functions[frame["function"]].name)
  end
  return names
end

local makers = {}

for _, column in ipairs({ "inuse_space", "inuse_objects", "alloc_space", "alloc_objects" }) do
  local source = "site_" .. column
  makers[column] = function(heap, index) return heap.columns[source][index] end
end

function makers.name(heap, index) return heap.columns.text(function_of(heap.columns, index).name) end

function makers.module_path(heap, index)
  return module_path(heap.columns, function_of(heap.columns, index).module)
end

function makers.module(heap, index) return file_name(makers.module_path(heap, index)) end

function makers.average_size(heap, index)
  local objects = heap.columns.site_inuse_objects[index]
  if objects > 0 then return heap.columns.site_inuse_space[index] / objects end
end

function makers.survival(heap, index)
  local all = heap.columns.site_alloc_space[index]
  if all > 0 then return math.min(1, heap.columns.site_inuse_space[index] / all) end
end

function makers.share(heap, index)
  local total = heap.totals.inuse_space
  return total > 0 and heap.columns.site_inuse_space[index] / total or 0
end

function makers.sampling_error_bytes(heap, index)
  return math.sqrt(heap.columns.sample_period_bytes * math.max(0, heap.columns.site_inuse_space[index]))
end

local function known_time(ms)
  if ms > 0 then return ms end
end

function makers.first_seen_ms(heap, index) return known_time(heap.columns.site_first_seen_ms[index]) end

function makers.last_grown_ms(heap, index) return known_time(heap.columns.site_last_grown_ms[index]) end

function makers.stack(heap, index)
  local stack = heap.columns.site_top_stack[index]
  if stack >= heap.columns.count.stacks then return { makers.name(heap, index) } end
  return stack_names(heap.columns, stack)
end

function makers.frames(heap, index)
  local stack = heap.columns.site_top_stack[index]
  if stack >= heap.columns.count.stacks then
    return { { name = makers.name(heap, index), module = makers.module(heap, index) } }
  end
  return stack_frames(heap.columns, stack)
end

function makers.file(heap, index) return makers.frames(heap, index)[1].file end

function makers.line(heap, index) return makers.frames(heap, index)[1].line end

function makers.stacks(heap, index)
  local columns, list = heap.columns, {}
  for _, stack in ipairs(heap.stacks_of(index)) do
    list[#list + 1] = {
      inuse_space = columns.stack_inuse_space[stack], inuse_objects = columns.stack_inuse_objects[stack],
      alloc_space = columns.stack_alloc_space[stack], alloc_objects = columns.stack_alloc_objects[stack],
      stack = stack_names(columns, stack), frames = stack_frames(columns, stack),
    }
  end
  table.sort(list, function(a, b) return a.inuse_space > b.inuse_space end)
  return list
end

local HISTORIES = {
  inuse_space = "site_history_space", inuse_objects = "site_history_objects", alloc_space = "site_history_alloc",
}

local function history_of(columns, column)
  local name = HISTORIES[column]
  if not name then
    error(("no history of '%s': expected 'inuse_space', 'inuse_objects' or 'alloc_space'"):format(tostring(column)), 3)
  end
  return columns[name], columns.count[name]
end

local methods = {}

function methods:trend(column, options)
  local state = states[self]
  local columns = state[HEAP].columns
  local values, count = history_of(columns, column)
  local since = options and options.since_ms
  local key = column .. "@" .. tostring(since)
  local known = state[key]
  if not known then
    local ticks, offset = columns.tick_count, state.index * columns.tick_count
    if offset + ticks > count then ticks = 0 end
    local period, unit = 0, 1
    if column == "inuse_space" then period, unit = columns.sample_period_bytes, nil end
    known = { trend.measure(columns.tick_time_ms, values, offset, ticks, period, unit, since,
      columns.site_alloc_space[state.index] > 0 and columns.site_history_alloc) }
    state[key] = known
  end
  if not known[1] then return nil, known[2] end
  local copy = {}
  for name, value in pairs(known[1]) do copy[name] = value end
  return copy
end

function methods:history(column)
  local state = states[self]
  local columns = state[HEAP].columns
  local source, count = history_of(columns, column)
  local times, values = {}, {}
  local offset = state.index * columns.tick_count
  if offset + columns.tick_count > count then return times, values end
  for i = 0, columns.tick_count - 1 do
    times[i + 1], values[i + 1] = columns.tick_time_ms[i], source[offset + i]
  end
  return times, values
end

local meta = { __metatable = "read-only" }

function meta.__index(self, name)
  if methods[name] then return methods[name] end
  local state = states[self]
  local value = state[name]
  if value == nil and makers[name] then
    value = makers[name](state[HEAP], state.index)
    state[name] = value
  end
  return value
end

function meta.__newindex(_, name)
  error(("a site is read-only (field '%s')"):format(tostring(name)), 2)
end

--- @tparam table heap { columns, totals, stacks_of }
-- @tparam number index 0-based
function site.new(heap, index)
  local object = setmetatable({}, meta)
  states[object] = { [HEAP] = heap, index = index }
  return object
end

return site
