--- A flame graph as a page that needs nothing else (lupe.flame_page): it zooms and searches.
-- @module lupe.flame_html

local colors = require("lupe.flame_colors")
local json = require("lupe.json")
local page = require("lupe.flame_page")

local HEAD, TAIL = page:match("^(.-)DATA_GOES_HERE(.*)$")

--- Texts by number, each once.
local function numbering()
  local list, numbers = {}, {}
  return list, function(text)
    local number = numbers[text]
    if not number then
      list[#list + 1] = json.encode(text)
      number = #list - 1
      numbers[text] = number
    end
    return number
  end
end

--- Inside a script element nothing may look like its end.
local function harmless(text) return (text:gsub("<", "\\u003c")) end

--- @param root of lupe.flame_tree, ordered
-- @tparam table options as for lupe.flame_svg, and `steps` { { factor, unit } ... }: how values are written, smallest
--   unit first
-- @treturn string
return function(root, options)
  local texts, number = numbering()
  local nodes, count = {}, 0
  local whole, base_whole = math.max(root.value, 1e-300), math.max(root.base, 1e-300)
  local function add(node, parent)
    local color
    if options.compared then
      color = colors.of_difference(node.value / whole, node.base / base_whole)
    else
      color = colors.of(node.name, node.module, node.inlined)
    end
    local own = count
    count = count + 1
    nodes[count] = ("[%d,%d,%d,%.0f,%.0f,%d,%.0f,%d,%.0f]"):format(number(node.name), number(node.module), parent,
      node.value, node.self, node.inlined and 1 or 0, node.base, number(color), node.size)
    for _, child in ipairs(node.children) do add(child, own) end
  end
  add(root, -1)
  local steps = {}
  for i, step in ipairs(options.steps) do steps[i] = ("[%.0f,%s]"):format(step[1], json.encode(step[2])) end
  local data = {
    '{"title":', json.encode(options.title), ',"subtitle":', json.encode(options.subtitle), ',"footer":',
    json.encode(options.footer), ',"compared":', tostring(options.compared == true), ',"steps":[',
    table.concat(steps, ","), '],"texts":[', table.concat(texts, ","), '],\n"nodes":[',
    table.concat(nodes, ",\n"), "]}",
  }
  return HEAD .. harmless(table.concat(data)) .. TAIL
end
