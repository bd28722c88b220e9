--- Most of the time that threads are not idle, they move memory or manage it: memcpy and the like, and the allocator.
-- Code that waits for the memory itself (cache misses) computes as far as samples can tell.
local function sites_of(profile, count)
  local names = {}
  for f in profile:functions { by = "memory_ns", limit = count } do
    local called = f.calls[1]
    names[#names + 1] = ("%s (%.0f %%%s)"):format(f.name, 100 * f.memory_ns / profile.memory_ns,
      called and ", " .. called.name or "")
  end
  return table.concat(names, ", ")
end

local function allocators_of(profile, count)
  local names = {}
  for f in profile:functions { by = "allocating_ns", limit = count } do
    names[#names + 1] = ("%s (%.0f %%)"):format(f.name, 100 * f.allocating_ns / profile.allocator_ns)
  end
  return table.concat(names, ", ")
end

return {
  api = 1,
  id = "bottleneck.memory-bound",
  kind = "bottleneck",
  title = "Most of the busy time is moving or managing memory",
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
    local share, busy = profile.bound and profile.bound.memory, profile.busy_ns / 1e9 / profile.seconds
    if not share or profile.wall.state ~= "on" or share < params.min_share or busy < params.min_busy then return {} end
    local allocator = profile.allocator_ns / profile.memory_ns
    local advice = {}
    if allocator >= 0.2 then
      advice[1] = ("Allocate less often: reuse blocks, or take them from a pool; most is asked for by %s"):format(
        allocators_of(profile, params.named))
    end
    if allocator <= 0.8 then
      advice[#advice + 1] = ("Copy less: pass references, build the result in place, touch each byte once; most in %s")
        :format(sites_of(profile, params.named))
    end
    return {
      {
        score = share, verdict = "info", severity = "medium",
        summary = ("Memory-bound: %.0f %% of the busy thread time is moving or managing memory, most in %s"):format(
          100 * share, sites_of(profile, params.named)),
        evidence = {
          share = share, allocator_share = allocator, busy_threads = busy, samples = profile.total_samples,
        },
        advice = advice,
      },
    }
  end,
}
