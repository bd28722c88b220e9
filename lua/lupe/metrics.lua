--- What `/metrics` tells: the process's memory, allocator and CPU, what bounds it, lupe's own cost and losses,
-- rules, HTTP. All in base units (bytes, seconds), summed over the live processes of the run.
-- @module lupe.metrics

local allocator_state = require("lupe.allocator_state")
local rule_metrics = require("lupe.rule_metrics")
local span_metrics = require("lupe.span_metrics")

local metrics = {}

local function labelled(name, pairs_list)
  local samples = {}
  for i, pair in ipairs(pairs_list) do samples[i] = { pair[2], labels = { { name, pair[1] } } } end
  return samples
end

local function memory_metrics(out, host, figures)
  out:add("lupe_memory_rss_bytes", "gauge", "Resident memory.", figures.rss_bytes)
  out:add("lupe_memory_virtual_bytes", "gauge", "Virtual memory.", figures.virtual_bytes)
  out:add("lupe_memory_shared_bytes", "gauge", "Resident pages of files and of shared memory.", figures.shared_bytes)
  out:add("lupe_threads", "gauge", "Threads.", figures.threads)
  local cgroup = not host.serves and host.cgroup() -- a daemon's programs have one each
  if cgroup then
    out:add("lupe_memory_cgroup_limit_bytes", "gauge", "Memory limit of the control group.", cgroup.limit_bytes)
    out:add("lupe_memory_cgroup_used_bytes", "gauge", "Memory use of the control group.", cgroup.used_bytes)
  end
end

local function allocator_metrics(out, host, figures)
  if figures.has_allocator then
    out:add("lupe_allocator_allocated_bytes", "gauge", "Live bytes of the program.", figures.allocated_bytes)
    out:add("lupe_allocator_active_bytes", "gauge", "Bytes in pages that hold live objects.", figures.active_bytes)
    out:add("lupe_allocator_metadata_bytes", "gauge", "Bytes of its own bookkeeping.", figures.metadata_bytes)
    out:add("lupe_allocator_resident_bytes", "gauge", "Bytes in pages that the allocator keeps resident.",
      figures.resident_bytes)
    out:add("lupe_allocator_mapped_bytes", "gauge", "Bytes in mapped extents.", figures.mapped_bytes)
    out:add("lupe_allocator_retained_bytes", "gauge", "Bytes of address space kept for later use.",
      figures.retained_bytes)
  end
  local state = allocator_state(host)
  if state then
    out:add("lupe_allocator_dirty_bytes", "gauge", "Freed bytes not yet given back.", state.dirty_bytes)
    out:add("lupe_allocator_muzzy_bytes", "gauge", "Freed bytes that the system may take back.", state.muzzy_bytes)
    out:add("lupe_allocator_arenas", "gauge", "Arenas.", state.arena_count)
  end
end

local function process_metrics(out, app)
  local sums = app.totals:update()
  out:add("lupe_cpu_seconds", "counter", "CPU time of the run's processes, ended ones included.",
    labelled("mode", { { "user", sums.user_ns / 1e9 }, { "system", sums.system_ns / 1e9 } }))
  out:add("lupe_page_faults", "counter", "Page faults of the run's processes, ended ones included.",
    labelled("kind", { { "minor", sums.minor_faults }, { "major", sums.major_faults } }))
  local live, ended = 0, 0
  for _, target in ipairs(app.host.targets()) do
    if target.live then live = live + 1 else ended = ended + 1 end
  end
  out:add("lupe_targets", "gauge", "Processes of the run.", labelled("state", { { "live", live }, { "ended", ended } }))
  local figures = app.host.memory()
  if figures then
    memory_metrics(out, app.host, figures)
    allocator_metrics(out, app.host, figures)
  end
end

--- Shares of the last minute's thread time that was not idle, where both profiles are there to tell.
local function bound_samples(app)
  local view = app.views:merged()
  local profile = view and view.profile
  local bound = profile and profile.bound
  if not bound or profile.wall.state ~= "on" then return {} end
  return labelled("part", {
    { "cpu", bound.cpu }, { "io", bound.io }, { "lock", bound.lock }, { "memory", bound.memory },
  })
end

