--- GET /api/profiling/allocations: who allocates, in what sizes, and how well the allocator packs it.

local json = require("lupe.json")
local leaks = require("lupe.leaks")
local profiling_route = require("lupe.profiling_route")
local targets = require("lupe.targets")
local time = require("lupe.time")

local DEFAULT_LIMIT, MOST = 20, 1000
local MOST_FRAMES = 32
local NOT_ABOUT_ALLOCATIONS = { ["recommendation.growth"] = true, ["leak.steady-growth"] = true }

local SIZES = json.shape({
  "small_0_1kb integer?", "medium_1_100kb integer?", "large_100kb_1mb integer?", "huge_1mb_plus integer?",
})
local PAIR = {
  type = "array", prefixItems = json.array({ { type = "string" }, { type = "integer" } }), items = false, minItems = 2,
}
local ALLOCATOR = json.shape({
  "name string", "module string", "inuse_space integer", "inuse_objects integer", "alloc_space integer?",
  "alloc_objects integer?", "share_percent number", "sampling_error_bytes integer", "stack string[]",
})

local function whole(number) return math.floor(number + 0.5) end

local function known(number) return number > 0 and whole(number) or nil end

local function distribution(sizes)
  return SIZES({
    small_0_1kb = sizes.small_0_1kb, medium_1_100kb = sizes.medium_1_100kb,
    large_100kb_1mb = sizes.large_100kb_1mb, huge_1mb_plus = sizes.huge_1mb_plus,
  })
end

local function top(view, by, limit)
  local pairs_list, described = {}, {}
  local total = by == "inuse_space" and view.heap.total_inuse_space or view.heap.total_alloc_space
  for site in view.heap:sites({ by = by, limit = limit }) do
    if site[by] <= 0 then break end
    pairs_list[#pairs_list + 1] = json.array({ site.name, whole(site[by]) })
    described[#described + 1] = ALLOCATOR({
      name = site.name, module = site.module, inuse_space = whole(site.inuse_space),
      inuse_objects = whole(site.inuse_objects), alloc_space = known(site.alloc_space),
      alloc_objects = known(site.alloc_objects), share_percent = json.round(100 * site[by] / total, 2),
      sampling_error_bytes = whole(site.sampling_error_bytes), stack = json.first(site.stack, MOST_FRAMES),
    })
  end
  return pairs_list, described
end

--- What was found in all processes lately, or in one now.
local function analysis_of(app, pid, view)
  if pid then return view and app.analysis:run(view, { pid = pid }) end
  app.refresh_findings()
  return app.analysis:latest()
end

-- The ranking of a view is the same for all who ask: view -> by -> { list, described }, for the usual limit.
local ranked = setmetatable({}, { __mode = "k" })

local function ranking(view, by, limit)
  if limit ~= DEFAULT_LIMIT then return top(view, by, limit) end
  local lists = ranked[view] or {}
  ranked[view] = lists
  lists[by] = lists[by] or { top(view, by, limit) }
  return lists[by][1], lists[by][2]
end

return {
  profiling_route({
    method = "GET",
    path = "/api/profiling/allocations",
    summary = "The functions that hold most memory, live sizes, and fragmentation",
    params = {
      {
        name = "by", type = "choice", values = { "inuse_space", "alloc_space" }, default = "inuse_space",
        doc = "rank by live bytes, or by all bytes allocated since the start",
      },
      { name = "limit", type = "integer", min = 1, max = MOST, default = DEFAULT_LIMIT, doc = "how many allocators" },
    },
    fields = {
      "top_allocators NameAndBytes[]", "size_distribution SizeDistribution", "efficiency_score number?",
      "fragmentation_percent number?", "recommendations string[]", "reason string?", "allocators Allocator[]",
      "by inuse_space|alloc_space", "profile_time time?", "sample_period_bytes integer?", "profiled_bytes integer?",
      "allocated_bytes integer?", "size_distribution_reason string?", "analyzed_at time?",
      NameAndBytes = PAIR, SizeDistribution = SIZES, Allocator = ALLOCATOR,
    },
    report = function(request, app, selected)
      local pid, by = request.params.target, request.params.by
      local view, missing = app.views:newest(pid)
      local _, reason = targets.allocator(selected)
      if not view then reason = reason or missing end
      local figures = targets.figures(app.host, pid)
      local has, active, resident = figures.has_allocator, figures.active_bytes, figures.resident_bytes
      local sizes = view and view.allocator and view.allocator.distribution
      local found = analysis_of(app, pid, view)
      local list, described = {}, {}
      if view and not reason then list, described = ranking(view, by, request.params.limit) end
      local profiled = view and view.sampled
      return {
        top_allocators = list,
        size_distribution = distribution(sizes or {}),
        efficiency_score = has and json.round(figures.allocated_bytes / resident, 4) or nil,
        fragmentation_percent = has and json.round(100 * (1 - figures.allocated_bytes / active), 2) or nil,
        recommendations = leaks.recommendations(found and found.findings or {}, NOT_ABOUT_ALLOCATIONS),
        reason = reason,
        allocators = described,
        by = by,
        profile_time = view and time.rfc3339(view.time_ms),
        sample_period_bytes = profiled and view.sample_period_bytes or nil,
        profiled_bytes = profiled and whole(view.heap.total_inuse_space) or nil,
        allocated_bytes = has and figures.allocated_bytes or nil,
        analyzed_at = found and time.rfc3339(found.time_ms),
        size_distribution_reason = not sizes and (reason or "the size classes have not been read yet") or nil,
      }
    end,
  }),
}
