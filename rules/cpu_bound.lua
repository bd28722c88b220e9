--- Most of the time that threads are not idle, they compute.
--- The innermost function below which, and not in itself, so much is spent: who calls what is expensive. Where one
-- calls the other and does nothing else, both have the same time, and the stack of the inner one is longer.
local function caller_of_most(profile, min_below)
  local found
  for f in profile:functions { by = "cum_cpu_ns" } do
    if f.cum_cpu_ns < min_below * profile.cpu_ns then break end
    local outer = found and f.cum_cpu_ns == found.cum_cpu_ns and #f.stack < #found.stack
    if f.cum_cpu_ns - f.cpu_ns >= min_below * profile.cpu_ns and not outer then found = f end
  end
  return found
end

--- What the hotspots' own advice does not say: it is about one function each.
local function advice_of(profile, top, params)
  local caller = caller_of_most(profile, params.min_below)
  if caller then
    return {
      ("%.0f %% of the CPU time is spent below %s: call it less often, or spread it over threads"):format(
        caller.cum_cpu_percent, caller.name),
    }
  elseif top and top.cpu_percent < 100 * params.flat then
    return {
      ("No function has more than %.0f %% of the CPU time: a flame graph shows what they are called for"):format(
        top.cpu_percent),
    }
  elseif #profile:threads() == 1 then
    return { "One thread does all the computing: several can share what does not depend on each other" }
  end
  return {}
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
    min_below = { default = 0.5, min = 0, max = 1, doc = "of the CPU time, in what a function calls: that is named" },
    flat = { default = 0.1, min = 0, max = 1, doc = "of the CPU time: with less in each, no function stands out" },
    min_kernel = { default = 0.5, min = 0, max = 1, doc = "of the CPU time, in system calls: that is told" },
  },
  check = function(view, params)
    local profile = view.profile
    local lack = profile:lacks(params.min_samples)
    if lack then return {}, lack end
    local share, busy = profile.bound and profile.bound.cpu, profile.busy_ns / 1e9 / profile.seconds
    if not share or profile.wall.state ~= "on" or share < params.min_share or busy < params.min_busy then return {} end
    local kernel = profile.kernel_ns / profile.cpu_ns
    local top = profile:functions { by = "cpu_ns", limit = 1 } ()
    local who = top and ("; %s has %.0f %% of the CPU time"):format(top.name, top.cpu_percent) or ""
    local where = kernel >= params.min_kernel and ("; %.0f %% of the CPU time is in system calls"):format(100 * kernel)
      or ""
    return {
      {
        score = share, verdict = "info", severity = "medium",
        summary = ("CPU-bound: %.0f %% of the busy thread time is computing%s%s"):format(100 * share, who, where),
        evidence = {
          share = share, busy_threads = busy, cores_used = profile.cpu_ns / 1e9 / profile.seconds,
          kernel_share = kernel, samples = profile.total_samples,
        },
        advice = advice_of(profile, top, params),
      },
    }
  end,
}
