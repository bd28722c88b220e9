--- The stacks that a flame graph is made of: of a snapshot in memory, or of one that was exported as JSON.
-- A source has
--
-- * `frames(stack)`: array of { name, module, inlined }, the outermost first, and how many there are (the array is used
--   again by the next call)
-- * `each(type, visit)`: calls `visit(stack, value)` for every stack that has some: `type` is "heap" (live bytes),
--   "alloc" (bytes allocated since the start), "cpu" (nanoseconds on a core) or "wall" (nanoseconds on a core, or
--   waiting for something but work)
-- @module lupe.flame_source

local sums_of = require("lupe.profile_sums")

local flame_source = {}

local function file_name(path) return path:match("[^/]+$") or path end

--- `frames` of a source, from what there is at each physical frame of a stack.
-- @param expanded function(frame): the call there and those inlined into it, outermost first
local function stacks_of(expanded, frames_of_stack)
  local known, out = {}, {}
  return function(stack)
    local count = 0
    local physical, first, last = frames_of_stack(stack)
    for i = last, first, -1 do
      local frame = physical[i]
      local calls = known[frame]
      if not calls then
        calls = expanded(frame)
        known[frame] = calls
      end
      for k = 1, #calls do
        count = count + 1
        out[count] = calls[k]
      end
    end
    return out, count
  end
end

--- @param columns of lupe.ffi
function flame_source.of_columns(columns)
  local text = columns.text
  local function module_of(index)
    return index < columns.count.modules and file_name(text(columns.modules[index].path)) or ""
  end
  local function expanded(index)
    local frame = columns.frames[index]
    local module = module_of(frame.module)
    local calls = { { name = text(columns.functions[frame["function"]].name), module = module, inlined = false } }
    for i = frame.inline_first + frame.inline_count - 1, frame.inline_first, -1 do
      calls[#calls + 1] = { name = text(columns.inlines[i].name), module = module, inlined = true }
    end
    return calls
  end
  local frames = stacks_of(expanded, function(stack)
    return columns.stack_frames, columns.stack_first[stack], columns.stack_first[stack + 1] - 1
  end)

  local function each(type, visit)
    local sums = (type == "cpu" or type == "wall") and sums_of(columns).stack
    local heap = columns[type == "heap" and "stack_inuse_space" or "stack_alloc_space"]
    for stack = 0, columns.count.stacks - 1 do
      local value
      if not sums then
        value = heap[stack]
      elseif type == "cpu" then
        value = sums.cpu_ns[stack]
      else
        value = sums.cpu_ns[stack] + sums.io_ns[stack] + sums.lock_ns[stack]
      end
      if value > 0 then visit(stack, value) end
    end
  end
  return { frames = frames, each = each }
end

--- @tparam table exported what lupe.export wrote, decoded
-- @return the source; or nil and what is wrong
function flame_source.of_export(exported)
  if type(exported) ~= "table" or exported.format ~= "lupe-heap-snapshot" then
    return nil, "not a snapshot that lupe wrote"
  end
  local functions, modules = exported.functions, exported.modules
  local function expanded(index)
    local frame = exported.frames[index + 1]
    local module = modules[frame.module + 1]
    module = module and file_name(module.path) or ""
    local calls = { { name = functions[frame["function"] + 1].name, module = module, inlined = false } }
    for i = #(frame.inlined or {}), 1, -1 do
      calls[#calls + 1] = { name = frame.inlined[i].name, module = module, inlined = true }
    end
    return calls
  end
  local frames = stacks_of(expanded, function(stack)
    local list = exported.stacks[stack + 1].frames
    return list, 1, #list
  end)

  local function each(type, visit)
    for i, stack in ipairs(exported.stacks) do
      local value
      if type == "heap" then
        value = stack.inuse_space
      elseif type == "alloc" then
        value = stack.alloc_space
      elseif type == "cpu" then
        value = stack.cpu_ns or 0
      else
        value = (stack.cpu_ns or 0) + (stack.io_ns or 0) + (stack.lock_ns or 0)
      end
      if value > 0 then visit(i - 1, value) end
    end
  end
  return { frames = frames, each = each }
end

return flame_source
