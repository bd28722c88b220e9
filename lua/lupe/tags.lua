--- Tags in a snapshot's stacks. A *tag* is what a program says its work is for, such as a component or a tenant
-- (LUPE_TAG of lupe.h): a frame whose module is `[tag]` and whose function has the tag's name. Tags are the outermost
-- frames of a stack, the innermost tag first; they are no callers.
-- @module lupe.tags

local numbers = require("lupe.ffi").numbers

local tags = {}

tags.MODULE = "[tag]"

--- What to call a tag in a sentence about code.
-- @string name of the tag, @param who the function that allocates most under it, or nil
function tags.called(name, who)
  return who and ("%s (most of the program's tag %s)"):format(who, name) or ("the program's tag %s"):format(name)
end

--- The functions that are tags: an array with 1 by their index; nil: there are none.
-- @tparam table columns of lupe.ffi
function tags.functions(columns)
  local module = {}
  for i = 0, columns.count.modules - 1 do
    if columns.text(columns.modules[i].path) == tags.MODULE then module[i] = true end
  end
  if next(module) == nil then return nil end
  local marks = numbers(columns.count.functions)
  for i = 0, columns.count.functions - 1 do marks[i] = module[columns.functions[i].module] and 1 or 0 end
  return marks
end

--- Where a stack's frames end and its tags begin.
-- @param columns of lupe.ffi, @param is_tag what `functions` gave
-- @treturn function(stack): the place in stack_frames of the last frame that is no tag; of a stack of nothing but tags
--   that of its first one
function tags.last_frame(columns, is_tag)
  local frames, frame_of, first = columns.frames, columns.stack_frames, columns.stack_first
  if not is_tag then return function(stack) return first[stack + 1] - 1 end end
  return function(stack)
    local at, begin = first[stack + 1] - 1, first[stack]
    while at > begin and is_tag[frames[frame_of[at]]["function"]] == 1 do at = at - 1 end
    return at
  end
end

--- By stack the function of the tag nearest to its leaf, plus 1; 0: it has none.
-- @param columns of lupe.ffi, @param is_tag what `functions` gave; not nil
function tags.of_stacks(columns, is_tag)
  local found = numbers(columns.count.stacks)
  local frames, frame_of, first = columns.frames, columns.stack_frames, columns.stack_first
  for stack = 0, columns.count.stacks - 1 do
    for k = first[stack], first[stack + 1] - 1 do
      local f = frames[frame_of[k]]["function"]
      if is_tag[f] == 1 then
        found[stack] = f + 1
        break
      end
    end
  end
  return found
end

return tags
