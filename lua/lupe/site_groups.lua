--- The heap's stacks put together: by function (as the snapshot's own columns have it), each for itself, by module, or
-- by tag. Sums over columns in compiled loops; nothing is made per group but numbers. Rules see groups as sites.
--
-- A *tag* is what a program says its work is for, such as a tenant (lupe.tags); of several in one stack the one nearest
-- to the allocation counts. It is the function that the stack is counted for.
--
-- The history is kept per function. So that of a group is known where its functions allocate for no other group: then
-- it is their sum, exact; otherwise it is not known, and the reason names one that does.
--
-- A group has numbers in place of names: `count`; arrays from 0 `inuse_space inuse_objects alloc_space alloc_objects`;
-- `key(g)`: the site, stack, module or function (of a tag) that it stands for; `stacks(g)` an array of its stacks, in
-- the snapshot's order; `top_stack(g)` the one with most live bytes; `slopes()` an array, live bytes per second by a
-- straight line, minus infinity where not known; `history(g, column)` values and the index where they begin, or nil and
-- a reason; `sites(g)` an array of its sites, or nil and a reason, likewise; `trends` what lupe.site measured of them.
-- @module lupe.site_groups

local numbers = require("lupe.ffi").numbers
local site_proof = require("lupe.site_proof")
local tags = require("lupe.tags")
local trend = require("lupe.trend")

local site_groups = {}

site_groups.KINDS = { "function", "stack", "module", "tag" }

local FIGURES = { "inuse_space", "inuse_objects", "alloc_space", "alloc_objects" }
local HISTORIES = {
  inuse_space = "site_history_space", inuse_objects = "site_history_objects", alloc_space = "site_history_alloc",
}
local MIXED = -1 -- of a site whose stacks belong to several groups

-- Which stack belongs to which group ----------------------------------------------------------

--- By stack: 1 where a function of this name is in it.
local function stacks_through(columns, name)
  local wanted, found = numbers(columns.count.functions), numbers(columns.count.stacks)
  for i = 0, columns.count.functions - 1 do
    if columns.text(columns.functions[i].name) == name then wanted[i] = 1 end
  end
  local frames, frame_of, first = columns.frames, columns.stack_frames, columns.stack_first
  for stack = 0, columns.count.stacks - 1 do
    for k = first[stack], first[stack + 1] - 1 do
      if wanted[frames[frame_of[k]]["function"]] == 1 then found[stack] = 1 end
    end
  end
  return found
end

--- How many keys there may be, and the key of a stack (below 0: none).
local function keys_of(shared, kind)
  local columns = shared.columns
  local site_of, site_function, functions = columns.stack_site, columns.site_function, columns.functions
  if kind == "function" then return columns.count.sites, function(stack) return site_of[stack] end end
  if kind == "stack" then return columns.count.stacks, function(stack) return stack end end
  if kind == "module" then
    return columns.count.modules, function(stack) return functions[site_function[site_of[stack]]].module end
  end
  local tag_of = shared.tags()
  return columns.count.functions, function(stack) return tag_of and tag_of[stack] - 1 or -1 end
end

--- Numbers the groups as they come up: the group of each stack (-1: none), the key of each group, how many.
local function numbered(shared, kind, through)
  local columns = shared.columns
  local stacks, sites, site_of = columns.count.stacks, columns.count.sites, columns.stack_site
  local most, key_of = keys_of(shared, kind)
  local owner, number, keys, count = numbers(stacks), numbers(most), numbers(math.min(stacks, most)), 0
  for stack = 0, stacks - 1 do
    local key = -1
    if site_of[stack] < sites and (not through or through[stack] == 1) then key = key_of(stack) end
    if key < 0 then
      owner[stack] = -1
    else
      if number[key] == 0 then
        keys[count] = key
        count = count + 1
        number[key] = count
      end
      owner[stack] = number[key] - 1
    end
  end
  return owner, keys, count
end

local function sums(columns, owner, count)
  local made = {}
  for _, figure in ipairs(FIGURES) do
    local values, sum = columns["stack_" .. figure], numbers(count)
    for stack = 0, columns.count.stacks - 1 do
      local g = owner[stack]
      if g >= 0 then sum[g] = sum[g] + values[stack] end
    end
    made[figure] = sum
  end
  return made
end

--- The stacks of each group as chains: head by group, next by stack, both plus 1. An owner that is no group: none.
local function chains(columns, owner, count)
  local head, following = numbers(count), numbers(columns.count.stacks)
  for stack = columns.count.stacks - 1, 0, -1 do
    local g = owner[stack]
    if g >= 0 and g < count then head[g], following[stack] = stack + 1, head[g] end
  end
  return head, following
end

--- By site the group (plus 2) that all its stacks belong to.
local function groups_of_sites(columns, owner)
  local group, site_of = numbers(columns.count.sites), columns.stack_site
  for stack = 0, columns.count.stacks - 1 do
    local site, g = site_of[stack], owner[stack] + 2
    if site < columns.count.sites then
      if group[site] == 0 then
        group[site] = g
      elseif group[site] ~= g then
        group[site] = MIXED
      end
    end
  end
  return group
end

