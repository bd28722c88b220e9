--- Most of the time that threads are not idle, they compute.
local function names_of(profile, count)
  local names = {}
  for f in profile:functions { by = "cpu_ns", limit = count } do
    if names[1] and f.cpu_percent < 5 then break end
    names[#names + 1] = ("%s (%.0f %%)"):format(f.name, f.cpu_percent)
  end
  return table.concat(names, ", ")
end

--- The innermost function that at least half is spent below, not in itself: who calls what is expensive. Where one
-- calls the other and does nothing else, both have the same time, and the stack of the inner one is longer.
local function caller_of_most(profile)
  local found
  for f in profile:functions { by = "cum_cpu_ns" } do
    if f.cum_cpu_percent < 50 then break end
    local outer = found and f.cum_cpu_ns == found.cum_cpu_ns and #f.stack < #found.stack
    if f.cpu_ns < f.cum_cpu_ns / 2 and not outer then found = f end
  end
  return found
end

return {
  api = 1,
  id = "bottleneck.cpu-bound",
  kind = "bottleneck",
  title = "Most of the busy time is computing",
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
    local share, busy = profile.bound and profile.bound.cpu, profile.busy_ns / 1e9 / profile.seconds
    if not share or profile.wall.state ~= "on" or share < params.min_share or busy < params.min_busy then return {} end
    local kernel = profile.kernel_ns / profile.cpu_ns
    local caller = caller_of_most(profile)
    local advice = { ("Optimize what takes most: %s"):format(names_of(profile, params.named)) }
    if caller then
      advice[2] = ("%.0f %% of the CPU time is spent below %s: call it less often, or spread it over threads"):format(
        caller.cum_cpu_percent, caller.name)
    end
    if kernel >= 0.5 then
      advice[#advice + 1] = ("%.0f %% of the CPU time is in system calls: make fewer of them"):format(100 * kernel)
    end
    return {
      {
        score = share, verdict = "info", severity = "medium",
        summary = ("CPU-bound: %.0f %% of the busy thread time is computing, most in %s"):format(100 * share,
          names_of(profile, params.named)),
        evidence = {
          share = share, busy_threads = busy, cores_used = profile.cpu_ns / 1e9 / profile.seconds,
          kernel_share = kernel, samples = profile.total_samples,
        },
        advice = advice,
      },
    }
  end,
}
