--- Most of the time that threads are not idle, they wait for each other's locks.
local function place(profile)
  local f = profile:functions { by = "lock_ns", limit = 1 } ()
  if not f then return "" end
  return (", %.0f %% of that in %s (%s)"):format(100 * f.lock_ns / profile.lock_ns, f.name,
    words.plural(f.lock_threads, "thread"))
end

return {
  api = 1,
  id = "bottleneck.lock-bound",
  kind = "bottleneck",
  title = "Most of the busy time is waiting for locks",
  version = "1",
  needs = { "cpu", "wall" },
  params = {
    min_share = { default = 0.5, min = 0, max = 1, doc = "of thread time that is not idle, at least" },
    min_busy = { default = 0.1, min = 0, unit = "threads", doc = "busy on average; who idles has no bottleneck" },
    min_samples = { default = 100, min = 1, doc = "with 100, a share of one half has a standard error of 5 points" },
    crowd = { default = 2, min = 0, doc = "times as many wait as compute: fewer threads are recommended" },
  },
  check = function(view, params)
    local profile = view.profile
    local lack = profile:lacks(params.min_samples)
    if lack then return {}, lack end
    local share, busy = profile.bound and profile.bound.lock, profile.busy_ns / 1e9 / profile.seconds
    if not share or share < params.min_share or busy < params.min_busy then return {} end
    local waiting, running = profile.lock_ns / 1e9 / profile.seconds, profile.cpu_ns / 1e9 / profile.seconds
    local advice = {
      "Split locks by what they protect; what is mostly read needs none for reading (a copy that is swapped), and "
        .. "counters can be kept per thread",
    }
    if waiting > params.crowd * math.max(1, running) then
      advice[2] = ("%.1f threads wait on average while %.1f compute: fewer threads would get as much done"):format(
        waiting, running)
    end
    return {
      {
        score = share, verdict = "info", severity = "high",
        summary = ("Lock-bound: %.0f %% of the busy thread time is waiting for locks%s"):format(100 * share,
          place(profile)),
        evidence = {
          share = share, waiting_threads = waiting, computing_threads = running, samples = profile.total_samples,
        },
        advice = advice,
      },
    }
  end,
}
