--- A function holds more memory than before the deploy: than in the snapshot to compare with, or, where there is none,
-- than so many minutes after the start.
local MIB = 2 ^ 20

local function against_base(view, least, found)
  for change in view.heap:changes { min_change = least } do
    if change.change > 0 and change.significant then
      found(change.site, change.change, change.base_inuse_space, "before the deploy", change.error_bytes)
    end
  end
end

local function against_earlier(view, least, minutes, found)
  local since = view.started_ms + 60000 * minutes
  for site in view.heap:sites { min_inuse_space = least } do
    local trend = site:trend("inuse_space", { since_ms = since })
    if trend and trend.rise >= least and trend.rise > 2 * trend.noise then
      found(site, trend.rise, trend.first, words.duration(view.time_ms - trend.from_ms) .. " ago", trend.noise)
    end
  end
end

return {
  api = 1, id = "pattern.growth-since-deploy", kind = "pattern", needs = { "heap.history" },
  title = "A function holds more memory than before the deploy",
  params = {
    min_growth = { default = 8, min = 0, unit = "MiB", doc = "less is not told" },
    settled_after = { default = 10, min = 0, unit = "min", doc = "of the run; only where there is no such snapshot" },
  },
  check = function(view, params)
    local findings = {}
    local function found(site, growth, before, when, error_bytes)
      findings[#findings + 1] = {
        site = site, score = growth / MIB, severity = growth >= before and "high" or "medium",
        summary = ("%s holds %s more than %s (%s)"):format(site.name, words.bytes(growth), when, words.bytes(before)),
        evidence = { growth_bytes = growth, before_bytes = before, error_bytes = error_bytes },
      }
    end
    if view.base then
      against_base(view, params.min_growth * MIB, found)
    else
      against_earlier(view, params.min_growth * MIB, params.settled_after, found)
    end
    return findings
  end,
}
