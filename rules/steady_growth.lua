--- Live bytes keep growing at one call site.
-- Growth alone is no leak: a cache that fills, a pool that grew once and a program that starts up grow too.
-- What tells a leak apart: it still grows in the last third, at the pace it had, past every height it fell
-- back from; or what it falls back to rises, and not because more is asked of it. What once grew and stopped is told as
-- `bounded` or `saturating`, and a few objects that only become larger as `growing`.
-- Where a leak proof was run, it has the last word: what nothing points to is a `leak`, however it grew, and what can
-- all still be reached is at most `growing`.
local MIB = 2 ^ 20
local HARMLESS = { saturating = true, bounded = true }

local function duration(seconds) return words.duration(seconds * 1000) end

--- Even what it comes back to between its ups and downs rises, from one time to the next and to the end.
local function rises_from_below(trend, params)
  return trend.troughs >= params.fewest_troughs and trend.trough_tau >= params.trough_order
    and trend.trough_steadiness >= params.trough_order and trend.trough_late >= params.still_growing
end

--- What stands against a leak: verdict and reason, or nil. A third value where the later part, looked at alone, may
-- tell another story: it grew unevenly, or ever slower.
local function objection(site, trend, params)
  local slower = trend.pace_z < -params.slower_errors
  if trend.fall > params.much_fallen and trend.new_high < params.new_high and not rises_from_below(trend, params) then
    return "bounded", ("it fell by %s and has not passed its earlier height"):format(
      words.bytes(trend.fall * (trend.highest - trend.lowest)))
  elseif 1 - trend.step_fit < params.step_better * (1 - math.max(trend.line_fit, trend.exponential_fit)) then
    return "bounded", ("one step of %s explains it better than growth does"):format(words.bytes(trend.step_height)),
      "uneven"
  elseif trend.late < params.still_growing and slower then
    return "bounded", ("no growth to speak of in the last third of %s"):format(duration(trend.seconds))
  elseif trend.late < params.steady and slower then
    return "saturating", ("the last third grew at %.0f %% of the mean pace"):format(100 * math.max(0, trend.late)),
      "slower"
  elseif (trend.kept_early or 0) > params.kept_at_first and trend.kept_late
    and trend.kept_late < params.kept_less * trend.kept_early then
    return "saturating", ("it kept %.0f %% of what it allocated at first, and %.0f %% lately"):format(
      100 * trend.kept_early, 100 * math.max(0, trend.kept_late))
  elseif (trend.kept_late or 1) < params.mostly_kept and (trend.load_ratio or 1) > params.more_load
    and site.inuse_objects >= params.several and trend.level_ratio < params.load_slack * trend.load_ratio then
    return "bounded", ("it allocates %.1f times as much as at first, and holds %.1f times as much"):format(
      trend.load_ratio, trend.level_ratio)
  elseif trend.rises < params.min_rises then
    return "bounded", ("it grew in only %d of %d steps"):format(trend.rises, trend.intervals), "uneven"
  elseif trend.steady_z < params.steady_errors then
    return "bounded", "its ups and downs are as large as its growth", "uneven"
  end
end

