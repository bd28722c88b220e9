--- Writes lupe(3) and a page for each function that leads there, from the comments of core/lupe.h:
-- luajit packaging/lupe_3.lua VERSION FOLDER
local root = arg[0]:match("^(.*)/packaging/") or "."
package.path = root .. "/?.lua;" .. package.path

local roff = require("packaging.roff")

local version, folder = assert(arg[1], "a version"), assert(arg[2], "a folder")
local file = assert(io.open(root .. "/core/lupe.h"))
local header = file:read("*a")
file:close()

--- The parts of the header that are for readers; what LUPE_DISABLE puts in their place, and how the scopes are made,
-- is not.
local function between(from, to)
  local _, last = header:find(from, 1, true)
  local first = header:find(to, assert(last, from), true)
  return header:sub(last + 1, assert(first, to) - 1)
end

local intro = between("/* lupe.h -- ", "#ifndef LUPE_H\n")
local types = between('extern "C" {\n#endif\n', "#ifndef LUPE_DISABLE\n")
local functions = between('#define LUPE_API __attribute__((visibility("default")))\n#endif\n',
  "#else /* LUPE_DISABLE */")
local scopes = "/* -- scopes -" .. between("/* -- scopes -", "#define LUPE__JOINED")

--- Paragraphs of a comment's text; what is indented by two more is an example.
local function paragraphs(text)
  local out, example = { ".PP" }, nil
  for line in (text:gsub("%s*%*/%s*$", "") .. "\n"):gmatch("(.-)\n") do
    line = line:gsub("^%s?%*", ""):gsub("^ ", "", 1)
    if line:find("^  ") then
      example = example or {}
      example[#example + 1] = line
    else
      if example then out[#out + 1], example = roff.example(example), nil end
      out[#out + 1] = line:find("%S") and roff.text(line) or ".PP"
    end
  end
  return table.concat(out, "\n")
end

local function code(text)
  local lines = {}
  for line in text:gsub("LUPE_API ", ""):gmatch("[^\n]+") do lines[#lines + 1] = line end
  return ".PP\n" .. roff.example(lines)
end

--- A header's declarations, each behind its comment, become text behind each declaration.
local function pages(text)
  local out, comment, at = {}, nil, 1
  local function flush()
    if comment then out[#out + 1], comment = paragraphs(comment), nil end
  end
  while true do
    at = text:find("%S", at)
    if not at then break end
    local title, after = text:match("^/%* %-%- (.-) %-+ %*/\n()", at)
    local _, closed = text:find("^/%*.-%*/\n", at)
    if title then
      flush()
      out[#out + 1], at = ".SH \"" .. title:upper() .. "\"", after
    elseif closed then
      flush()
      comment, at = text:sub(at + 3, closed - 1), closed + 1
      if text:sub(at, at) == "\n" then flush() end -- it is about all that follows
    else
      -- A declaration ends where the next comment begins a line, or behind an empty line.
      local last = math.min(text:find("\n\n", at, true) or #text, text:find("\n/%*", at) or #text)
      out[#out + 1] = code(text:sub(at, last))
      flush()
      at = last + 1
    end
  end
  flush()
  return table.concat(out, "\n")
end

local function write(name, text)
  local page = assert(io.open(folder .. "/" .. name .. ".3", "w"))
  assert(page:write(text))
  assert(page:close())
end

write("lupe", table.concat({
  roff.title("LUPE", 3, version, "lupe.h"),
  ".SH NAME\nlupe \\- " .. roff.text((intro:match("^[^\n]*"))):gsub("[.:]$", ""),
  ".SH LIBRARY\n" .. roff.text("liblupe (-llupe; pkg-config lupe; CMake find_package(lupe), target lupe::lupe)"),
  ".SH DESCRIPTION", paragraphs(intro:match("\n(.*)$")),
  ".SH TYPES", pages(types), pages(functions), pages(scopes),
  ".SH \"SEE ALSO\"\n.BR lupe (1).", "",
}, "\n"))
for name in functions:gmatch("\nLUPE_API [^\n(]-%*?(lupe_[%w_]+)%(") do write(name, ".so man3/lupe.3\n") end
for name in scopes:gmatch("(LUPE_[%u_]+)%(") do write(name, ".so man3/lupe.3\n") end
