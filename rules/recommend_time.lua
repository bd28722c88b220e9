--- What to do about the functions that much of the time is spent in.
-- Of a program that is idle nearly always even the hottest function is no matter: it has time enough.
local WORDS = { critical = "Critical", high = "Important" }

return {
  api = 1,
  id = "recommendation.time",
  kind = "recommendation",
  title = "What to do about where the time goes",
  version = "1",
  needs = { "findings", "cpu" },
  params = {
    most = { default = 5, min = 1, doc = "recommendations, largest impact first" },
    min_busy = { default = 0.1, min = 0, unit = "threads", doc = "busy on average; who idles has no bottleneck" },
  },
  check = function(view, params)
    local profile, hotspots, found = view.profile, {}, {}
    if profile.seconds == 0 or profile.busy_ns < params.min_busy * profile.seconds * 1e9 then return found end
    for _, finding in ipairs(view.findings) do
      if finding.rule == "bottleneck.hotspot" and WORDS[finding.severity] then hotspots[#hotspots + 1] = finding end
    end
    table.sort(hotspots, function(a, b)
      if a.score ~= b.score then return a.score > b.score end
      return a.hotspot.name < b.hotspot.name
    end)
    local waits = profile.cpu.state == "on" and "of busy thread time" or "of the waits for I/O and locks"
    for i = 1, math.min(#hotspots, params.most) do
      local finding = hotspots[i]
      local h = finding.hotspot
      local cpu = h.cpu_percent and h.cpu_percent >= (h.wall_percent or 0) / 2
      found[i] = {
        hotspot = h, score = finding.score, severity = finding.severity,
        summary = ("%s: Optimize %s (%.1f%% %s, impact score: %.2f). %s"):format(WORDS[finding.severity], h.name,
          cpu and h.cpu_percent or h.wall_percent, cpu and "CPU time" or waits, finding.score,
          finding.advice and finding.advice[1] or ""),
      }
    end
    return found
  end,
}