--- Bytes allocated by a site since a time; nil where that is not known.
local function allocated_since(site, time_ms)
  local times, values = site:history("alloc_space")
  local before = 0
  for i, at in ipairs(times) do
    if at <= time_ms then before = values[i] end
  end
  local all = values[#values] or 0
  if all > 0 then return all - before end
end

--- A site that at its pace should have grown by many samples since it last did, and has not. Where it went on
-- allocating it has reached its limit; else its load has stopped, and only after a while that is an end of it.
local function standstill(view, site, trend, params)
  local newest = view.heap.ticks[view.heap.profiles].time_ms
  local seconds = site.last_grown_ms and (newest - site.last_grown_ms) / 1000 or 0
  local each = math.max(view.sample_period_bytes, site.inuse_space / math.max(1, site.inuse_objects))
  local missed = trend.slope * MIB / 3600 * seconds
  if missed <= params.missed_samples * each or seconds < 3 * trend.seconds / trend.intervals then return nil end
  local went_on = (allocated_since(site, site.last_grown_ms) or 0) > missed / 2
  local verdict = went_on and "saturating" or seconds > params.long_stop * trend.seconds and "bounded" or "growing"
  return verdict, ("it has not grown for the last %s%s"):format(duration(seconds),
    went_on and ", and allocates as before" or "")
end

--- A few objects that become larger, such as an array that is resized: they are not lost.
local function resized(site, trend, params)
  if site.inuse_objects >= params.several then return false end
  local objects = site:trend("inuse_objects", { since_ms = trend.from_ms })
  return objects ~= nil and trend.last > params.larger * trend.first and objects.last < params.larger * objects.first
end

--- 0..1: sure growth, long enough seen, as steady to the end as its samples can tell, and what it allocates stays.
-- Who frees much is as a rule a cache or a buffer at work, and noisy besides: it takes longer to accuse.
local function confidence(trend, survival, params)
  local seen = 1 - math.exp(-trend.seconds / params.full_trust_seconds)
  local kept, late = survival or 0.5, trend.late + trend.late_error
  if rises_from_below(trend, params) then
    late = math.max(late, trend.trough_late)
    kept = math.max(kept, 1 - math.exp(-trend.seconds / params.trough_trust_seconds))
  end
  local steady = math.sqrt(math.max(0, math.min(1, late)))
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

local function enough(trend, times, params)
  return trend.profiles >= times * params.min_profiles and trend.seconds >= times * params.min_seconds
end

--- A trend that shows growth, a verdict (nil: nothing stands against a leak) and the reason for it; nothing where
-- there is no growth to speak of.
local function judge(view, site, since, params)
  local trend = site:trend("inuse_space", { since_ms = since })
  if not trend or not enough(trend, 1, params) then return nil end
  local grows = significant(trend, params)
  local verdict, why, open
  if grows then verdict, why, open = objection(site, trend, params) end
  if open or not grows and (trend.fall < params.much_fallen or rises_from_below(trend, params)) then
    -- A start-up, or other traffic, and then a steady leak: where the later part is long enough to be looked at
    -- alone, nothing stands against it, and what is allocated stays, it counts.
    local late = site:trend("inuse_space", { since_ms = trend.from_ms + 1000 * trend.seconds * params.later_from })
    if late and enough(late, params.later_more, params) and significant(late, params)
      and late.steady_z > params.late_errors and (late.kept_late or 1) > params.mostly_kept
      and (open ~= "slower" or math.max(late.deceleration, late.deceleration_error) < params.deceleration)
      and not objection(site, late, params) then
      trend, grows, verdict = late, true, nil
    end
  end
  if not grows then return nil end
  if not verdict then verdict, why = standstill(view, site, trend, params) end
  if not verdict and resized(site, trend, params) then
    verdict = "growing"
    why = ("its objects grow, and not their number (%s): who makes them larger still has them"):format(
      words.count(site.inuse_objects))
  end
  return trend, verdict, why
end

local function reached_of(proof) return proof.reachable + proof.interior + proof.stack_only end

--- Whether a proof saw that what is not lost can be reached: what was not there yet, or came since, may be lost too.
local function rest_is_reachable(site, params)
  local proof = site.proof
  return reached_of(proof) >= params.proof_settled * (proof.sampled_objects - proof.unreachable)
    and proof.total_bytes >= params.proof_settled * site.inuse_space
end

--- Who holds what can all be reached.
local function held_by(site)
  local proof = site.proof
  local holder = proof.holder
  if not holder then
    return proof.stack_only == reached_of(proof) and "only threads' stacks lead to them"
      or "what holds them is not sampled, or a global"
  elseif holder.index == site.index and holder.group == site.group then
    return "they hold each other"
  end
  return ("most are held by %s"):format(holder.name)
end

--- What a leak proof says of a site, as far as it counts here: "proven", "unreferenced" or "reachable", the reason,
-- and what makes less than a proof of it; nothing where it says nothing.
local function proof_of(site, params)
  local proof = site.proof
  if not proof then return nil end
  local sampled = proof.sampled_objects
  if proof.unreachable > 0 then
    local proven = proof.state == "proven"
    local many = proof.unreachable >= params.proof_objects
      and (proven and proof.proven_bytes or proof.lost_bytes) >= params.proof_bytes
    -- Of several processes one may prove it, and another not.
    local partly = proven and proof.proven_bytes < proof.lost_bytes
    local sure = proven and not partly and "nothing points" or "nothing was found that points"
    local why = ("%s to %s of %s: ~%s, %s of what lives there; in %s or more"):format(
      sure, words.count(proof.unreachable), words.plural(sampled, "sampled object"),
      words.estimate(proof.lost_bytes, proof.lost_bytes_error), words.percent(100 * proof.share),
      words.plural(proof.groups, "structure"))
    if partly then why = ("%s; %s of that is proven"):format(why, words.bytes(proof.proven_bytes)) end
    return many and proof.state or "few", why, proof.reasons
  end
  if not rest_is_reachable(site, params) then return nil end
  local reached = reached_of(proof)
  local of = reached == sampled and "all of %s can still be reached" or words.count(reached)
    .. " of %s can still be reached, the others are too young to tell"
  return "reachable", of:format(words.plural(sampled, "sampled object")) .. "; " .. held_by(site)
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

--- How sure it is, the verdict and what stands against a leak, when a proof has said its part.
-- @return those three, and the reason that comes first
local function with_proof(sure, verdict, objected, proof, why, params)
  if proof == "proven" then return 1 - (1 - sure) * (1 - params.proven_trust), "leak", nil, why end
  if proof == "unreferenced" and not HARMLESS[verdict] then
    sure = 1 - (1 - sure) * (1 - params.unreferenced_trust)
  elseif proof == "reachable" and not verdict then
    verdict = sure >= params.growing_confidence and "growing" or "info"
    return sure * params.reachable_trust, verdict, why, nil
  end
  return sure, verdict, objected, why
end

--- Adds to a finding's evidence what a proof found.
local function add_evidence(evidence, proof, all_reachable)
  if not proof then return evidence end
  evidence.all_reachable = all_reachable
  evidence.proof_state, evidence.lost_share, evidence.structures = proof.state, proof.share, proof.groups
  evidence.proven_bytes, evidence.proven_bytes_error = proof.proven_bytes, proof.proven_bytes_error
  evidence.lost_bytes, evidence.lost_bytes_error = proof.lost_bytes, proof.lost_bytes_error
  evidence.sampled_objects, evidence.unreachable_objects = proof.sampled_objects, proof.unreachable
  evidence.held_by = proof.holder and proof.holder.name
  return evidence
end

--- How severe it is that a site grows: of what a proof convicts only as much as is lost counts, where the rest is shown
-- to be in use.
local function severity_of(site, slope, proof, params)
  if proof == "proven" and rest_is_reachable(site, params) then
    return severity(site.proof.lost_bytes, slope * site.proof.share, params)
  end
  return severity(site.inuse_space, slope, params)
end

local function finding(site, trend, params, verdict, objected)
  local sure = confidence(trend, site.survival, params)
  local proof, found, doubts = proof_of(site, params)
  sure, verdict, objected, found = with_proof(sure, verdict, objected, proof, found, params)
  if not verdict then
    verdict = sure >= params.leak_confidence and "leak" or sure >= params.growing_confidence and "growing" or "info"
    if verdict ~= "leak" then objected = ("that it goes on is only %.0f %% sure"):format(100 * sure) end
  end
  local reasons = reasons_of(site, trend)
  for i = #(doubts or {}), 1, -1 do table.insert(reasons, 1, doubts[i]) end
  if found then table.insert(reasons, 1, found) end
  if objected then table.insert(reasons, 1, objected) end
  local accused = verdict == "leak" or verdict == "growing"
  local lost = proof == "proven" and (", %s of it lost"):format(words.bytes(site.proof.proven_bytes)) or ""
  return {
    site = site, score = trend.slope, verdict = verdict, confidence = sure, reasons = reasons,
    severity = accused and severity_of(site, trend.slope, proof, params) or "info",
    summary = ("%s %s: %s"):format(site.name,
      accused and "grows " .. words.rate(trend.slope) or "has grown to " .. words.bytes(site.inuse_space),
      accused and words.bytes(site.inuse_space) .. " live" .. lost or objected),
    evidence = add_evidence({
      slope_mib_per_hour = trend.slope, low_mib_per_hour = trend.low, high_mib_per_hour = trend.high, r = trend.r,
      late = trend.late, deceleration = trend.deceleration, seconds = trend.seconds, profiles = trend.profiles,
      rises = trend.rises, survivors = site.survival, kept_lately = trend.kept_late, load_ratio = trend.load_ratio,
    }, site.proof, proof == "reachable" or nil),
    advice = accused and { ("Find who should free what %s allocates"):format(site.called) } or nil,
  }
end

--- A site that a proof convicts, whatever its growth says; nil where it does not.
local function proven_finding(site, params)
  local proof, why, doubts = proof_of(site, params)
  if proof ~= "proven" then return nil end
  local bytes, reasons = site.proof.proven_bytes, { why }
  for _, doubt in ipairs(doubts) do reasons[#reasons + 1] = doubt end
  return {
    site = site, score = 0, verdict = "leak", confidence = params.proven_trust, reasons = reasons,
    severity = severity(bytes, 0, params),
    summary = ("%s has lost %s: nothing points to it any more"):format(site.name, words.bytes(bytes)),
    evidence = add_evidence({ survivors = site.survival }, site.proof),
    advice = { ("Find who should free what %s allocates"):format(site.called) },
  }
end

--- Those with a proof that no trend has told of.
local function add_proven(view, params, told, findings)
  local added = 0
  for site in view.proof:sites() do
    if site.proof.unreachable == 0 or added >= params.most_sites then return end
    local found = not told[site.index] and proven_finding(site, params)
    if found then findings[#findings + 1], added = found, added + 1 end
  end
end

return {
  api = 1,
  id = "leak.steady-growth",
  kind = "leak",
  title = "Live bytes grow steadily at one call site",
  version = "3",
  needs = { "heap.history", "proof" },
  params = {
    min_growth = { default = 5, min = 0, unit = "MiB/h", doc = "slower growth is not reported" },
    min_inuse_space = { default = 65536, min = 0, unit = "bytes", doc = "smaller sites are not looked at" },
    min_seconds = { default = 10, min = 1, unit = "s", doc = "history without which nothing is said" },
    min_profiles = { default = 8, min = 5, doc = "heap profiles without which nothing is said" },
    warm_up_seconds = { default = 2, min = 0, unit = "s", doc = "of the run's start, left out where enough follows" },
    min_confidence = { default = 0.98, min = 0, max = 1, doc = "how sure it must be that there is growth at all" },
    still_growing = { default = 0.3, min = 0, max = 1, doc = "least pace of the last third, as a share of the whole" },
    steady = { default = 0.85, min = 0, max = 1, doc = "pace of the last third from which nothing saturates" },
    deceleration = { default = 0.4, min = 0, max = 1, doc = "loss of pace from which what slowed down before goes on" },
    slower_errors = { default = 1.7, min = 0, doc = "standard errors from which the last third is slower" },
    steady_errors = { default = 2.3, min = 0, doc = "standard errors by which growth exceeds its own ups and downs" },
    late_errors = { default = 3, min = 0, doc = "the same where only the later part grows steadily" },
    mostly_kept = { default = 0.3, min = 0, max = 1, doc = "of what is allocated; who keeps less may grow by load" },
    load_slack = { default = 1.4, min = 1, doc = "how much faster than its load a site may grow that frees most" },
    several = { default = 8, min = 1, doc = "objects; fewer may be one that is resized again and again" },
    much_fallen = { default = 0.5, min = 0, max = 1, doc = "share of the range; who fell by more must come back" },
    new_high = { default = 0.2, min = 0, max = 1, doc = "how far it must have come past the height it fell from" },
    step_better = { default = 0.5, min = 0, max = 1, doc = "of what a line leaves, what one step leaves at most" },
    kept_at_first = { default = 0.7, min = 0, max = 1, doc = "share kept at first of who frees nothing yet" },
    kept_less = { default = 0.5, min = 0, max = 1, doc = "of that, what is kept lately of who has come to a limit" },
    more_load = { default = 1.1, min = 1, doc = "allocations per second, late / early, from which load is looked at" },
    later_from = { default = 0.4, min = 0, max = 1, doc = "share of the time after which the later part begins" },
    later_more = { default = 1.5, min = 1, doc = "times the least history that the later part must have" },
    larger = { default = 1.5, min = 1, doc = "growth of bytes, and not of their number, of what is resized" },
    fewest_troughs = { default = 5, min = 3, doc = "times without which nothing is said of lowest heights" },
    trough_order = { default = 0.8, min = 0, max = 1, doc = "how orderly the lowest heights rise (Kendall's tau)" },
    trough_trust_seconds = { default = 30, min = 1, unit = "s", doc = "time in which that counts like 63 % kept" },
    min_rises = { default = 4, min = 1, doc = "steps between profiles in which it grew" },
    leak_confidence = { default = 0.65, min = 0, max = 1, doc = "from here on `leak`, below `growing`" },
    growing_confidence = { default = 0.5, min = 0, max = 1, doc = "below it is only told as observed" },
    full_trust_seconds = { default = 13, min = 1, unit = "s", doc = "in this time trust comes to 63 %" },
    freed_trust_seconds = { default = 60, min = 1, unit = "s", doc = "the same where all of it is freed again" },
    long_stop = { default = 0.25, min = 0, max = 1, doc = "share of its time without growth after which it has ended" },
    missed_samples = { default = 8, min = 1, doc = "growth missed at its pace from which it stands still" },
    proof_objects = { default = 4, min = 1, doc = "sampled objects that nothing points to, from which a proof counts" },
    proof_bytes = { default = 65536, min = 0, unit = "bytes", doc = "and the bytes that they stand for" },
    proof_settled = { default = 0.7, min = 0, max = 1, doc = "of what lives now, what it must have seen reachable" },
    proven_trust = { default = 0.95, min = 0, max = 1, doc = "how much of the doubt a proof takes away" },
    unreferenced_trust = { default = 0.5, min = 0, max = 1, doc = "the same where something may hide the pointers" },
    reachable_trust = { default = 0.5, min = 0, max = 1, doc = "confidence left where all can be reached" },
    most_sites = { default = 100, min = 1, doc = "steepest sites looked at closely" },
    most_observed = { default = 20, min = 0, doc = "of those judged harmless, so many are told" },
    critical_size = { default = 100, unit = "MiB" }, critical_growth = { default = 50, unit = "MiB/h" },
    high_size = { default = 50, unit = "MiB" }, high_growth = { default = 20, unit = "MiB/h" },
    medium_size = { default = 10, unit = "MiB" }, medium_growth = { default = 5, unit = "MiB/h" },
  },
  check = function(view, params)
    local heap, findings, told, observed = view.heap, {}, {}, 0
    local needed = math.max(params.min_seconds, (params.min_profiles - 1) * heap.interval_ms / 1000)
    local enough_history = heap.profiles >= params.min_profiles and heap.seconds >= params.min_seconds
    local since = view.started_ms + params.warm_up_seconds * 1000
    if view.time_ms - since < 2 * needed * 1000 then since = nil end
    -- The screen is a straight line through the whole history: let pass what robust slopes may put higher.
    local steep = { by = "growth", min_inuse_space = params.min_inuse_space, min_growth = params.min_growth / 4,
      limit = enough_history and params.most_sites or 0 }
    for site in heap:sites(steep) do
      local trend, verdict, why = judge(view, site, since, params)
      if trend then
        local found = finding(site, trend, params, verdict, why)
        observed = observed + (HARMLESS[found.verdict] and 1 or 0)
        if not HARMLESS[found.verdict] or observed <= params.most_observed then
          findings[#findings + 1], told[site.index] = found, true
        end
      end
    end
    if view.proof then add_proven(view, params, told, findings) end
    return findings, not enough_history and { needed_seconds = needed } or nil
  end,
}