-- Groups ------------------------------------------------------------------------------------

local function add_stacks(self, columns, owner)
  local head, following
  function self.stacks(g)
    if not head then head, following = chains(columns, owner, self.count) end
    local list, at = {}, head[g]
    while at > 0 do
      list[#list + 1] = at - 1
      at = following[at - 1]
    end
    return list
  end
end

local function add_sites(self, shared, owner)
  local columns, group = shared.columns, nil
  local function by_site()
    group = group or groups_of_sites(columns, owner)
    return group
  end

  function self.sites(g)
    local list, seen, of = {}, {}, by_site()
    for _, stack in ipairs(self.stacks(g)) do
      local site = columns.stack_site[stack]
      if of[site] == MIXED then
        local name = columns.text(columns.functions[columns.site_function[site]].name)
        return nil, ("the history is kept per function, and %s allocates elsewhere too"):format(name)
      end
      if not seen[site] then
        seen[site], list[#list + 1] = true, site
      end
    end
    return list
  end

  function self.slopes()
    local slopes, growth, of = numbers(self.count), shared.growth(), by_site()
    for site = 0, columns.count.sites - 1 do
      local g = of[site] - 2
      if g >= 0 then slopes[g] = slopes[g] + growth[site] end
    end
    for stack = 0, columns.count.stacks - 1 do
      if owner[stack] >= 0 and of[columns.stack_site[stack]] == MIXED then slopes[owner[stack]] = -math.huge end
    end
    return slopes
  end
end

local function grouped(shared, kind, through)
  local columns = shared.columns
  local owner, keys, count = numbered(shared, kind, through and stacks_through(columns, through))
  local self = sums(columns, owner, count)
  self.kind, self.count, self.key = kind, count, function(g) return keys[g] end
  add_stacks(self, columns, owner)
  add_sites(self, shared, owner)
  function self.top_stack(g)
    local best, most
    for _, stack in ipairs(self.stacks(g)) do
      local space = columns.stack_inuse_space[stack]
      if not most or space > most then best, most = stack, space end
    end
    return best
  end
  return self
end

--- All stacks by function: what the snapshot's columns are already.
local function by_function(shared)
  local columns = shared.columns
  local self = { kind = "function", count = columns.count.sites, key = function(g) return g end }
  for _, figure in ipairs(FIGURES) do self[figure] = columns["site_" .. figure] end
  add_stacks(self, columns, columns.stack_site)
  function self.sites(g) return { g } end
  function self.slopes() return shared.growth() end
  function self.top_stack(g) return columns.site_top_stack[g] end
  return self
end

local function add_history(self, columns)
  local ticks = columns.tick_count
  self.trends = {}
  function self.history(g, column)
    local sites, reason = self.sites(g)
    if not sites then return nil, reason end
    local values = columns[HISTORIES[column]]
    if columns.count[HISTORIES[column]] < columns.count.sites * ticks then return nil, "there is no history" end
    if #sites == 1 then return values, sites[1] * ticks end
    local sum = numbers(ticks)
    for _, site in ipairs(sites) do
      for t = 0, ticks - 1 do sum[t] = sum[t] + values[site * ticks + t] end
    end
    return sum, 0
  end
  return self
end

--- What all groups of one snapshot share, each worked out once.
-- @tparam table columns of lupe.ffi
-- @treturn table { columns, totals, growth(), is_tag(), tags(), proof_chains(), group(kind, through) }; only numbers,
--   no site objects: it may be kept for other views of the same snapshot
function site_groups.new(columns)
  local shared = { columns = columns, totals = {} }
  for _, figure in ipairs({ "inuse_space", "inuse_objects", "alloc_space" }) do
    local values, sum = columns["site_" .. figure], 0
    for i = 0, columns.count.sites - 1 do sum = sum + values[i] end
    shared.totals[figure] = sum
  end

  local function once(make)
    local known, value
    return function()
      if not known then value, known = make(), true end
      return value
    end
  end
  --- Live bytes per second of each site, by a straight line through its history.
  shared.growth = once(function()
    local growth, ticks = numbers(columns.count.sites), columns.tick_count
    if ticks >= trend.FEWEST and columns.count.site_history_space >= columns.count.sites * ticks then
      trend.screen(columns.tick_time_ms, columns.site_history_space, ticks, columns.count.sites, growth)
    end
    return growth
  end)
  shared.is_tag = once(function() return tags.functions(columns) end)
  shared.tags = once(function()
    local is_tag = shared.is_tag()
    return is_tag and tags.of_stacks(columns, is_tag)
  end)

  --- Of lupe.site_proof; nil where no proof says anything of a stack.
  shared.proof_chains = once(function() return site_proof.chains(columns) end)

  local known = {}
  --- @string kind one of KINDS, @tparam[opt] string through only stacks with a function of this name in them; then the
  -- groups are worked out anew each time, as there may be many such names
  function shared.group(kind, through)
    if through then return add_history(grouped(shared, kind, through), columns) end
    if not known[kind] then
      known[kind] = add_history(kind == "function" and by_function(shared) or grouped(shared, kind), columns)
    end
    return known[kind]
  end
  return shared
end

return site_groups
