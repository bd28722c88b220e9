--- Names of symbols, files and processes are bytes; JSON and SVG are UTF-8: what is none becomes U+FFFD.
-- @module lupe.as_utf8

local REPLACEMENT = "\239\191\189" -- U+FFFD

--- The length of the UTF-8 sequence at `i`, or nil where there is none.
local function sequence_length(text, i)
  local a, b, c, d = text:byte(i, i + 3)
  local function tail(byte) return byte and byte >= 0x80 and byte <= 0xbf end
  if a < 0x80 then return 1 end
  if a >= 0xc2 and a <= 0xdf then return tail(b) and 2 end
  if a >= 0xe0 and a <= 0xef then
    if not tail(b) or not tail(c) or (a == 0xe0 and b < 0xa0) or (a == 0xed and b > 0x9f) then return nil end
    return 3
  end
  if a >= 0xf0 and a <= 0xf4 then
    if not tail(b) or not tail(c) or not tail(d) or (a == 0xf0 and b < 0x90) or (a == 0xf4 and b > 0x8f) then
      return nil
    end
    return 4
  end
  return nil
end

return function(text)
  if not text:find("[\128-\255]") then return text end
  local out, i = {}, 1
  while i <= #text do
    local plain_end = (text:find("[\128-\255]", i) or #text + 1) - 1
    out[#out + 1] = text:sub(i, plain_end)
    i = plain_end + 1
    if i <= #text then
      local length = sequence_length(text, i)
      out[#out + 1] = length and text:sub(i, i + length - 1) or REPLACEMENT
      i = i + (length or 1)
    end
  end
  return table.concat(out)
end
