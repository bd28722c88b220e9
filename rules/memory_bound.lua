--- Most of the time that threads are not idle, they move memory or manage it: memcpy and the like, and the allocator.
-- Code that waits for the memory itself (cache misses) computes as far as samples can tell.
local function place(profile)
  local f = profile:functions { by = "memory_ns", limit = 1 } ()
  if not f then return "" end
  return (", %.0f %% of that in %s%s"):format(100 * f.memory_ns / profile.memory_ns, f.name,
    f.calls[1] and (" (%s)"):format(f.calls[1].name) or "")
end

local function who_allocates(profile)
  local f = profile:functions { by = "allocating_ns", limit = 1 } ()
  if not f then return "" end
  return ("; %s asks for most (%.0f %% of the allocator's time)"):format(f.name,
    100 * f.allocating_ns / profile.allocator_ns)
end

local function advice_of(profile, allocator, min_part)
  local advice = {}
  if allocator >= min_part then
    advice[1] = ("Reuse blocks, or take them from a pool%s"):format(who_allocates(profile))
  end
  if 1 - allocator >= min_part then
    advice[#advice + 1] = "Pass references instead of copies, build results in place, and touch each byte once"
  end
  return advice
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
    min_part = { default = 0.2, min = 0, max = 0.5, doc = "of it, in the allocator or outside: that has its advice" },
  },
  check = function(view, params)
    local profile = view.profile
    local lack = profile:lacks(params.min_samples)
    if lack then return {}, lack end
    local share, busy = profile.bound and profile.bound.memory, profile.busy_ns / 1e9 / profile.seconds
    if not share or profile.wall.state ~= "on" or share < params.min_share or busy < params.min_busy then return {} end
    local allocator = profile.allocator_ns / profile.memory_ns
    return {
      {
        score = share, verdict = "info", severity = "medium",
        summary = ("Memory-bound: %.0f %% of the busy thread time is moving or managing memory%s"):format(100 * share,
          place(profile)),
        evidence = {
          share = share, allocator_share = allocator, busy_threads = busy, samples = profile.total_samples,
        },
        advice = advice_of(profile, allocator, params.min_part),
      },
    }
  end,
}
