--- A call site stood still, jumped once, and stood still again.
-- A pool that grew, a table that was rehashed, a file that was loaded: no leak, but who looks for the moment
-- at which memory went up wants to know.
return {
  api = 1,
  id = "pattern.sudden-step",
  kind = "pattern",
  title = "One call site grew in a single step",
  version = "1",
  needs = { "heap.history" },
  params = {
    min_step = { default = 16777216, min = 1, unit = "bytes", doc = "height of the step, at least" },
    min_share = { default = 0.1, min = 0, max = 1, doc = "of all live bytes, at least" },
    min_fit = { default = 0.9, min = 0, max = 1, doc = "share of the variation that the step explains" },
    min_profiles = { default = 8, min = 5, doc = "heap profiles without which nothing is said" },
    most_sites = { default = 50, min = 1, doc = "largest sites looked at" },
  },
  check = function(view, params)
    local findings, total = {}, view.heap.total_inuse_space
    for site in view.heap:sites { by = "inuse_space", min_inuse_space = params.min_step, limit = params.most_sites } do
      local trend = site:trend("inuse_space")
      if trend and trend.profiles >= params.min_profiles and trend.step_ms
        and trend.step_height >= params.min_step and trend.step_height >= params.min_share * total
        and trend.step_fit >= params.min_fit and 1 - trend.step_fit < 0.5 * (1 - trend.line_fit)
        -- From its very first profile on there is no level to step up from.
        and trend.step_ms > trend.from_ms and trend.first > 0 then
        findings[#findings + 1] = {
          site = site, score = trend.step_height, verdict = "bounded", severity = "info", confidence = trend.step_fit,
          summary = ("%s: sudden step of %s, %s after the start"):format(
            site.name, words.bytes(trend.step_height), words.duration(trend.step_ms - view.started_ms)),
          evidence = {
            step_bytes = trend.step_height, step_fit = trend.step_fit,
            seconds_after_start = (trend.step_ms - view.started_ms) / 1000,
          },
        }
      end
    end
    return findings
  end,
}
