--- What to do about the functions that take most time.
-- Optimizing pays where a function has a large part of time that somebody waits for: of a program that is idle nearly
-- always even its hottest function is no matter.
local function level(score, params)
  if score >= params.critical then return "Critical", "critical" end
  if score >= params.high then return "High", "high" end
  if score >= params.medium then return "Medium", "medium" end
end

local function share_of(hotspot)
  local cpu, wall = hotspot.cpu_percent, hotspot.wall_percent
  if cpu and cpu >= (wall or 0) then return ("%.1f%% CPU time"):format(cpu) end
  if wall then return ("%.1f%% wall time, %.1f%% CPU time"):format(wall, cpu or 0) end
end

return {
  api = 1,
  id = "recommendation.bottlenecks",
  kind = "recommendation",
  title = "What to do about the functions that take most time",
  version = "1",
  needs = { "findings", "cpu" },
  params = {
    most = { default = 5, min = 1, doc = "recommendations, the largest impact first" },
    critical = { default = 0.8, min = 0, max = 1, doc = "impact score from which it is critical" },
    high = { default = 0.5, min = 0, max = 1, doc = "impact score from which it is high" },
    medium = { default = 0.3, min = 0, max = 1, doc = "impact score from which it is worth a word" },
    min_busy = {
      default = 0.05, min = 0, unit = "threads",
      doc = "threads that are not idle, on average; below this the program has time enough",
    },
  },
  check = function(view, params)
    local profile, hotspots, found = view.profile, {}, {}
    if profile.seconds == 0 or profile.busy_ns < params.min_busy * profile.seconds * 1e9 then return found end
    for _, finding in ipairs(view.findings) do
      if finding.rule == "bottleneck.hotspot" and finding.hotspot then hotspots[#hotspots + 1] = finding end
    end
    table.sort(hotspots, function(a, b)
      if a.score ~= b.score then return (a.score or 0) > (b.score or 0) end
      return a.hotspot.name < b.hotspot.name
    end)
    for _, finding in ipairs(hotspots) do
      local word, severity = level(finding.score or 0, params)
      local share = share_of(finding.hotspot)
      if word and share and #found < params.most then
        found[#found + 1] = {
          hotspot = finding.hotspot, score = finding.score, severity = severity,
          summary = ("%s: Optimize %s (%s, impact score: %.2f)"):format(word, finding.hotspot.name, share,
            finding.score),
        }
      end
    end
    return found
  end,
}
