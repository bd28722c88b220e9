--- What rules and routes see of a snapshot: read-only, worked out when asked for, no clock of its own.
--
-- Fields:
--
-- * `time_ms`, `started_ms` Unix ms: when the snapshot was taken, when the run began; `generation`
-- * `sample_period_bytes` one sample per so many bytes on average, 0: no heap profile; `sampled` boolean
-- * `heap` see lupe.heap_view, lupe.site, lupe.trend; `memory` see lupe.memory_view
-- * `profile` where the time went: see lupe.profile_view
-- * `allocator` nil where no allocator's figures are known; else `name`, bytes `allocated_bytes active_bytes
--   metadata_bytes resident_bytes mapped_bytes retained_bytes`, ratios 0..1 `fragmentation` (1 - allocated /
--   active), `efficiency` (allocated / resident), `distribution` (live counts `small_0_1kb medium_1_100kb
--   large_100kb_1mb huge_1mb_plus`, nil where the size classes are not known), and what the caller added
--   (`arena_count`, `dirty_bytes`, `muzzy_bytes`, ...)
-- * `classes` { { size_bytes, live_count } ... }; `targets` { { pid, ppid, name, live, heap_state, allocator,
--   sample_period_bytes, first_ms, last_ms, memory } ... }; `modules` { { path, name, build_id } ... }
-- * `dropped_records`, `truncated_stacks`, `stack_overflows`
-- * `findings` of the rules before this one (recommendations and actions only, else empty); `config` limits by name
-- * `cgroup` { limit_bytes (nil: none), used_bytes, reclaimable_bytes (of these) } of the control group, nil where
--   none is known; `cores` of the host, nil where not known
-- * `extras`: what the view has beside its snapshot (lupe.surroundings): `allocator` (what was added), `cgroup`,
--   `cores`, `off_because`
-- @module lupe.view

local columns_of = require("lupe.ffi").snapshot
local heap_view = require("lupe.heap_view")
local lazy = require("lupe.lazy")
local literal = require("lupe.view_literal")
local memory_view = require("lupe.memory_view")
local profile_view = require("lupe.profile_view")

local view = {}

--- By the numbers of lupe_heap_state.
local HEAP_STATES = { [0] = "on", "no_jemalloc", "no_profiling", "prof_disabled", "no_hook", "switched_off" }

local function targets_of(columns)
  local list = {}
  for i = 0, columns.count.targets - 1 do
    local target = columns.targets[i]
    list[i + 1] = {
      pid = target.pid, ppid = target.ppid, live = target.live == 1,
      name = columns.text(target.name), allocator = columns.text(target.allocator),
      heap_state = HEAP_STATES[target.heap_state] or "unknown",
      sample_period_bytes = tonumber(target.sample_period_bytes),
      first_ms = target.first_ms, last_ms = target.last_ms, memory = memory_view.row(target.memory),
    }
  end
  return list
end

local function modules_of(columns)
  local list = {}
  for i = 0, columns.count.modules - 1 do
    local path = columns.text(columns.modules[i].path)
    list[i + 1] = {
      path = path, name = path:match("[^/]+$") or path, build_id = columns.text(columns.modules[i].build_id),
    }
  end
  return list
end

local function classes_of(columns)
  local list = {}
  for i = 0, columns.count.classes - 1 do
    local class = columns.classes[i]
    list[i + 1] = { size_bytes = tonumber(class.size_bytes), live_count = tonumber(class.live_count) }
  end
  return list
end

local KIB = 1024

local function distribution_of(classes)
  if #classes == 0 then return nil end
  local small, medium, large, huge = 0, 0, 0, 0
  for _, class in ipairs(classes) do
    if class.size_bytes <= KIB then
      small = small + class.live_count
    elseif class.size_bytes <= 100 * KIB then
      medium = medium + class.live_count
    elseif class.size_bytes <= KIB * KIB then
      large = large + class.live_count
    else
      huge = huge + class.live_count
    end
  end
  return { small_0_1kb = small, medium_1_100kb = medium, large_100kb_1mb = large, huge_1mb_plus = huge }
end

local function allocator_of(self, added)
  local row = self.memory.latest
  if not row or not row.has_allocator then return nil end
  local known = {
    allocated_bytes = row.allocated_bytes, active_bytes = row.active_bytes, metadata_bytes = row.metadata_bytes,
    resident_bytes = row.resident_bytes, mapped_bytes = row.mapped_bytes, retained_bytes = row.retained_bytes,
    fragmentation = row.active_bytes > 0 and math.max(0, 1 - row.allocated_bytes / row.active_bytes) or nil,
    efficiency = row.resident_bytes > 0 and math.min(1, row.allocated_bytes / row.resident_bytes) or nil,
    distribution = distribution_of(self.classes),
  }
  for _, target in ipairs(self.targets) do
    if target.heap_state ~= "switched_off" then known.name = known.name or target.allocator end
  end
  for name, value in pairs(added or {}) do known[name] = value end
  return known
end

local function assemble(columns, shared, extra)
  local self
  local function with(_, changed)
    local merged = {}
    for name, value in pairs(extra) do merged[name] = value end
    for name, value in pairs(changed) do merged[name] = value end
    return assemble(columns, shared, merged)
  end
  self = lazy({
    targets = function() return targets_of(columns) end,
    modules = function() return modules_of(columns) end,
    classes = function() return classes_of(columns) end,
    allocator = function(me) return allocator_of(me, extra.allocator) end,
  }, {
    heap = shared.heap, memory = shared.memory, profile = shared.profile,
    time_ms = columns.time_ms, started_ms = columns.started_ms, generation = columns.generation,
    sample_period_bytes = columns.sample_period_bytes, sampled = columns.sample_period_bytes > 0,
    dropped_records = columns.dropped_records, truncated_stacks = columns.truncated_stacks,
    stack_overflows = columns.stack_overflows,
    findings = extra.findings or {}, config = extra.config or {},
    cgroup = extra.cgroup, cores = extra.cores,
    extras = {
      allocator = extra.allocator, cgroup = extra.cgroup, cores = extra.cores, off_because = extra.off_because,
    },
    with = with, keepalive = extra.keepalive,
  }, "view")
  return self
end

local function from_columns(address, size, owner, extra)
  local columns, message, name = columns_of(address, size)
  if not columns then return nil, message, name end
  columns.owner = owner -- the memory lives as long as any site does
  return assemble(columns, {
    heap = heap_view(columns), memory = memory_view.new(columns),
    profile = profile_view(columns, extra.kept, extra.off_because),
  }, extra)
end

--- A view of a snapshot in memory.
-- @param address light userdata or pointer of the header
-- @tparam number size bytes
-- @tparam[opt] table extra `findings`, `config`, `allocator` (figures to add), `cgroup`, `cores`, `off_because` ("cpu"
--   and "wall" -> why there are no such samples), `keepalive` (whatever owns the
--   memory: it lives as long as the view does, and is `view.keepalive`; the worker process gives none), `kept` (a
--   table, empty at first, that all views of this snapshot share: sums over its samples are worked out once)
-- @treturn table the view. `view:with { findings = ... }` is the same one with other extras, at no cost.
--   nil, "ENAME: text", "ENAME" where it is not a snapshot
function view.from_snapshot(address, size, extra)
  extra = extra or {}
  return from_columns(address, size, extra.keepalive, extra)
end

--- A view of a literal table (see lupe.view_literal): the same code over the same layout, for specs.
function view.from_table(description)
  local address, size, owner = literal(description)
  return assert(from_columns(address, size, owner, {
    findings = description.findings, config = description.config, allocator = description.allocator,
    cgroup = description.cgroup, cores = description.cores, off_because = description.off_because,
  }))
end

return view
