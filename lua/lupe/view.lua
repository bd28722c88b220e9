--- What rules and routes see of a snapshot: read-only, worked out when asked for, no clock of its own.
--
-- Fields:
--
-- * `time_ms`, `started_ms` Unix ms: when the snapshot was taken, when the run began; `generation`
-- * `sample_period_bytes` one sample per so many bytes on average, 0: no heap profile; `sampled` boolean
-- * `heap` see lupe.heap_view, lupe.site, lupe.trend, lupe.heap_changes; `memory` see lupe.memory_view
-- * `profile` where the time went, by CPU and by the clock: see lupe.profile_view, lupe.profile_function
-- * `threads` see lupe.threads_view, lupe.profile_threads; `spans` see lupe.span_view; `history` see lupe.history_view
-- * `proof` what leak proofs found, nil where none was run, and then `proof_reason` says so: see lupe.proof_view
-- * `base` another view to compare this one with, such as of before a deploy; nil, and then `base_reason` says why
-- * `allocator` nil where no allocator's figures are known; else `name`, bytes `allocated_bytes active_bytes
--   metadata_bytes resident_bytes mapped_bytes retained_bytes`, ratios 0..1 `fragmentation` (1 - allocated /
--   active), `efficiency` (allocated / resident), `distribution` (live counts `small_0_1kb medium_1_100kb
--   large_100kb_1mb huge_1mb_plus`, nil where the size classes are not known), and what was known beside the
--   snapshot: `arena_count`, `dirty_bytes`, `muzzy_bytes`, `dirty_decay_ms`, `muzzy_decay_ms`, `background_thread`,
--   `thread_cache`
-- * `classes` { { size_bytes, live_count } ... }; `targets` { { pid, ppid, name, live, heap_state, allocator,
--   sample_period_bytes, first_ms, last_ms, memory } ... }; `modules` { { path, name, build_id } ... }
-- * `dropped_records`, `truncated_stacks`, `stack_overflows`
-- * `findings` of the rules before this one (recommendations and actions only, else empty); `config` limits by name
-- * `cgroup` { limit_bytes (nil: none), used_bytes, reclaimable_bytes (of these) }, nil where none is known; `cores`
--   of the host, nil where not known
-- @module lupe.view
-- @usage
-- return (view.time_ms - view.started_ms) / 1000, view.targets[1].name, words.bytes(view.heap.total_inuse_space)
-- --> 30, app, 52.0 MiB
-- @usage
-- if not view.base then return view.base_reason end
-- return words.bytes(view.heap.total_inuse_space - view.base.heap.total_inuse_space)
-- --> 12.0 MiB
-- @usage
-- local allocator = view.allocator
-- return allocator.name, words.percent(100 * allocator.fragmentation), allocator.distribution.small_0_1kb
-- --> jemalloc, 10 %, 7000

local columns_of = require("lupe.ffi").snapshot
local heap_view = require("lupe.heap_view")
local history_view = require("lupe.history_view")
local lazy = require("lupe.lazy")
local literal = require("lupe.view_literal")
local memory_view = require("lupe.memory_view")
local profile_view = require("lupe.profile_view")
local proof_view = require("lupe.proof_view")
local proof_words = require("lupe.proof_words")
local site_groups = require("lupe.site_groups")
local span_view = require("lupe.span_view")
local threads_view = require("lupe.threads_view")

local view = {}

local NO_BASE = "there is no other snapshot to compare with"

-- view -> lupe.site_groups of its snapshot: what a comparison needs of the base, out of reach of rules.
local groups_of = setmetatable({}, { __mode = "k" })

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
    threads = function(me) return threads_view(columns, me.memory, me.profile) end,
    spans = function() return span_view(columns) end,
    proof = function() return proof_view(shared.groups) end,
    proof_reason = function(me) return not me.proof and proof_words.NEVER_RUN or nil end,
    history = function(me) return history_view(columns, me.heap, me.memory) end,
  }, {
    heap = shared.heap, memory = shared.memory, profile = shared.profile,
    base = shared.base, base_reason = not shared.base and (shared.base_reason or NO_BASE) or nil,
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
  groups_of[self] = shared.groups
  return self
end

local function from_columns(address, size, owner, extra)
  local kept = extra.kept or {}
  if not kept.columns then
    local columns, message, name = columns_of(address, size)
    if not columns then return nil, message, name end
    columns.owner = owner -- the memory lives as long as any site does
    kept.columns, kept.groups = columns, site_groups.new(columns)
  end
  local columns, groups, base = kept.columns, kept.groups, extra.base
  return assemble(columns, {
    groups = groups, heap = heap_view.new(groups, base and groups_of[base]), memory = memory_view.new(columns),
    profile = profile_view(columns, kept, extra.off_because), base = base, base_reason = extra.base_reason,
  }, extra)
end

--- A view of a snapshot in memory.
-- @param address light userdata or pointer of the header
-- @tparam number size bytes
-- @tparam[opt] table extra `findings`, `config`, `allocator` (figures to add), `cgroup`, `cores`, `off_because` ("cpu"
--   and "wall" -> why there are no such samples), `keepalive` (whatever owns the
--   memory: it lives as long as the view does, and is `view.keepalive`; the worker process gives none), `kept` (a
--   table, empty at first, that all views of this snapshot share: sums over its columns are worked out once), `base`
--   (another view, to compare with) or `base_reason` (why there is none)
-- @treturn table the view; its `extras` are what it has beside its snapshot (lupe.surroundings).
--   `view:with { findings = ... }` is the same one with other extras, at no cost (its base stays).
--   nil, "ENAME: text", "ENAME" where it is not a snapshot
function view.from_snapshot(address, size, extra)
  extra = extra or {}
  return from_columns(address, size, extra.keepalive, extra)
end

--- A view of a literal table (see lupe.view_literal): the same code over the same layout, for specs.
-- `base` there is another such table.
function view.from_table(description)
  local address, size, owner = literal(description)
  return assert(from_columns(address, size, owner, {
    findings = description.findings, config = description.config, allocator = description.allocator,
    cgroup = description.cgroup, cores = description.cores, off_because = description.off_because,
    base = description.base and view.from_table(description.base), base_reason = description.base_reason,
  }))
end

return view
