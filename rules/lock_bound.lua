--- Most of the time that threads are not idle, they wait for each other's locks.
local function sites_of(profile, count)
  local names = {}
  for f in profile:functions { by = "lock_ns", limit = count } do
    names[#names + 1] = ("%s (%.0f %%, %s)"):format(f.name, 100 * f.lock_ns / profile.lock_ns,
      words.plural(f.lock_threads, "thread"))
  end
  return names[1] and table.concat(names, ", ") or "functions that are not known"
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
    named = { default = 3, min = 1, doc = "functions named" },
  },
  check = function(view, params)
    local profile = view.profile
    local lack = profile:lacks(params.min_samples)
    if lack then return {}, lack end
    local share, busy = profile.bound and profile.bound.lock, profile.busy_ns / 1e9 / profile.seconds
    if not share or share < params.min_share or busy < params.min_busy then return {} end
    local sites = sites_of(profile, params.named)
    local waiting, running = profile.lock_ns / 1e9 / profile.seconds, profile.cpu_ns / 1e9 / profile.seconds
    local advice = {
      ("Do less while the lock is held, or split it by what it protects: %s"):format(sites),
      "What is mostly read needs no lock for reading (a copy that is swapped), and counters can be kept per thread",
    }
    if waiting > 2 * math.max(1, running) then
      advice[3] = ("%.1f threads wait on average while %.1f compute: fewer threads would get as much done"):format(
        waiting, running)
    end
    return {
      {
        score = share, verdict = "info", severity = "high",
        summary = ("Lock-bound: %.0f %% of the busy thread time is waiting for locks, most in %s"):format(100 * share,
          sites),
        evidence = {
          share = share, waiting_threads = waiting, computing_threads = running, samples = profile.total_samples,
        },
        advice = advice,
      },
    }
  end,
}
