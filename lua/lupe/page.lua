--- A page of text for a terminal: lines of a width, perhaps coloured.
-- Fields: `width` in columns, `lines` so far.
-- @module lupe.page

local wrap = require("lupe.wrap")

local NARROWEST, WIDEST = 60, 120

local COLORS = { strong = "1", dim = "2", bad = "1;31", warn = "1;33", good = "1;32" }

local page = {}
page.__index = page

--- @param options { columns, color, unicode }
function page.new(options)
  local width = math.max(NARROWEST, math.min(WIDEST, options.columns or 80))
  return setmetatable({
    width = width, color = options.color, lines = {},
    line_char = options.unicode and "─" or "-",
  }, page)
end

function page:paint(style, text)
  if not self.color or text == "" then return text end
  return ("\27[%sm%s\27[0m"):format(COLORS[style], text)
end

function page:line(text) self.lines[#self.lines + 1] = text or "" end

--- Cut to so many columns, the middle left out. (Names are cut at bytes: they are ASCII but for a few.)
function page.fit(text, columns)
  if #text <= columns then return text end
  local head = math.ceil((columns - 3) * 0.6)
  return text:sub(1, head) .. "..." .. text:sub(#text - (columns - 3 - head) + 1)
end

--- Words, a number and its unit being one.
local function pieces(text)
  local list, number = {}, nil
  for word in text:gmatch("%S+") do
    if number then word = number .. " " .. word end
    number = word:match("^%(?[%d.,]*%d$")
    if not number then list[#list + 1] = word end
  end
  list[#list + 1] = number
  return list
end

--- Words, broken at the width; `first` stands before the first line, blanks before the others.
function page:paragraph(first, text, style)
  for i, words in ipairs(wrap(pieces(text), self.width - #first)) do
    local head = i == 1 and first or (" "):rep(#first)
    self:line(head .. (style and self:paint(style, words) or words))
  end
end

function page:heading(text, aside)
  self:line()
  self:line(self:paint("strong", text) .. (aside and self:paint("dim", ", " .. aside) or ""))
end

--- Sentences with a dash before each, and how many were left out.
-- @param most how many of them
function page:sentences(heading, aside, list, most)
  if #list == 0 then return end
  self:heading(heading, aside)
  for i, text in ipairs(list) do
    if i > most then
      self:line(("  ... and %d more"):format(#list - most))
      break
    end
    self:paragraph("  - ", text)
  end
end

return page
