--- Live bytes keep growing at one call site.
-- Growth alone is no leak: a cache that fills, a pool that grew once and a program that starts up grow too.
-- What tells a leak apart: it still grows in the last third, at the pace it had, past every height it fell
-- back from, and what was allocated stays. What once grew and stopped is told as `bounded` or `saturating`.
local MIB = 2 ^ 20

local function duration(seconds) return words.duration(seconds * 1000) end

--- What stands against a leak: verdict and reason, or nil.
local function objection(trend, params)
  if trend.fall > 0.5 and trend.new_high < 0.2 then
    return "bounded", ("it fell by %s and has not passed its earlier height"):format(
      words.bytes(trend.fall * (trend.highest - trend.lowest)))
  elseif 1 - trend.step_fit < 0.5 * (1 - math.max(trend.line_fit, trend.exponential_fit)) then
    return "bounded", ("one step of %s explains it better than growth does"):format(words.bytes(trend.step_height))
  elseif trend.late < params.still_growing then
    return "bounded", ("no growth to speak of in the last third of %s"):format(duration(trend.seconds))
  elseif trend.late < params.steady and trend.deceleration > math.max(params.deceleration,
    2 * trend.deceleration_error) then
    return "saturating", ("the second half grew at %.0f %% of the first half's pace"):format(
      100 * math.max(0, 1 - trend.deceleration))
  elseif trend.rises < params.min_rises then
    return "bounded", ("it grew in only %d of %d steps"):format(trend.rises, trend.intervals)
  end
end

--- A site that at its pace should have grown by many samples since it last did, and has not: a cache that is full
-- by now, or a leak whose load has stopped. Nothing told so far says which.
local function standstill(view, site, trend, params)
  local newest = view.heap.ticks[view.heap.profiles].time_ms
  local seconds = site.last_grown_ms and (newest - site.last_grown_ms) / 1000 or 0
  local each = math.max(view.sample_period_bytes, site.inuse_space / math.max(1, site.inuse_objects))
  local missed = trend.slope * MIB / 3600 * seconds / each
  if missed > params.missed_samples and seconds >= 3 * trend.seconds / trend.intervals then
    return ("it has not grown for the last %s"):format(duration(seconds))
  end
end

--- 0..1: sure growth, long enough seen, as steady to the end as its samples can tell, and what it allocates stays.
-- Who frees much is as a rule a cache or a buffer at work, and noisy besides: it takes longer to accuse.
local function confidence(trend, survival, params)
  local seen = 1 - math.exp(-trend.seconds / params.full_trust_seconds)
  local steady = math.sqrt(math.max(0, math.min(1, trend.late + trend.late_error)))
  local kept = survival or 0.5
  local excused = 1 - math.exp(-trend.seconds / params.freed_trust_seconds)
  return trend.confidence * seen * steady * (kept + (1 - kept) * excused)
end

local function severity(bytes, slope, params)
  local mib = bytes / MIB
  if mib >= params.critical_size or slope >= params.critical_growth then return "critical" end
  if mib >= params.high_size or slope >= params.high_growth then return "high" end
  if mib >= params.medium_size or slope >= params.medium_growth then return "medium" end
  return "low"
end

local function significant(trend, params)
  return trend.low > params.min_growth and trend.confidence > params.min_confidence
end

