--- Most of the time that threads are not idle, they wait for devices, files and peers.
local function longest(waits)
  for _, wait in ipairs(waits) do
    if wait.class == "io" then return wait end
  end
end

--- Who waits most, and in what.
local function place(profile)
  local f = profile:functions { by = "io_ns", limit = 1 } ()
  if not f then return "" end
  return (", %.0f %% of that in %s (%s)"):format(100 * f.io_ns / profile.io_ns, f.name, longest(f.waits).name)
end

local ADVICE = {
  { "sync", "Write first and sync once for many changes (group commit), or from a thread of its own" },
  { "page fault", "Read what is mapped ahead of time (MAP_POPULATE, madvise), or give the process more memory" },
  { "recv", "Have several requests under way at once, keep connections open, and keep answers that repeat" },
  { "connect", "Keep connections open and reuse them" },
  { "send", "Do not wait for slow receivers: queue, and let epoll say when there is room" },
  { "read", "Read larger blocks, read ahead or in parallel, and keep what is read again and again" },
  { "write", "Write larger blocks, from a thread of its own or by io_uring" },
  { "open", "Keep files open, and look for the file in fewer places" },
  { "stat", "Keep what was learned about files for a while" },
}

local function advice_for(name)
  for _, entry in ipairs(ADVICE) do
    if name:find(entry[1], 1, true) then return entry[2] end
  end
  return "Ask for more at once, or do other work meanwhile"
end

return {
  api = 1,
  id = "bottleneck.io-bound",
  kind = "bottleneck",
  title = "Most of the busy time is waiting for I/O",
  version = "1",
  needs = { "cpu", "wall" },
  params = {
    min_share = { default = 0.5, min = 0, max = 1, doc = "of thread time that is not idle, at least" },
    min_busy = { default = 0.1, min = 0, unit = "threads", doc = "busy on average; who idles has no bottleneck" },
    min_samples = { default = 100, min = 1, doc = "with 100, a share of one half has a standard error of 5 points" },
  },
  check = function(view, params)
    local profile = view.profile
    local lack = profile:lacks(params.min_samples)
    if lack then return {}, lack end
    local share, busy = profile.bound and profile.bound.io, profile.busy_ns / 1e9 / profile.seconds
    if not share or share < params.min_share or busy < params.min_busy then return {} end
    local wait = longest(profile:waits())
    return {
      {
        score = share, verdict = "info", severity = "medium",
        summary = ("I/O-bound: %.0f %% of the busy thread time is waiting for I/O%s"):format(100 * share,
          place(profile)),
        evidence = {
          share = share, waiting_threads = profile.io_ns / 1e9 / profile.seconds, longest_wait = wait.name,
          longest_wait_share = wait.ns / profile.io_ns, samples = profile.total_samples,
        },
        advice = { ("%s (the longest waits are in %s)"):format(advice_for(wait.name), wait.name) },
      },
    }
  end,
}
