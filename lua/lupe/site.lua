--- One call site: a function that allocates, with all stacks that end in it; or another group of stacks (see
-- lupe.heap_view), which has the same fields.
-- Fields (read-only; bytes and objects are corrected for sampling; times Unix ms):
--
-- * `group` "function", "stack", "module" or "tag"; `name` the function's, demangled, or `module+0xOFFSET`; of a module
--   its file name, of a tag the tag; `module` file name, `module_path` (of a tag "[tag]"); `index` 0-based in its group
-- * `called` what to call it in a sentence: `name`; of a tag who allocates most under it, and the tag
-- * `tag` that all its stacks bear, nil: none, or several (see lupe.site_groups)
-- * `inuse_space`, `inuse_objects` live now; `alloc_space`, `alloc_objects` since the start (0: not known)
-- * `average_size` bytes of a live object, nil where nothing lives
-- * `survival` 0..1, live share of all that was allocated, nil where that is not known
-- * `share` 0..1 of all live bytes; `sampling_error_bytes` standard error of `inuse_space`, at most
-- * `first_seen_ms`, `last_grown_ms` nil: never, or not known (of a group without a history of its own)
-- * `stack` names of its stack with most live bytes: the site itself, its caller, the caller's caller ... (the
--   allocator's wrappers, which it called, and tags are left out; where the site is a tag itself, it is followed by the
--   function that allocates, its caller ...); `frames` the same as { name, module, file, line, address } (`file`,
--   `line` nil where not known); `file`, `line` of the site itself there (of a tag: of who allocates)
-- * `stacks` all, most live bytes first: { inuse_space, inuse_objects, alloc_space, alloc_objects, tag,
--   stack = names, frames = ... }
-- * `proof` what a leak proof says of it: see lupe.site_proof; nil where none has anything of it
--
-- Methods: `site:trend(column, options)` (see lupe.trend; column "inuse_space", "inuse_objects" or
-- "alloc_space", what was allocated until then; options `since_ms`), nil and a reason where the history is too
-- short; `site:history(column)` gives two arrays, times (ms) and values. The history is kept per function: of another
-- group both are known where its functions allocate for no other group, else nil and the reason.
-- @module lupe.site
-- @usage
-- for site in view.heap:sites { by = "inuse_space", limit = 1 } do
--   return site.name, words.bytes(site.inuse_space), words.percent(100 * site.share), site.stack[2]
-- end
-- --> remember_session, 30.0 MiB, 58 %, on_request
-- @usage
-- for site in view.heap:sites { by = "growth", limit = 1 } do
--   local trend = site:trend("inuse_space")
--   return site.name, words.rate(trend.slope), trend.low > 0, words.percent(100 * site.survival)
-- end
-- --> remember_session, 1.00 MiB/s, true, 100 %

local options_of = require("lupe.options")
local site_proof = require("lupe.site_proof")
local tags = require("lupe.tags")
local trend = require("lupe.trend")

local site = {}

-- What a site knows, out of reach of a rule that walks over its fields: { shared, group, index }, and by name what was
-- worked out.
local states = setmetatable({}, { __mode = "k" })

local function file_name(path) return path:match("[^/]+$") or path end

local function path_of(columns, module)
  return module < columns.count.modules and columns.text(columns.modules[module].path) or ""
end

local function function_name(columns, index) return columns.text(columns.functions[index].name) end

local function frame_of(columns, index)
  local frame = columns.frames[index]
  local line = tonumber(frame.line)
  local file = columns.text(frame.file)
  return {
    name = function_name(columns, frame["function"]),
    module = file_name(path_of(columns, frame.module)),
    file = file ~= "" and file or nil,
    line = line > 0 and line or nil,
    address = tonumber(frame.address),
  }
end

