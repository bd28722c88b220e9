--- Two snapshots of the heap compared: what grew and what shrank since view.base, such as the one before a deploy.
-- `view.heap:changes(options)` is an iterator, most growth first, what shrank last; it gives nothing where there is no
-- view.base. Functions are matched by name and module's file name, so a new build of the program is no obstacle;
-- static functions of one name are one. Options, all optional: `group` "function" (where not given), "module" or "tag";
-- `by` "inuse_space" (where not given) or "inuse_objects": what the order goes by; `min_change` bytes, to either side;
-- `limit` at most so many.
--
-- A change: `name`, `module`; bytes `inuse_space`, `base_inuse_space`, `change` (negative: it shrank); likewise
-- `inuse_objects`, `base_inuse_objects`, `change_objects`; `error_bytes` standard error of `change` by sampling, at
-- most: the square root of period x bytes of both sides; `significant` true where the change is beyond what sampling
-- alone gives in 9 of 10 cases; `appeared` (nothing of it lived in the base), `gone` (nothing of it lives now);
-- `site` (lupe.site, nil where it is gone), `base_site` (nil where it appeared).
-- @module lupe.heap_changes
-- @usage
-- local found = {}
-- for c in view.heap:changes { min_change = 2 ^ 20 } do
--   local what = c.appeared and "new" or c.gone and "gone" or "was " .. words.bytes(c.base_inuse_space)
--   found[#found + 1] = c.name .. " " .. words.bytes(c.inuse_space) .. " (" .. what .. ")"
-- end
-- return table.concat(found, "; ")
-- --> remember_session 30.0 MiB (was 12.0 MiB); inflate 2.00 MiB (new); old_index 0 B (gone)

local largest = require("lupe.largest")
local numbers = require("lupe.ffi").numbers
local site = require("lupe.site")
local stats = require("lupe.stats")

local heap_changes = {}

heap_changes.OPTIONS = {
  by = { "inuse_space", "inuse_objects" }, group = { "function", "module", "tag" }, limit = "number",
  min_change = "number",
}

local function nothing() return nil end

--- Name and module of groups, as one text.
local function key_of(columns, group, g)
  local key = group.key(g)
  if group.kind == "module" then return columns.text(columns.modules[key].path):match("[^/]*$") end
  local f = columns.functions[group.kind == "tag" and key or columns.site_function[key]]
  return columns.text(f.name) .. "\0" .. (columns.text(columns.modules[f.module].path):match("[^/]*$"))
end

--- One snapshot's figures, in the slots of their names, of which `count` are taken. `best`: the largest group, plus 1.
local function add(slots, count, most, columns, group)
  local side = { space = numbers(most), objects = numbers(most), best = numbers(most) }
  local biggest = numbers(most)
  for g = 0, group.count - 1 do
    local key = key_of(columns, group, g)
    local slot = slots[key]
    if not slot then
      slot, slots[key] = count, count
      count = count + 1
    end
    local space = group.inuse_space[g]
    side.space[slot], side.objects[slot] = side.space[slot] + space, side.objects[slot] + group.inuse_objects[g]
    if side.best[slot] == 0 or space > biggest[slot] then side.best[slot], biggest[slot] = g + 1, space end
  end
  return side, count
end

local function change_of(shared, base, group, base_group, now, before, slot)
  local live = now.best[slot] > 0 and site.new(shared, group, now.best[slot] - 1)
  local lived = before.best[slot] > 0 and site.new(base, base_group, before.best[slot] - 1)
  local change = now.space[slot] - before.space[slot]
  local variance = shared.columns.sample_period_bytes * now.space[slot]
    + base.columns.sample_period_bytes * before.space[slot]
  return {
    name = (live or lived).name, module = (live or lived).module,
    inuse_space = now.space[slot], base_inuse_space = before.space[slot], change = change,
    inuse_objects = now.objects[slot], base_inuse_objects = before.objects[slot],
    change_objects = now.objects[slot] - before.objects[slot],
    error_bytes = math.sqrt(variance), significant = math.abs(change) > stats.Z90 * math.sqrt(variance),
    appeared = before.space[slot] == 0, gone = now.space[slot] == 0,
    site = now.space[slot] > 0 and live or nil, base_site = before.space[slot] > 0 and lived or nil,
  }
end

--- @tparam table shared of lupe.site_groups
-- @param base the same of the other snapshot, or nil
-- @tparam table options checked
function heap_changes.iterator(shared, base, options)
  if not base then return nothing end
  local group, base_group = shared.group(options.group or "function"), base.group(options.group or "function")
  local slots, capacity = {}, group.count + base_group.count
  local now, met = add(slots, 0, capacity, shared.columns, group)
  local before, all = add(slots, met, capacity, base.columns, base_group)

  local least = options.min_change or 0
  local candidates, count, keys = numbers(all + 1), 0, numbers(all)
  for slot = 0, all - 1 do
    local change = now.space[slot] - before.space[slot]
    if change ~= 0 and math.abs(change) >= least then
      count = count + 1
      candidates[count] = slot
      keys[slot] = options.by == "inuse_objects" and now.objects[slot] - before.objects[slot] or change
    end
  end
  local first, most = largest(candidates, count, keys,
    math.max(0, math.floor(math.min(options.limit or count, count))))
  local at = 0
  return function()
    at = at + 1
    if at <= most then return change_of(shared, base, group, base_group, now, before, first[at]) end
  end
end

return heap_changes
