--- Flame graphs, in all forms: a picture (svg), a page that zooms and searches (html), lines that other tools read
-- (folded), and a tree (json).
--
-- Folded lines are `outermost;...;innermost VALUE`: bytes for "heap" and "alloc", microseconds for "cpu" and "wall".
-- The tree is of nodes as in `NODE`, in bytes or nanoseconds (`base`: of what is compared with), without what is
-- below 0.02 % of the whole.
-- @module lupe.flamegraph

local flame_html = require("lupe.flame_html")
local flame_source = require("lupe.flame_source")
local flame_svg = require("lupe.flame_svg")
local flame_tree = require("lupe.flame_tree")
local format = require("lupe.format")
local json = require("lupe.json")

local flamegraph = {}

flamegraph.TYPES = { "cpu", "wall", "heap", "alloc" }
flamegraph.FORMATS = { "svg", "html", "folded", "json" }

flamegraph.NODE = json.shape({
  "name string", "module string", "inlined boolean", "value integer", "self integer", "base integer?",
  "children Node[]", Node = true,
})

-- The narrowest frame, as a share of the whole: what nobody can see would only make the file large.
local LEAST_SHARE = { svg = 1 / 3000, html = 1 / 5000, json = 1 / 5000 }

local KIB = 1024
local BYTES = { { 1, "B" }, { KIB, "KiB" }, { KIB ^ 2, "MiB" }, { KIB ^ 3, "GiB" } }
local TIMES = { { 1, "ns" }, { 1e3, "us" }, { 1e6, "ms" }, { 1e9, "s" } }

local function is_time(type) return type == "cpu" or type == "wall" end

local function duration(ns)
  if ns < 1e9 then return ("%.3g ms"):format(ns / 1e6) end
  return ("%.4g s"):format(ns / 1e9)
end

local function folded(source, type)
  local sums, order = {}, {}
  local divisor = is_time(type) and 1000 or 1
  local words, safe = {}, setmetatable({}, { __index = function(known, name)
    known[name] = name:gsub("[;\n]", ":")
    return known[name]
  end })
  source.each(type, function(stack, value)
    local frames, count = source.frames(stack)
    for i = 1, count do words[i] = safe[frames[i].name] end
    local line = table.concat(words, ";", 1, count)
    if not sums[line] then order[#order + 1] = line end
    sums[line] = (sums[line] or 0) + value
  end)
  table.sort(order)
  local lines, count = {}, 0
  for _, line in ipairs(order) do
    local value = math.floor(sums[line] / divisor + 0.5)
    if value > 0 then
      count = count + 1
      lines[count] = ("%s %.0f\n"):format(line, value)
    end
  end
  return table.concat(lines)
end

local function plant(tree, source, type, is_base)
  source.each(type, function(stack, value)
    local frames, count = source.frames(stack)
    tree:add(frames, count, value, is_base)
  end)
end

local function as_json(root, compared)
  local parts, count = {}, 0
  local function put(text)
    count = count + 1
    parts[count] = text
  end
  local function add(node)
    put(('{"name":%s,"module":%s,"inlined":%s,"value":%.0f,"self":%.0f'):format(json.encode(node.name),
      json.encode(node.module), tostring(node.inlined), node.value, node.self))
    put(compared and (',"base":%.0f,"children":['):format(node.base) or ',"base":null,"children":[')
    for i, child in ipairs(node.children) do
      if i > 1 then put(",") end
      add(child)
    end
    put("]}")
  end
  add(root)
  put("\n")
  return table.concat(parts)
end

--- @param columns of lupe.ffi
-- @tparam table options { type, format, title, subtitle, base (a decoded export to compare with, or nil) }
-- @treturn string; or nil and what is wrong with the base
function flamegraph.render(columns, options)
  local source = flame_source.of_columns(columns)
  local type = options.type
  if options.format == "folded" then return folded(source, type) end

  local tree, compared = flame_tree.new(), options.base ~= nil
  plant(tree, source, type, false)
  if compared then
    local base, message = flame_source.of_export(options.base)
    if not base then return nil, message end
    plant(tree, base, type, true)
  end
  local now, before = tree:total()
  local least = math.max(now, before) * LEAST_SHARE[options.format]
  local root, left_out = tree:ordered(math.max(least, 1e-300))
  if options.format == "json" then return as_json(root, compared) end

  local to_words = is_time(type) and duration or format.bytes
  local footer = left_out > 0 and ("%s narrower than %.4g %% of the whole left out"):format(
    left_out == 1 and "1 frame" or format.count(left_out) .. " frames", 100 * LEAST_SHARE[options.format]) or ""
  local render = options.format == "svg" and flame_svg or flame_html
  local subtitle = ("%s, %s"):format(options.subtitle, to_words(root.value))
  if compared then subtitle = ("%s, before %s; red grew, blue shrank"):format(subtitle, to_words(root.base)) end
  return render(root, {
    title = options.title, subtitle = subtitle, footer = footer, compared = compared, format = to_words,
    steps = is_time(type) and TIMES or BYTES,
  })
end

return flamegraph
