--- A flame graph as one SVG picture, without scripts: the root below, a tooltip on every frame.
-- @module lupe.flame_svg

local as_utf8 = require("lupe.as_utf8")
local colors = require("lupe.flame_colors")

local WIDTH, ROW, MARGIN, HEAD, FOOT = 1200, 17, 10, 44, 24
local CHARACTER = 6.3 -- pixels of one, in the font below
local FEWEST_CHARACTERS = 3
local LEAST_PIXELS = 0.1

local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }

--- Also without control characters, which XML cannot hold.
local function escape(text)
  return (as_utf8(text):gsub("[%z\1-\8\11-\31]", "?"):gsub("[&<>\"']", ENTITIES))
end

--- Cut to `most` characters; a byte sequence of UTF-8 is never cut in two.
local function cut(text, most)
  if #text <= most then return text end
  return (text:sub(1, most - 2):gsub("[\192-\255][\128-\191]*$", "")) .. ".."
end

local function depth_of(node)
  local deepest = 0
  for _, child in ipairs(node.children) do deepest = math.max(deepest, depth_of(child)) end
  return deepest + 1
end

--- @param root of lupe.flame_tree, ordered
-- @tparam table options { title, subtitle, footer, format (value -> text), compared (boolean) }
-- @treturn string
return function(root, options)
  local parts, count = {}, 0
  local function put(text)
    count = count + 1
    parts[count] = text
  end

  local height = HEAD + depth_of(root) * ROW + FOOT
  local whole = math.max(root.value, 1e-300)
  local base_whole = math.max(root.base, 1e-300)
  local scale = (WIDTH - 2 * MARGIN) / math.max(root.size, 1e-300)

  put(('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" ')
    :format(WIDTH, height, WIDTH, height))
  put('font-family="ui-monospace,Menlo,Consolas,monospace" font-size="10.5">\n')
  put(('<rect width="%d" height="%d" fill="#fffdf8"/>\n'):format(WIDTH, height))
  put(('<text x="%d" y="20" font-size="15" font-weight="bold">%s</text>\n'):format(MARGIN, escape(options.title)))
  put(('<text x="%d" y="36" fill="#555">%s</text>\n'):format(MARGIN, escape(options.subtitle)))

  local function draw(node, x, level)
    local width = node.size * scale
    local y = height - FOOT - (level + 1) * ROW
    local share = 100 * node.value / whole
    local tip = ("%s: %s, %.2f %%"):format(node.name, options.format(node.value), share)
    if node.module ~= "" then tip = tip .. "\n" .. node.module .. (node.inlined and ", inlined" or "") end
    local fill
    if options.compared then
      tip = ("%s\nbefore: %s, %.2f %%"):format(tip, options.format(node.base), 100 * node.base / base_whole)
      fill = colors.of_difference(node.value / whole, node.base / base_whole)
    else
      fill = colors.of(node.name, node.module, node.inlined)
    end
    put(('<g><title>%s</title><rect x="%.2f" y="%d" width="%.2f" height="%d" rx="1" fill="%s"/>')
      :format(escape(tip), x, y, math.max(LEAST_PIXELS, width - 0.4), ROW - 1, fill))
    local room = math.floor((width - 6) / CHARACTER)
    if room >= FEWEST_CHARACTERS then
      put(('<text x="%.2f" y="%d">%s</text>'):format(x + 3, y + 12, escape(cut(node.name, room))))
    end
    put("</g>\n")
    for _, child in ipairs(node.children) do
      draw(child, x, level + 1)
      x = x + child.size * scale
    end
  end
  draw(root, MARGIN, 0)
  put(('<text x="%d" y="%d" fill="#555">%s</text>\n</svg>\n'):format(MARGIN, height - 8, escape(options.footer)))
  return table.concat(parts)
end
