--- Options of the views' iterators, checked: a misspelt one is an error in the rule's own line.
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

--- Throws, at the caller's caller, where an option is not in `known`.
-- @string what the iterator, for the message
function options.check(what, given, known)
  for name in pairs(given) do
    local ok, message = one_of(known, name)
    if not ok then error(("%s: unknown option %s"):format(what, message), 3) end
  end
end

--- Throws likewise where `word` is not in `list`.
-- @string what the sentence's beginning, such as "sites: cannot order by"
function options.check_word(what, word, list)
  local ok, message = one_of(list, word)
  if not ok then error(("%s %s"):format(what, message), 3) end
end

return options
