--- Names with `*` for any text, as the configuration uses them for rules, sites and modules.
-- @module lupe.glob

--- Whether all of `text` is matched. There is nothing special but `*`.
return function(pattern, text)
  local escaped = pattern:gsub("[%-%.%+%?%^%$%(%)%[%]%%]", "%%%0"):gsub("%*+", ".*")
  return text:find("^" .. escaped .. "$") ~= nil
end