local function reasons_of(site, trend)
  local list = {
    ("from %s to %s in %s, more in %d of %d steps"):format(words.bytes(trend.first), words.bytes(trend.last),
      duration(trend.seconds), trend.rises, trend.intervals),
    ("lately at %.0f %% of its mean pace"):format(100 * trend.late),
  }
  if site.survival then
    list[#list + 1] = ("%.0f %% of the bytes it ever allocated are still live"):format(100 * site.survival)
  end
  return list
end

local function finding(site, trend, params, verdict, objected)
  local sure = confidence(trend, site.survival, params)
  if not verdict then
    verdict = sure >= params.leak_confidence and "leak" or sure >= params.growing_confidence and "growing" or "info"
    if verdict == "info" then objected = ("that it goes on is only %.0f %% sure"):format(100 * sure) end
  end
  local reasons = reasons_of(site, trend)
  if objected then table.insert(reasons, 1, objected) end
  local accused = verdict == "leak" or verdict == "growing"
  return {
    site = site, score = trend.slope, verdict = verdict, confidence = sure, reasons = reasons,
    severity = accused and severity(site.inuse_space, trend.slope, params) or "info",
    summary = ("%s %s: %s"):format(site.name,
      accused and "grows " .. words.rate(trend.slope) or "has grown to " .. words.bytes(site.inuse_space),
      accused and words.bytes(site.inuse_space) .. " live" or objected),
    evidence = {
      slope_mib_per_hour = trend.slope, low_mib_per_hour = trend.low, high_mib_per_hour = trend.high, r = trend.r,
      late = trend.late, deceleration = trend.deceleration, seconds = trend.seconds, profiles = trend.profiles,
      rises = trend.rises, survivors = site.survival,
    },
    advice = accused and { ("Find who should free what %s allocates"):format(site.name) } or nil,
  }
end

return {
  api = 1,
  id = "leak.steady-growth",
  kind = "leak",
  title = "Live bytes grow steadily at one call site",
  version = "1",
  needs = { "heap.history" },
  params = {
    min_growth = { default = 5, min = 0, unit = "MiB/h", doc = "slower growth is not reported" },
    min_inuse_space = { default = 65536, min = 0, unit = "bytes", doc = "smaller sites are not looked at" },
    min_seconds = { default = 10, min = 1, unit = "s", doc = "history without which nothing is said" },
    min_profiles = { default = 8, min = 5, doc = "heap profiles without which nothing is said" },
    warm_up_seconds = { default = 2, min = 0, unit = "s", doc = "of the run's start, left out where enough follows" },
    min_confidence = { default = 0.98, min = 0, max = 1, doc = "how sure it must be that there is growth at all" },
    still_growing = { default = 0.3, min = 0, max = 1, doc = "least pace of the last third, as a share of the whole" },
    steady = { default = 0.7, min = 0, max = 1, doc = "pace of the last third from which nothing saturates" },
    deceleration = { default = 0.3, min = 0, max = 1, doc = "loss of pace from which it saturates" },
    min_rises = { default = 4, min = 1, doc = "steps between profiles in which it grew" },
    leak_confidence = { default = 0.65, min = 0, max = 1, doc = "from here on `leak`, below `growing`" },
    growing_confidence = { default = 0.5, min = 0, max = 1, doc = "below it is only told as observed" },
    full_trust_seconds = { default = 12, min = 1, unit = "s", doc = "in this time trust comes to 63 %" },
    freed_trust_seconds = { default = 60, min = 1, unit = "s", doc = "the same where all of it is freed again" },
    missed_samples = { default = 8, min = 1, doc = "growth missed at its pace from which it stands still: `growing`" },
    most_sites = { default = 100, min = 1, doc = "steepest sites looked at closely" },
    most_observed = { default = 20, min = 0, doc = "of those judged harmless, so many are told" },
    critical_size = { default = 100, unit = "MiB" }, critical_growth = { default = 50, unit = "MiB/h" },
    high_size = { default = 50, unit = "MiB" }, high_growth = { default = 20, unit = "MiB/h" },
    medium_size = { default = 10, unit = "MiB" }, medium_growth = { default = 5, unit = "MiB/h" },
  },
  check = function(view, params)
    local heap, findings = view.heap, {}
    local needed = math.max(params.min_seconds, (params.min_profiles - 1) * heap.interval_ms / 1000)
    if heap.profiles < params.min_profiles or heap.seconds < params.min_seconds then
      return findings, { needed_seconds = needed }
    end
    local since = view.started_ms + params.warm_up_seconds * 1000
    if view.time_ms - since < 2 * needed * 1000 then since = nil end
    -- The screen is a straight line through the whole history: let pass what robust slopes may put higher.
    local steep = { by = "growth", min_inuse_space = params.min_inuse_space, min_growth = params.min_growth / 4,
      limit = params.most_sites }
    local observed = 0
    for site in heap:sites(steep) do
      local trend = site:trend("inuse_space", { since_ms = since })
      if trend and trend.profiles >= params.min_profiles and trend.seconds >= params.min_seconds
        and significant(trend, params) then
        local verdict, objected = objection(trend, params)
        if verdict == "saturating" then
          -- Warm-up and then a steady leak slows down too: where the later part is long enough to be looked at
          -- alone, and is steady, it counts.
          local late = site:trend("inuse_space", { since_ms = trend.from_ms + trend.seconds * 400 })
          if late and late.profiles >= 1.5 * params.min_profiles and late.seconds >= 1.5 * params.min_seconds
            and significant(late, params) and not objection(late, params)
            and late.deceleration < params.deceleration and late.deceleration_error < params.deceleration then
            trend, verdict = late, nil
          end
        end
        local stopped = not verdict and standstill(view, site, trend, params)
        observed = observed + (verdict and 1 or 0)
        if stopped then
          findings[#findings + 1] = finding(site, trend, params, "growing", stopped)
        elseif not verdict or observed <= params.most_observed then
          findings[#findings + 1] = finding(site, trend, params, verdict, verdict and objected or nil)
        end
      end
    end
    return findings
  end,
}
