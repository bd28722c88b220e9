--- GET /api/profiling/memory: how much memory the program holds, and why it is more than its heap.

local json = require("lupe.json")
local profiling_route = require("lupe.profiling_route")
local targets = require("lupe.targets")
local trend = require("lupe.memory_trend")

local MIB = 2 ^ 20
local WINDOW_MS = 60000
local NO_CGROUP = "no cgroup with readable memory figures"
local MANY_CGROUPS = "programs have control groups of their own: ask for one process, by ?target=PID"

local PART = json.shape({ "part string", "mb number", "what string" })
local CGROUP = json.shape({ "limit_mb number?", "used_mb number?" })

local function mb(bytes) return json.round(bytes and bytes / MIB) end

--- Resident memory, part by part; the parts sum to `rss_mb` as closely as jemalloc knows them.
local function explain(figures)
  local parts = json.array()
  local function add(part, bytes, what) parts[#parts + 1] = PART({ part = part, mb = mb(bytes), what = what }) end
  local rest = figures.rss_bytes - figures.shared_bytes
  if figures.has_allocator then
    add("heap", figures.allocated_bytes - figures.cached_bytes - figures.sampling_bytes,
      "what the program has allocated and not freed")
    add("thread_caches", figures.cached_bytes, "freed objects that threads keep for their next allocations")
    add("sampling", figures.sampling_bytes,
      "what the extents of sampled small objects add, 16 KiB each and mostly untouched")
    add("fragmentation", figures.active_bytes - figures.allocated_bytes, "free room in pages with live objects")
    add("allocator_metadata", figures.metadata_bytes, "jemalloc's own bookkeeping")
    add("allocator_cache", math.max(0, figures.resident_bytes - figures.active_bytes - figures.metadata_bytes),
      "freed pages that jemalloc has not returned to the system yet")
    rest = rest - math.max(figures.resident_bytes, figures.active_bytes + figures.metadata_bytes)
  end
  add("shared", figures.shared_bytes, "pages of files (code, libraries, mapped files) and shared memory")
  if rest < 0 then
    add("untouched", rest, "allocated, but never written to, so not resident")
  else
    add("other", rest, "stacks, static data, and mappings that are not the allocator's")
  end
  return parts
end

return {
  profiling_route({
    method = "GET",
    path = "/api/profiling/memory",
    summary = "Memory now: resident, heap, growth, and what resident memory consists of",
    fields = {
      "rss_mb number", "heap_mb number?", "virtual_mb number", "resident_mb number?", "shared_mb number",
      "growth_rate_mb_per_sec number?", "threshold_status normal|warning|critical", "warnings string[]",
      "active_mb number?", "metadata_mb number?", "retained_mb number?", "allocator string", "reason string?",
      "growth_rate_reason string?", "cgroup Cgroup?", "cgroup_reason string?", "explain MemoryPart[]",
      Cgroup = CGROUP, MemoryPart = PART,
    },
    report = function(request, app, selected)
      local host, pid = app.host, request.params.target
      local figures = targets.figures(host, pid)
      local allocator, reason = targets.allocator(selected)
      local has = figures.has_allocator
      if not has and not reason then reason = "jemalloc's figures have not been read yet" end
      local growth, growth_reason = trend.rss_slope(host.series(pid, host.now_ms() - WINDOW_MS))
      local is_many = app.host.serves and not pid
      local status, warnings
      if is_many then
        status, warnings = app.checks:thresholds()
      else
        status, warnings = app.thresholds:update(pid or "all", figures.rss_bytes / MIB)
      end
      local cgroup = not is_many and app.cgroup(pid) or nil
      return {
        rss_mb = mb(figures.rss_bytes),
        heap_mb = has and mb(figures.allocated_bytes) or nil,
        virtual_mb = mb(figures.virtual_bytes),
        resident_mb = has and mb(figures.resident_bytes) or nil,
        shared_mb = mb(figures.shared_bytes),
        growth_rate_mb_per_sec = json.round(growth and growth / MIB, 6),
        threshold_status = status,
        warnings = warnings,
        active_mb = has and mb(figures.active_bytes) or nil,
        metadata_mb = has and mb(figures.metadata_bytes) or nil,
        retained_mb = has and mb(figures.retained_bytes) or nil,
        allocator = allocator,
        reason = not has and reason or nil,
        growth_rate_reason = growth_reason,
        cgroup = cgroup and CGROUP({ limit_mb = mb(cgroup.limit_bytes), used_mb = mb(cgroup.used_bytes) }),
        cgroup_reason = not cgroup and (is_many and MANY_CGROUPS or NO_CGROUP) or nil,
        explain = explain(figures),
      }
    end,
  }),
}
