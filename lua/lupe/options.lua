--- Options of the views' methods, checked: a misspelt one, or one of another kind, is an error in the rule's own line.
-- @module lupe.options

local nearest = require("lupe.nearest")

local options = {}

local function one_of(list, word)
  for _, known in ipairs(list) do
    if known == word then return true end
  end
  local near = nearest(tostring(word), list)
  return false, ("'%s'%s; known: %s"):format(tostring(word), near and (", did you mean '%s'?"):format(near) or "",
    table.concat(list, ", "))
end

local function names_of(kinds)
  local names = {}
  for name in pairs(kinds) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- Throws, at the caller's caller, where an option is not known, or is not what it must be.
-- @string what the method, for the message
-- @param given the options, nil where there are none
-- @tparam table kinds option -> "number", "string", "boolean" or a list of the words that it may be
-- @treturn table the options
function options.check(what, given, kinds)
  if given == nil then return {} end
  if type(given) ~= "table" then error(("%s: expected a table of options, got %s"):format(what, type(given)), 3) end
  for name, value in pairs(given) do
    local kind = kinds[name]
    if not kind then
      local _, message = one_of(names_of(kinds), name)
      error(("%s: unknown option %s"):format(what, message), 3)
    elseif type(kind) == "table" then
      local ok, message = one_of(kind, value)
      if not ok then error(("%s: option '%s': no %s"):format(what, name, message), 3) end
    elseif type(value) ~= kind or value ~= value then
      error(("%s: option '%s': expected a %s, got %s"):format(what, name, kind,
        value ~= value and "NaN" or type(value)), 3)
    end
  end
  return given
end

--- Throws likewise where `word` is not in `list`.
-- @string what the sentence's beginning, such as "memory:slope: no field"
function options.check_word(what, word, list)
  local ok, message = one_of(list, word)
  if not ok then error(("%s %s"):format(what, message), 3) end
end

return options
