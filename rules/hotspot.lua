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

local function is_named(name) return not name:find("%+0x%x+$") end

local function io_wait(f)
  for _, wait in ipairs(f.waits) do
    if wait.class == "io" then return wait.name end
  end
  return "I/O"
end

--- What most of its time is, and what to do about that there. What helps against waits and copies in general is said
-- once, by the rules about what bounds a program.
local function nature(f, main_share)
  local at = f.line and (" at line %d"):format(f.line) or ""
  local most_in = f.calls[1] and is_named(f.calls[1].name) and (" (most in %s)"):format(f.calls[1].name) or ""
  if f.lock_ns > main_share * f.wall_ns then
    return "waiting for locks", ("Take the lock%s less often, and hold it for a shorter time"):format(at)
  elseif f.io_ns > main_share * f.wall_ns then
    return "waiting for I/O", ("It waits in %s%s: do so less often, or do other work meanwhile"):format(io_wait(f), at)
  elseif f.allocating_ns > main_share * f.cpu_ns then
    return "allocating memory", ("Allocate less often%s"):format(at)
  elseif f.memory_ns > main_share * f.cpu_ns then
    return "moving memory", ("Copy less%s%s"):format(at, most_in)
  elseif f.kernel_ns > main_share * f.cpu_ns then
    return "in the kernel", ("Make fewer system calls%s%s"):format(at, most_in)
  end
  return "computing", f.line and ("Call it less often, or make its hottest line (%d) cheaper"):format(f.line)
    or "Call it less often, or make it cheaper"
end

--- A function without a symbol is found by who calls it.
local function caller_note(f)
  if is_named(f.name) then return "" end
  for i = 2, #f.stack do
    if is_named(f.stack[i]) then return ("; it has no symbol, and is called below %s"):format(f.stack[i]) end
  end
  return "; it has no symbol"
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

local function summary_of(f, profile, kind)
  local place = f.file and f.line and (" (%s:%d)"):format(f.file:match("[^/]*$"), f.line) or ""
  local shares = {}
  local cpu_known, wall_known = profile.cpu.state == "on", profile.wall.state == "on"
  if cpu_known and f.cpu_percent then shares[1] = ("%.1f %% of CPU time"):format(f.cpu_percent) end
  if wall_known and f.wall_percent then
    shares[#shares + 1] = ("%.1f %% of %s"):format(f.wall_percent,
      cpu_known and "busy thread time" or "the waits for I/O and locks")
  end
  return ("%s%s: %s, most of it %s"):format(f.name, place, table.concat(shares, ", "), kind)
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
    min_impact = { default = 0.035, min = 0, max = 1, doc = "less is not told; 0.035 is about 0.5 % of the time" },
    rate = { default = 0.071, min = 0, unit = "1/percent", doc = "how fast impact rises: see the head of this file" },
    full_cpu = { default = 0.5, min = 0.001, unit = "cores", doc = "from here on CPU time weighs in full" },
    critical = { default = 0.8, min = 0, max = 1, doc = "impact from which on severity is critical: 23 % of the time" },
    high = { default = 0.5, min = 0, max = 1, doc = "likewise high: 10 % of the time" },
    medium = { default = 0.2, min = 0, max = 1, doc = "likewise medium: 3 % of the time" },
    main_share = { default = 0.5, min = 0, max = 1, doc = "of a function's time: from here on it is mostly that" },
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
      local kind, advice = nature(f, params.main_share)
      findings[i] = {
        hotspot = f, score = impact, verdict = "info", severity = severity(impact, params),
        confidence = 1 - 1 / math.sqrt(1 + f.samples),
        summary = summary_of(f, profile, kind),
        evidence = {
          cpu_percent = f.cpu_percent, wall_percent = f.wall_percent, cum_cpu_percent = f.cum_cpu_percent,
          cum_wall_percent = f.cum_wall_percent, samples = f.samples, threads = f.threads,
          io_share = share(f.io_ns, f.wall_ns), lock_share = share(f.lock_ns, f.wall_ns),
          memory_share = share(f.memory_ns, f.wall_ns), kernel_share = share(f.kernel_ns, f.wall_ns),
        },
        advice = { advice .. caller_note(f) },
      }
    end
    return findings
  end,
}
