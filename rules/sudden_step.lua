--- A call site stood still, or was not there at all, jumped once, and stood still again.
-- A pool that grew, a table that was rehashed, a file that was loaded: no leak, but who looks for the moment
-- at which memory went up wants to know.

--- Height and time of a step between two levels of a site.
local function rise(site, params)
  local trend = site:trend("inuse_space")
  if trend and trend.profiles >= params.min_profiles and trend.step_ms
    and trend.step_fit >= params.min_fit and 1 - trend.step_fit < 0.5 * (1 - trend.line_fit) then
    return trend.step_height, trend.step_ms, trend.step_fit
  end
end

--- The same of a site that began late, at its full height: a trend begins where the site does.
local function appearance(site, params)
  local times, values = site:history("inuse_space")
  local at = 1
  while values[at] == 0 do at = at + 1 end
  if at <= params.min_still or #values - at < params.min_still then return nil end
  local height, most = values[at], 0
  for i = at, #values do most = math.max(most, math.abs(values[i] - height)) end
  if most <= (1 - params.min_fit) * height then return height, times[at], 1 - most / height end
end

return {
  api = 1,
  id = "pattern.sudden-step",
  kind = "pattern",
  title = "One call site grew in a single step",
  version = "2",
  needs = { "heap.history" },
  params = {
    min_step = { default = 16777216, min = 1, unit = "bytes", doc = "height of the step, at least" },
    min_share = { default = 0.1, min = 0, max = 1, doc = "of all live bytes, at least" },
    min_fit = { default = 0.9, min = 0, max = 1, doc = "share of the variation that the step explains" },
    min_profiles = { default = 8, min = 5, doc = "heap profiles without which nothing is said" },
    min_still = { default = 5, min = 1, doc = "profiles before and after a new site's step, at least" },
    most_sites = { default = 50, min = 1, doc = "largest sites looked at" },
  },
  check = function(view, params)
    local findings, total = {}, view.heap.total_inuse_space
    for site in view.heap:sites { by = "inuse_space", min_inuse_space = params.min_step, limit = params.most_sites } do
      local height, when_ms, fit = rise(site, params)
      if not height then height, when_ms, fit = appearance(site, params) end
      if height and height >= params.min_step and height >= params.min_share * total then
        findings[#findings + 1] = {
          site = site, score = height, verdict = "bounded", severity = "info", confidence = fit,
          summary = ("%s: sudden step of %s, %s after the start"):format(
            site.name, words.bytes(height), words.duration(when_ms - view.started_ms)),
          evidence = { step_bytes = height, step_fit = fit, seconds_after_start = (when_ms - view.started_ms) / 1000 },
        }
      end
    end
    return findings
  end,
}
