--- Words into rows.
-- @module lupe.wrap

--- @param words array of strings, kept whole; @param width bytes of a row; a longer word has a row to itself
-- @return array of rows, at least one
return function(words, width)
  local rows, row = {}, ""
  for _, word in ipairs(words) do
    if row ~= "" and #row + 1 + #word > width then
      rows[#rows + 1], row = row, word
    else
      row = row == "" and word or row .. " " .. word
    end
  end
  rows[#rows + 1] = row
  return rows
end
