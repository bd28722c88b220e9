--- The program that the examples of the documentation look at, as a literal table (lupe.view_literal): a server after
-- 30 s, with a leak, a cache that two tenants share, a timer that allocates, and a snapshot from before.
-- @module spec.example_program

local MIB = 2 ^ 20
local STARTED_MS = 1700000000000
local SECONDS = 30
local ENCODE = { name = "encode", file = "src/encode.c", line = 120, definition_line = 98 }
local READ, EPOLL_WAIT = 0, 232

local function each_second(value)
  local list = {}
  for i = 1, SECONDS do list[i] = value(i) end
  return list
end

local function durations()
  local list = {}
  for i = 1, 100 do list[i] = 0.4 * i end
  return list
end

return {
  started_ms = STARTED_MS, sample_period_bytes = 65536, interval_ms = 1000,
  targets = { { pid = 4242, name = "app" } },
  sites = {
    {
      name = "remember_session", history = each_second(function(i) return i * MIB end), alloc_space = 30 * MIB,
      inuse_objects = 15360, alloc_history = each_second(function(i) return i * MIB end),
      stack = { "malloc", { name = "remember_session", file = "src/session.c", line = 53 }, "on_request", "main" },
    },
    {
      name = "load_page", history = each_second(function() return 20 * MIB end), alloc_space = 200 * MIB, stacks = {
        { stack = { "malloc", "load_page", "[tag]!acme", "on_request", "main" }, inuse_space = 15 * MIB },
        { stack = { "malloc", "load_page", "[tag]!globex", "on_request", "main" }, inuse_space = 5 * MIB },
      },
    },
    { name = "inflate", module = "/usr/lib/libz.so.1", history = each_second(function() return 2 * MIB end) },
    {
      name = "format_line", history = each_second(function() return 0 end), alloc_space = 64 * MIB,
      alloc_objects = 1048576, stacks = {
        { stack = { "malloc", "format_line", "on_timer", "main" }, alloc_space = 64 * MIB, alloc_objects = 1048576 },
      },
    },
  },
  memory = each_second(function(i)
    return {
      time_ms = STARTED_MS + 1000 * i, rss_bytes = (45 + i) * MIB, threads = i > 20 and 9 or 8,
      allocated_bytes = (24 + i) * MIB, active_bytes = 60 * MIB, resident_bytes = 64 * MIB, metadata_bytes = MIB,
    }
  end),
  classes = { { size_bytes = 640, live_count = 7000 }, { size_bytes = 2560, live_count = 900 } },
  profile = {
    from_ms = STARTED_MS, to_ms = STARTED_MS + 1000 * SECONDS,
    threads = {
      { tid = 4243, name = "worker-1", switches = 600 }, { tid = 4244, name = "worker-2", switches = 900 },
      { tid = 4242, name = "app", switches = 50 },
    },
    samples = {
      { thread = 1, stack = { ENCODE, "on_request", "main" }, ns = 18e9, count = 1800 },
      { thread = 1, stack = { "hash", "load_page", "on_request", "main" }, ns = 12e9, count = 1200 },
      {
        thread = 2, stack = { "libc.so.6!read", "load_page", "on_request", "main" }, ns = 10e9, count = 200,
        state = "waiting", syscall = READ,
      },
      {
        thread = 3, stack = { "libc.so.6!epoll_wait", "wait_for_work", "main" }, ns = 30e9, count = 600,
        state = "waiting", syscall = EPOLL_WAIT,
      },
    },
  },
  spans = { { name = "request", pid = 4242, durations_ms = durations(), begun_in = "on_request" } },
  proofs = {
    {
      pid = 4242, threads = 3, registers = 2, pause_ms = 6.5, elapsed_ms = 2090, read_bytes = 58 * MIB, scan_ms = 12,
      anonymous_bytes = 60 * MIB, table_bytes = MIB, heap_objects = 24576, heap_bytes = 54 * MIB, sites = {
        {
          name = "remember_session", unreachable = 480, reachable = 9, unsettled = 1, holder = "load_page", held = 6,
          groups = 480, largest_behind = 2,
        },
        { name = "load_page", stack = 1, reachable = 230, interior = 10 },
      },
    },
  },
  allocator = {
    arena_count = 4, dirty_bytes = 3 * MIB, muzzy_bytes = 0, dirty_decay_ms = 10000, muzzy_decay_ms = 0,
    background_thread = false, thread_cache = true,
  },
  cgroup = { limit_bytes = 512 * MIB, used_bytes = 128 * MIB, reclaimable_bytes = 8 * MIB }, cores = 4,
  findings = {
    { rule = "leak.steady-growth", kind = "leak", verdict = "leak", summary = "remember_session grows 1.00 MiB/s" },
  },
  base = {
    started_ms = STARTED_MS - 1e6, sample_period_bytes = 65536,
    sites = {
      { name = "remember_session", inuse_space = 12 * MIB }, { name = "load_page", inuse_space = 20 * MIB },
      { name = "old_index", inuse_space = 8 * MIB },
    },
  },
}
