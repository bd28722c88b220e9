--- Manual pages in man(7).
local roff = {}

--- Text as it is: no hyphen of it becomes another character, and no line a request.
function roff.text(text)
  text = text:gsub("\\", "\\(rs"):gsub("-", "\\-")
  return (("\n" .. text):gsub("\n([.'])", "\n\\&%1"):sub(2))
end

function roff.bold(text) return "\\fB" .. roff.text(text) .. "\\fP" end

--- Code, line by line.
function roff.example(lines)
  local out = { ".EX" }
  for _, line in ipairs(lines) do out[#out + 1] = roff.text(line) end
  out[#out + 1] = ".EE"
  return table.concat(out, "\n")
end

--- The heading, without a date: the same sources give the same page.
function roff.title(name, section, version, manual)
  return (".TH %s %d \"\" \"lupe %s\" \"%s\"\n.nh\n.ad l"):format(name, section, version, manual)
end

return roff
