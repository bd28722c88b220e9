--- Functions that much of the time is spent in.
--
-- impact = 1 - exp(-0.071 x). x is the mean of two shares in percent: of the CPU time, and of the thread time that is
-- not idle (on a core, in I/O, or waiting for a lock). The one is what it costs, the other what somebody waits for;
-- where only one is known, x is that. A program that hardly uses the CPU is not made better by using less of it: below
-- half a core, the share of the CPU time weighs less in proportion. By this curve a tenth of the time is worth half of
-- all attention, and whether it is 60 % or 90 % makes no difference: first this one. The factor is such that a function
-- with 25.3 % of the CPU time and 30.1 % of the busy time, the example that the API was designed with, has 0.86 (0.83
-- by its CPU time alone), where 0.85 +- 0.02 is asked for.

local function share(part, whole) return whole > 0 and part / whole or 0 end

local function impact_of(f, profile, params)
  local cpu = profile.cpu.state == "on" and f.cpu_percent
  local wall = profile.wall.state == "on" and f.wall_percent
  local x = cpu or wall or 0
  if cpu and wall then
    local weight = math.min(1, profile.cpu_ns / 1e9 / profile.seconds / params.full_cpu)
    x = (weight * cpu + wall) / (weight + 1)
  end
  return 1 - math.exp(-params.rate * x)
end

--- What to do, by what most of its time is.
local function nature(f)
  local where = f.line and ("%s, line %d"):format(f.name, f.line) or f.name
  local call = f.calls[1] and not f.calls[1].name:find("+0x", 1, true) and f.calls[1].name -- one with a name
  if f.lock_ns > f.wall_ns / 2 then
    return "waiting for locks", ("Hold the lock of %s for a shorter time, or split it"):format(where)
  elseif f.io_ns > f.wall_ns / 2 then
    local wait = f.waits[1] and f.waits[1].name or "I/O"
    return "waiting for I/O", ("%s waits in %s: ask for more at once, in parallel, or keep what was read"):format(
      where, wait)
  elseif f.allocating_ns > f.cpu_ns / 2 then
    return "allocating memory", ("Allocate less often in %s: reuse blocks, or take them from a pool"):format(where)
  elseif f.memory_ns > f.cpu_ns / 2 then
    return "moving memory", ("Copy less in %s%s"):format(where, call and (" (most in %s)"):format(call) or "")
  elseif f.kernel_ns > f.cpu_ns / 2 then
    return "in the kernel", ("Make fewer system calls in %s%s"):format(where,
      call and (" (most in %s)"):format(call) or "")
  end
  return "computing", ("Call %s less often, or make its hottest line%s cheaper"):format(f.name,
    f.line and (" (%d)"):format(f.line) or "")
end

--- Functions with most CPU time and those with most of the other, each once.
local function candidates(profile, limit)
  local list, seen = {}, {}
  for _, by in ipairs({ "cpu_ns", "wall_ns" }) do
    for f in profile:functions { by = by, limit = limit } do
      if not seen[f] then
        seen[f], list[#list + 1] = true, f
      end
    end
  end
  return list
end

local function severity(impact, params)
  return impact >= params.critical and "critical" or impact >= params.high and "high"
    or impact >= params.medium and "medium" or "low"
end

local function summary_of(f, kind)
  local place = f.file and f.line and (" (%s:%d)"):format(f.file:match("[^/]*$"), f.line) or ""
  return ("%s%s: %s of CPU time, %s of busy thread time, most of it %s"):format(f.name, place,
    f.cpu_percent and ("%.1f %%"):format(f.cpu_percent) or "unknown",
    f.wall_percent and ("%.1f %%"):format(f.wall_percent) or "unknown", kind)
end

return {
  api = 1,
  id = "bottleneck.hotspot",
  kind = "bottleneck",
  title = "Much of the time is spent in one function",
  version = "1",
  needs = { "cpu", "wall" },
  params = {
    most_findings = { default = 100, min = 1, doc = "functions, largest impact first; routes show less" },
    min_impact = { default = 0.07, min = 0, max = 1, doc = "less is not told; 0.07 is about 1 % of the time" },
    rate = { default = 0.071, min = 0, unit = "1/percent", doc = "how fast impact rises: see the head of this file" },
    full_cpu = { default = 0.5, min = 0.001, unit = "cores", doc = "from here on CPU time weighs in full" },
    critical = { default = 0.8, min = 0, max = 1, doc = "impact from which on severity is critical: 23 % of the time" },
    high = { default = 0.5, min = 0, max = 1, doc = "likewise high: 10 % of the time" },
    medium = { default = 0.2, min = 0, max = 1, doc = "likewise medium: 3 % of the time" },
    min_samples = { default = 100, min = 1, doc = "with 100, a share of 25 % has a standard error of 4 points" },
  },
  check = function(view, params)
    local profile, found, findings = view.profile, {}, {}
    local lack = profile:lacks(params.min_samples)
    if lack then return {}, lack end
    for _, f in ipairs(candidates(profile, 4 * params.most_findings)) do
      local impact = impact_of(f, profile, params)
      if impact >= params.min_impact then found[#found + 1] = { f = f, impact = impact } end
    end
    table.sort(found, function(a, b)
      if a.impact ~= b.impact then return a.impact > b.impact end
      return a.f.name .. "\0" .. a.f.module < b.f.name .. "\0" .. b.f.module
    end)
    for i = 1, math.min(#found, params.most_findings) do
      local f, impact = found[i].f, found[i].impact
      local kind, advice = nature(f)
      findings[i] = {
        hotspot = f, score = impact, verdict = "info", severity = severity(impact, params),
        confidence = 1 - 1 / math.sqrt(1 + f.samples),
        summary = summary_of(f, kind),
        evidence = {
          cpu_percent = f.cpu_percent, wall_percent = f.wall_percent, cum_cpu_percent = f.cum_cpu_percent,
          cum_wall_percent = f.cum_wall_percent, samples = f.samples, threads = f.threads,
          io_share = share(f.io_ns, f.wall_ns), lock_share = share(f.lock_ns, f.wall_ns),
          memory_share = share(f.memory_ns, f.wall_ns), kernel_share = share(f.kernel_ns, f.wall_ns),
        },
        advice = { advice },
      }
    end
    return findings
  end,
}