local function profile_metrics(out, app)
  local agent = app.host.profiler().agent
  out:add("lupe_cpu_samples", "counter", "CPU timers that expired, overruns included.", agent.cpu_samples)
  out:add("lupe_wall_looks", "counter", "Looks at what a thread waits for.", agent.wall_looks)
  out:add("lupe_wall_moved", "counter", "Looks at threads that ran on meanwhile, so without a stack.", agent.wall_moved)
  local untimed, unread, drops = 0, 0, 0
  for _, target in ipairs(app.host.targets()) do
    drops = drops + target.sample_drops
    if target.live then
      untimed, unread = untimed + target.threads_untimed, unread + target.threads_unread
    end
  end
  out:add("lupe_threads_untimed", "gauge", "Threads without a CPU timer.", untimed)
  out:add("lupe_threads_unread", "gauge", "Threads whose waits cannot be read.", unread)
  out:add("lupe_unqueued_samples", "gauge", "CPU and wall samples that found no room in lupe.", drops)
  out:add("lupe_bound_ratio", "gauge", "Shares of the last minute's thread time that was not idle.", bound_samples(app))
end

local function own_metrics(out, host)
  local own = host.profiler()
  local agent = own.agent
  out:add("lupe_profiler_cpu_seconds", "counter", "CPU time that profiling costs.", labelled("part", {
    { "hook", agent.hook_ns / 1e9 }, { "handler", agent.handler_ns / 1e9 },
    { "agent_threads", agent.thread_cpu_ns / 1e9 }, { "runtime", own.runtime_cpu_ns / 1e9 },
  }))
  if own.rss_bytes then
    out:add("lupe_profiler_rss_bytes", "gauge", "Resident memory of lupe itself.", own.rss_bytes)
  end
  out:add("lupe_heap_samples", "counter", "Sampled allocations.", agent.heap_samples)
  out:add("lupe_heap_profiles", "counter", "Heap profiles taken.", agent.profiles)
  out:add("lupe_heap_profile_seconds", "counter", "Time spent in writing heap profiles.", agent.profile_ns / 1e9)
  out:add("lupe_heap_profile_interval_seconds", "gauge", "Time between two heap profiles.", own.heap_interval_ms / 1e3)
  out:add("lupe_dropped_records", "counter", "Samples lost because the ring was full.", agent.dropped_records)
  out:add("lupe_truncated_stacks", "counter", "Stacks that could not be followed to their end.", agent.truncated_stacks)
  out:add("lupe_stack_overflows", "counter", "Stacks beyond the memory set aside for them.", own.stack_overflows)
  out:add("lupe_corrupt_records", "counter", "Records that broke their format.", agent.corruptions)
  out:add("lupe_refused_connections", "counter", "Connections of programs that were not taken in, or not kept.",
    own.refused_connections)
  out:add("lupe_worker_starts", "counter", "Worker processes started.", own.worker_starts)
  out:add("lupe_worker_kills", "counter", "Worker processes killed past a deadline.", own.worker_kills)
end

local function by_key(a, b) return a.key < b.key end

local function http_metrics(out, http)
  local requests, durations = {}, {}
  for key, entry in pairs(http.requests) do
    requests[#requests + 1] = {
      entry.count, key = key,
      labels = { { "method", entry.method }, { "route", entry.route }, { "status", entry.status } },
    }
  end
  for route, duration in pairs(http.durations) do
    local labels = { { "route", route } }
    durations[#durations + 1] = { duration.seconds, suffix = "_sum", labels = labels, key = route .. " 2" }
    durations[#durations + 1] = { duration.count, suffix = "_count", labels = labels, key = route .. " 1" }
  end
  table.sort(requests, by_key)
  table.sort(durations, by_key)
  out:add("lupe_http_requests", "counter", "Answered requests.", requests)
  out:add("lupe_http_request_seconds", "summary", "Time from a request to its answer.", durations)
end

--- Writes all families.
-- @param out what `lupe.exposition` made
-- @param app as `lupe.server` builds it
function metrics.write(out, app)
  out:add("lupe_build", "info", "The version of lupe.", { { 1, labels = { { "version", app.host.version } } } })
  out:add("lupe_start_time_seconds", "gauge", "When the run began, in Unix time.", app.host.started_ms / 1000)
  process_metrics(out, app)
  profile_metrics(out, app)
  span_metrics(out, (app.views:merged()))
  own_metrics(out, app.host)
  rule_metrics(app.analysis:rules(), out)
  app.alerts:metrics(out, app.analysis:ids("alert"))
  app.actions:metrics(out)
  app.prover:metrics(out)
  app.reports:metrics(out)
  http_metrics(out, app.http)
end

return metrics