--- Indexes of the frames of a stack whose site is a tag: the tag, who allocates there, its callers.
local function frames_of_tagged(columns, is_tag, wanted, stack)
  local list, all, from = {}, {}, nil
  for k = columns.stack_first[stack], columns.stack_first[stack + 1] - 1 do
    local index = columns.stack_frames[k]
    local f = columns.frames[index]["function"]
    if f == wanted then list[1] = index end
    if is_tag[f] ~= 1 then
      all[#all + 1] = index
      if columns.functions[f].wrapper ~= 1 then from = from or #all end
    end
  end
  for i = from or #all, #all do list[#list + 1] = all[i] end
  return list
end

--- Indexes of a stack's frames, from its site outwards: what stands before it is the allocator. Tags are no callers.
local function frames_of_stack(shared, stack)
  local columns, is_tag = shared.columns, shared.is_tag()
  local wanted = columns.site_function[columns.stack_site[stack]]
  if is_tag and is_tag[wanted] == 1 then return frames_of_tagged(columns, is_tag, wanted, stack) end
  local all, from = {}, nil
  for k = columns.stack_first[stack], columns.stack_first[stack + 1] - 1 do
    local index = columns.stack_frames[k]
    local f = columns.frames[index]["function"]
    if not from and f == wanted then from = #all + 1 end
    if f == wanted or not (is_tag and is_tag[f] == 1) then all[#all + 1] = index end
  end
  local list = {}
  for i = from or 1, #all do list[#list + 1] = all[i] end
  return list
end

local function stack_frames(shared, stack)
  local frames = frames_of_stack(shared, stack)
  for i, index in ipairs(frames) do frames[i] = frame_of(shared.columns, index) end
  return frames
end

local function stack_names(shared, stack)
  local columns, names = shared.columns, frames_of_stack(shared, stack)
  for i, index in ipairs(names) do names[i] = function_name(columns, columns.frames[index]["function"]) end
  return names
end

local function tag_of_stack(shared, stack)
  local of = shared.tags()
  if of and of[stack] > 0 then return function_name(shared.columns, of[stack] - 1) end
end

--- The function that a group is, or is of: nil for a module.
local KEY_FUNCTION = {
  ["function"] = function(columns, key) return columns.site_function[key] end,
  stack = function(columns, key) return columns.site_function[columns.stack_site[key]] end,
  tag = function(_, key) return key end,
}

local function function_of(shared, group, index)
  local of = KEY_FUNCTION[group.kind]
  return of and of(shared.columns, group.key(index))
end

local makers = {}

for _, column in ipairs({ "inuse_space", "inuse_objects", "alloc_space", "alloc_objects" }) do
  makers[column] = function(_, group, index) return group[column][index] end
end

function makers.index(_, _, index) return index end

function makers.group(_, group) return group.kind end

function makers.name(shared, group, index)
  local f = function_of(shared, group, index)
  return f and function_name(shared.columns, f) or makers.module(shared, group, index)
end

function makers.module_path(shared, group, index)
  local f = function_of(shared, group, index)
  return path_of(shared.columns, f and shared.columns.functions[f].module or group.key(index))
end

function makers.module(shared, group, index) return file_name(makers.module_path(shared, group, index)) end

function makers.called(shared, group, index)
  local name = makers.name(shared, group, index)
  if makers.module_path(shared, group, index) ~= tags.MODULE then return name end
  return tags.called(name, makers.stack(shared, group, index)[2])
end

function makers.tag(shared, group, index)
  if not shared.tags() then return nil end
  local tag
  for i, stack in ipairs(group.stacks(index)) do
    local name = tag_of_stack(shared, stack)
    if not name or i > 1 and name ~= tag then return nil end
    tag = name
  end
  return tag
end

function makers.average_size(_, group, index)
  local objects = group.inuse_objects[index]
  if objects > 0 then return group.inuse_space[index] / objects end
end

function makers.survival(_, group, index)
  local all = group.alloc_space[index]
  if all > 0 then return math.min(1, group.inuse_space[index] / all) end
end

function makers.share(shared, group, index)
  local total = shared.totals.inuse_space
  return total > 0 and group.inuse_space[index] / total or 0
end

function makers.sampling_error_bytes(shared, group, index)
  return math.sqrt(shared.columns.sample_period_bytes * math.max(0, group.inuse_space[index]))
end

function makers.first_seen_ms(shared, group, index)
  local first
  for _, number in ipairs(group.sites(index) or {}) do
    local ms = shared.columns.site_first_seen_ms[number]
    if ms > 0 then first = math.min(first or ms, ms) end
  end
  return first
end

function makers.last_grown_ms(shared, group, index)
  local columns, sites = shared.columns, group.sites(index)
  if sites and #sites == 1 then
    local ms = columns.site_last_grown_ms[sites[1]]
    return ms > 0 and ms or nil
  end
  local values, from = group.history(index, "inuse_space")
  if not values then return nil end
  for i = columns.tick_count - 1, 0, -1 do
    if values[from + i] > (i > 0 and values[from + i - 1] or 0) then return columns.tick_time_ms[i] end
  end
end

function makers.stack(shared, group, index) return stack_names(shared, group.top_stack(index)) end

function makers.frames(shared, group, index) return stack_frames(shared, group.top_stack(index)) end

--- Where in the source it is: of a tag, who allocates there.
local function place_of(shared, group, index)
  local frames = makers.frames(shared, group, index)
  return frames[1].module == tags.MODULE and frames[2] or frames[1]
end

function makers.file(shared, group, index) return place_of(shared, group, index).file end

function makers.line(shared, group, index) return place_of(shared, group, index).line end

function makers.stacks(shared, group, index)
  local columns, list = shared.columns, {}
  for i, stack in ipairs(group.stacks(index)) do
    list[i] = {
      inuse_space = columns.stack_inuse_space[stack], inuse_objects = columns.stack_inuse_objects[stack],
      alloc_space = columns.stack_alloc_space[stack], alloc_objects = columns.stack_alloc_objects[stack],
      tag = tag_of_stack(shared, stack), stack = stack_names(shared, stack), frames = stack_frames(shared, stack),
    }
  end
  table.sort(list, function(a, b) return a.inuse_space > b.inuse_space end)
  return list
end

function makers.proof(shared, group, index)
  local chains = shared.proof_chains()
  if not chains then return nil end
  return site_proof.of(shared.columns, chains, group.stacks(index), function(number)
    return site.new(shared, shared.group("function"), number)
  end)
end

local COLUMNS = { "inuse_space", "inuse_objects", "alloc_space" }

local methods = {}

function methods:trend(column, options)
  options_of.check_word("site:trend: no history of", column, COLUMNS)
  local since = options_of.check("site:trend", options, { since_ms = "number" }).since_ms
  local state = states[self]
  local columns, group, index = state[1].columns, state[2], state[3]
  local key = ("%d %s %s"):format(index, column, tostring(since))
  local known = group.trends[key] -- of another site object too: rules ask for the same ones
  if not known then
    local values, from = group.history(index, column)
    known = { nil, from }
    if values then
      local period, unit = columns.sample_period_bytes, nil
      if column == "inuse_objects" then period, unit = 0, 1 end
      local allocated = group.alloc_space[index] > 0 and group.history(index, "alloc_space")
      known = { trend.measure(columns.tick_time_ms, values, from, columns.tick_count, period, unit, since, allocated) }
    end
    group.trends[key] = known
  end
  if not known[1] then return nil, known[2] end
  local copy = {}
  for name, value in pairs(known[1]) do copy[name] = value end
  return copy
end

function methods:history(column)
  options_of.check_word("site:history: no history of", column, COLUMNS)
  local state = states[self]
  local columns = state[1].columns
  local source, from = state[2].history(state[3], column)
  if not source then return nil, from end
  local times, values = {}, {}
  for i = 0, columns.tick_count - 1 do times[i + 1], values[i + 1] = columns.tick_time_ms[i], source[from + i] end
  return times, values
end

local meta = { __metatable = "read-only" }

function meta.__index(self, name)
  local make = makers[name]
  if not make then return methods[name] end
  local state = states[self]
  local value = state[name]
  if value == nil then
    value = make(state[1], state[2], state[3])
    state[name] = value
  end
  return value
end

function meta.__newindex(_, name)
  error(("a site is read-only (field '%s')"):format(tostring(name)), 2)
end

--- @tparam table shared of lupe.site_groups
-- @tparam table group of lupe.site_groups
-- @tparam number index 0-based
function site.new(shared, group, index)
  local object = setmetatable({}, meta)
  states[object] = { shared, group, index }
  return object
end

return site
