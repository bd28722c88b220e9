--- A made-up program (lupe.view_literal) to try a rule on where nothing else is given: for a minute, one function
-- leaks, one fills a cache and stops, one holds a pool; its threads compute, wait for a lock, and idle.
-- @module lupe.sample_view

local MIB = 2 ^ 20
local TICKS = 60

local leak, cache, pool = {}, {}, {}
for i = 1, TICKS do
  leak[i] = i * MIB
  cache[i] = 24 * MIB * (1 - math.exp(-i / 8))
  pool[i] = 16 * MIB
end

local memory = {}
for i = 1, 12 do
  local allocated = leak[i * 5] + cache[i * 5] + pool[i * 5]
  memory[i] = {
    time_ms = i * 5000, rss_bytes = allocated * 1.3, allocated_bytes = allocated, active_bytes = allocated * 1.1,
    metadata_bytes = 4 * MIB, resident_bytes = allocated * 1.25, threads = 2,
  }
end

return {
  interval_ms = 1000, sample_period_bytes = 524288, memory = memory,
  sites = {
    { name = "remember", history = leak, stack = { "remember", "on_request", "main" } },
    { name = "cache_put", history = cache, alloc_space = 200 * MIB, stack = { "cache_put", "on_request", "main" } },
    { name = "pool_new", history = pool, stack = { "pool_new", "main" } },
  },
  classes = { { size_bytes = 1024, live_count = 61440 }, { size_bytes = 65536, live_count = 640 } },
  profile = {
    threads = { { tid = 1, name = "app" }, { tid = 2, name = "worker" } },
    samples = {
      { stack = { "parse", "on_request", "main" }, thread = 1, state = "user", count = 1800 },
      { stack = { "encode", "work" }, thread = 2, state = "user", count = 600 },
      { stack = { "pthread_mutex_lock", "cache_put", "work" }, thread = 2, state = "waiting", syscall = 202, futex = 0,
        count = 300 },
      { stack = { "epoll_wait", "main" }, thread = 1, state = "waiting", syscall = 232, count = 800 },
    },
  },
}
