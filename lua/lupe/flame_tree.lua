--- Stacks merged from their roots: what a flame graph shows.
-- While it grows, a tree is a few flat arrays, since there can be hundreds of thousands of nodes; `ordered` makes
-- tables of those that are wide enough to be seen: { name, module (its file's name, "" unknown), inlined, value, self,
-- base, size, children }. `value` is that of all stacks that pass through it, `self` of those that end there, `base`
-- the value in the snapshot that is compared with (0 where there is none), `size` how wide it is: its value, or where
-- something is compared the larger of both, so that what is gone is seen, and never less than its children's
-- together; `children` an array ordered by name. The root is called "all".
-- @module lupe.flame_tree

local flame_tree = {}
flame_tree.__index = flame_tree

--- An empty tree.
function flame_tree.new()
  return setmetatable({
    frames = {}, count = 0, -- distinct frames by number
    numbers = {},           -- name -> number
    nodes = 0,              -- 0 is the root; the arrays below are by node, 0 in the last three is none
    value = { [0] = 0 }, self = { [0] = 0 }, base = { [0] = 0 },
    frame = {}, parent = {}, child = { [0] = 0 }, sibling = {},
  }, flame_tree)
end

local function number_of(self, frame)
  local number = self.numbers[frame.name]
  if not number then
    number = self.count + 1
    self.count, self.frames[number], self.numbers[frame.name] = number, frame, number
  end
  frame.number = number
  return number
end

local function add_node(self, parent, number)
  local node = self.nodes + 1
  self.nodes = node
  self.value[node], self.self[node], self.base[node] = 0, 0, 0
  self.frame[node], self.parent[node] = number, parent
  self.child[node], self.sibling[node] = 0, self.child[parent]
  self.child[parent] = node
  return node
end

--- Adds one stack.
-- @tparam table frames array of { name, module, inlined }, the outermost first; the tree keeps a `number` in each, so
--   they can be added to no other
-- @tparam number count how many of them belong to the stack
-- @tparam number amount
-- @tparam[opt] boolean is_base the stack is of the snapshot that is compared with
function flame_tree:add(frames, count, amount, is_base)
  local frame, first, sibling = self.frame, self.child, self.sibling
  local sums = is_base and self.base or self.value
  local node = 0
  sums[0] = sums[0] + amount
  for i = 1, count do
    local number = frames[i].number or number_of(self, frames[i])
    local child = first[node]
    while child ~= 0 and frame[child] ~= number do child = sibling[child] end
    if child == 0 then child = add_node(self, node, number) end
    sums[child] = sums[child] + amount
    node = child
  end
  if not is_base then self.self[node] = self.self[node] + amount end
end

function flame_tree:total() return self.value[0], self.base[0] end

local function by_name(a, b) return a.name < b.name end

--- The nodes that are at least as wide as `least`, as tables.
-- @return the root, and how many nodes were left out
function flame_tree:ordered(least)
  local value, base, kept = self.value, self.base, {}
  local root = { name = "all", module = "", inlined = false, value = value[0], self = self.self[0], base = base[0] }
  root.children, kept[0] = {}, root
  local left_out = 0
  for node = 1, self.nodes do -- parents come before their children
    local parent = kept[self.parent[node]]
    if parent and (value[node] >= least or base[node] >= least) then
      local frame = self.frames[self.frame[node]]
      local made = {
        name = frame.name, module = frame.module, inlined = frame.inlined, value = value[node],
        self = self.self[node], base = base[node], children = {},
      }
      kept[node] = made
      parent.children[#parent.children + 1] = made
    else
      left_out = left_out + 1
    end
  end
  for node = self.nodes, 0, -1 do -- and after them, from behind
    local made = kept[node]
    if made then
      local together = 0
      for _, child in ipairs(made.children) do together = together + child.size end
      made.size = math.max(made.value, made.base, together)
      if made.children[2] then table.sort(made.children, by_name) end
    end
  end
  return root, left_out
end

return flame_tree
