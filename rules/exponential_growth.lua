--- A call site grows by a share of itself: each interval more than the one before.
-- Retry storms, lists copied into themselves and caches keyed by something unbounded look like this.
return {
  api = 1,
  id = "pattern.exponential-growth",
  kind = "pattern",
  title = "Live bytes of one call site double again and again",
  version = "1",
  needs = { "heap.history" },
  params = {
    min_inuse_space = { default = 1048576, min = 0, unit = "bytes", doc = "smaller sites are not looked at" },
    min_profiles = { default = 10, min = 5, doc = "heap profiles without which nothing is said" },
    min_doublings = { default = 2, min = 1, doc = "doublings that the history must hold" },
    min_fit = { default = 0.9, min = 0, max = 1, doc = "share of the variation that the curve explains" },
    most_sites = { default = 50, min = 1, doc = "steepest sites looked at" },
  },
  check = function(view, params)
    local findings = {}
    local steep = { by = "growth", min_inuse_space = params.min_inuse_space, limit = params.most_sites }
    for site in view.heap:sites(steep) do
      local trend = site:trend("inuse_space")
      if trend and trend.profiles >= params.min_profiles and trend.doubling_seconds
        and trend.seconds / trend.doubling_seconds >= params.min_doublings
        and trend.exponential_fit >= params.min_fit and trend.deceleration < -0.5
        -- Clearly better than a line, and than one step: these leave at least twice as much unexplained.
        and 1 - trend.exponential_fit < 0.5 * (1 - trend.line_fit)
        and 1 - trend.exponential_fit < 0.5 * (1 - trend.step_fit) then
        findings[#findings + 1] = {
          site = site, score = trend.seconds / trend.doubling_seconds, verdict = "growing",
          confidence = trend.exponential_fit * trend.confidence, severity = "high",
          summary = ("%s: Exponential allocation growth detected (%s, doubles every %s)"):format(
            site.name, words.bytes(site.inuse_space), words.duration(1000 * trend.doubling_seconds)),
          evidence = {
            doubling_seconds = trend.doubling_seconds, exponential_fit = trend.exponential_fit,
            line_fit = trend.line_fit, slope_mib_per_hour = trend.slope,
          },
          advice = { ("Find what feeds %s with its own output, and put a limit there"):format(site.called) },
        }
      end
    end
    return findings
  end,
}
