--- Where in the source a function is, in words.
-- @module lupe.places

local places = {}

local tags = require("lupe.tags")

local NOWHERE = { [""] = true, [tags.MODULE] = true } -- modules that are no files

--- Why file and line of a function are not known, or nil where they are.
-- @param place a table with `file`, `line`, `module` (its module's file name), of a tag `stack`
function places.missing(place)
  if place.file and place.line then return nil end
  if place.file then return "the debug information has no line for the addresses that were seen" end
  local needed = ("need debug information of %s (-g, or its -dbgsym package), which is read a moment after the "
    .. "function is first seen"):format(NOWHERE[place.module or ""] and "its module" or place.module)
  if place.module ~= tags.MODULE then return "file and line " .. needed end
  local who = (place.stack or {})[2]
  if not who then return "it is a tag of the program's, and no function is known that allocates under it" end
  return ("it is a tag of the program's; file and line of %s, which allocates most under it, %s"):format(who, needed)
end

--- "parse.c:45", "parse.c", or "" where it is not known.
function places.short(file, line)
  if not file then return "" end
  local name = file:match("[^/]+$") or file
  return line and ("%s:%d"):format(name, line) or name
end

return places
