--- Settings of jemalloc that the measurements speak for; each with its figure and the text for MALLOC_CONF.
-- Nothing is said of what a single reading shows: pages that were freed a moment ago are kept on purpose.
local MIB = 2 ^ 20

--- The readings of the last `seconds`, where they reach back so far.
local function recent(memory, seconds)
  local rows, list = memory.rows, {}
  local newest = memory.latest and memory.latest.time_ms or 0
  if #rows == 0 or newest - rows[1].time_ms < 1000 * seconds then return list end
  for _, row in ipairs(rows) do
    if newest - row.time_ms <= 1000 * seconds and row.has_allocator then list[#list + 1] = row end
  end
  return list
end

--- What was held back, free, all that time: bytes.
local function always_unreturned(rows)
  local least
  for _, row in ipairs(rows) do
    local free = row.resident_bytes - row.active_bytes - row.metadata_bytes
    least = math.min(least or free, free)
  end
  return math.max(0, least or 0)
end

local function about_decay(a, params, rows)
  local free = always_unreturned(rows)
  if free < params.min_mib * MIB or free < params.min_share * a.resident_bytes or not a.dirty_decay_ms then return end
  local conf = ("dirty_decay_ms:%d"):format(params.short_decay_ms)
  local why = ("they are kept for %d ms after the last use"):format(a.dirty_decay_ms)
  if a.dirty_decay_ms < 0 then
    conf, why = ("dirty_decay_ms:%d"):format(params.long_decay_ms), "dirty_decay_ms:-1 keeps them for good"
  elseif not a.background_thread then
    conf = ("background_thread:true,dirty_decay_ms:%d"):format(math.min(a.dirty_decay_ms, params.long_decay_ms))
    why = "threads that allocate no more give nothing back, and no background thread does it for them"
  elseif a.dirty_decay_ms <= params.short_decay_ms then
    return
  end
  return {
    summary = ("Let jemalloc give unused pages back: %s (%.0f %% of what it holds) were free for %d s; %s: "
      .. "MALLOC_CONF=%s"):format(words.bytes(free), 100 * free / a.resident_bytes, params.seconds, why, conf),
    evidence = { free_bytes = free, resident_bytes = a.resident_bytes, dirty_decay_ms = a.dirty_decay_ms },
  }
end

local function about_arenas(a, params, _, view)
  local unused, processes = a.active_bytes - a.allocated_bytes, 0
  for _, target in ipairs(view.targets) do processes = processes + (target.live and 1 or 0) end
  if processes == 0 or not a.arena_count or not view.cores then return end
  local arenas = math.min(a.arena_count, view.memory.latest.threads) / processes
  local scattered = unused >= params.min_mib * MIB and (a.fragmentation or 0) >= params.min_share
  if arenas < params.arenas_per_core * view.cores or not scattered then return end
  return {
    summary = ("Have fewer arenas: threads are spread over some %.0f on %d cores, and %s in their pages are empty "
      .. "(%.0f %%): MALLOC_CONF=narenas:%d"):format(arenas, view.cores, words.bytes(unused), 100 * a.fragmentation,
      view.cores),
    evidence = { arenas = arenas, cores = view.cores, unused_bytes = unused, fragmentation = a.fragmentation },
  }
end

local function about_caches(a, params, rows, view)
  local threads, cached = view.memory.latest.threads, nil
  for _, row in ipairs(rows) do cached = math.min(cached or row.cached_bytes, row.cached_bytes) end
  if not a.thread_cache or not cached or threads < params.many_threads then return end
  if cached < params.min_mib * MIB or cached < params.cached_share * a.allocated_bytes then return end
  return {
    summary = ("Have threads keep less: %d threads keep %s of freed objects (%.0f %% of the heap): "
      .. "MALLOC_CONF=tcache_max:%d"):format(threads, words.bytes(cached), 100 * cached / a.allocated_bytes,
      params.tcache_max),
    evidence = { threads = threads, cached_bytes = cached, allocated_bytes = a.allocated_bytes },
  }
end

local function about_faults(a, params, rows, view)
  local faults = rows[1] and view.memory:slope("minor_faults", params.seconds)
  if not faults or faults < params.many_faults then return end
  local eager = a.dirty_decay_ms and a.dirty_decay_ms >= 0 and a.dirty_decay_ms < params.short_decay_ms
  if not eager and a.active_bytes < params.large_mib * MIB then return end
  return {
    summary = eager and ("Keep freed pages a little longer: %.0f page faults a second, and dirty_decay_ms:%d gives "
      .. "pages back that are wanted again: MALLOC_CONF=dirty_decay_ms:%d"):format(faults, a.dirty_decay_ms,
      params.long_decay_ms)
      or ("Use huge pages: %.0f page faults a second in a heap of %s; where the kernel leaves it to the program "
      .. "(/sys/kernel/mm/transparent_hugepage/enabled: madvise): MALLOC_CONF=thp:always,metadata_thp:auto"):format(
      faults, words.bytes(a.active_bytes)),
    evidence = { faults_per_second = faults, active_bytes = a.active_bytes, dirty_decay_ms = a.dirty_decay_ms },
  }
end

return {
  api = 1,
  id = "recommendation.allocator",
  kind = "recommendation",
  title = "Settings of jemalloc that the measurements speak for",
  version = "1",
  needs = { "allocator", "memory", "targets" },
  params = {
    seconds = { default = 120, min = 10, unit = "s", doc = "for so long it must have been so" },
    min_mib = { default = 32, min = 0, unit = "MiB", doc = "less than this is not worth a setting" },
    min_share = { default = 0.25, min = 0, max = 1, doc = "free or empty share of what jemalloc holds" },
    short_decay_ms = { default = 1000, min = 0, max = 86400000, unit = "ms", doc = "dirty_decay_ms that keeps little" },
    long_decay_ms = { default = 10000, min = 0, max = 86400000, unit = "ms", doc = "the most to advise" },
    arenas_per_core = { default = 2, min = 1, doc = "arenas from which fewer are advised" },
    cached_share = { default = 0.1, min = 0, max = 1, doc = "share of the heap in thread caches" },
    many_threads = { default = 8, min = 1, unit = "threads", doc = "whose caches are worth a look" },
    tcache_max = { default = 4096, min = 8, max = 8388608, unit = "bytes", doc = "largest object to keep, as advised" },
    many_faults = { default = 5000, min = 0, unit = "1/s", doc = "page faults that cost time" },
    large_mib = { default = 1024, min = 0, unit = "MiB", doc = "heap that huge pages are good for" },
  },
  check = function(view, params)
    local a, found = view.allocator, {}
    if not a then return found end
    local rows = recent(view.memory, params.seconds)
    for _, about in ipairs({ about_decay, about_arenas, about_caches, about_faults }) do
      local finding = about(a, params, rows, view)
      if finding then
        finding.severity, finding.verdict = "low", "info"
        found[#found + 1] = finding
      end
    end
    return found
  end,
}
