--- A call site grows by large single allocations.
-- Few of them matter: buffers that are doubled, files read whole, one block per connection.
return {
  api = 1,
  id = "pattern.large-allocations",
  kind = "pattern",
  title = "One call site grows by large single allocations",
  version = "2",
  needs = { "heap.history" },
  params = {
    large = { default = 1048576, min = 1, unit = "bytes", doc = "mean size of its live objects, at least" },
    min_growth_bytes = { default = 8388608, min = 0, unit = "bytes", doc = "growth over the history, at least" },
    still_growing = { default = 0.3, min = 0, max = 1, doc = "least pace of the last third, as a share of the whole" },
    min_rises = { default = 2, min = 1, doc = "steps between profiles in which it grew" },
    min_profiles = { default = 8, min = 5, doc = "heap profiles without which nothing is said" },
    most_sites = { default = 50, min = 1, doc = "steepest sites looked at" },
  },
  check = function(view, params)
    local findings = {}
    for site in view.heap:sites { by = "growth", min_inuse_space = params.large, limit = params.most_sites } do
      local size = site.average_size
      local trend = size and size >= params.large and site:trend("inuse_space")
      if trend and trend.profiles >= params.min_profiles and trend.rise >= params.min_growth_bytes
        and trend.rises >= params.min_rises and trend.new_high > 0 and trend.late >= params.still_growing then
        findings[#findings + 1] = {
          site = site, score = trend.rise, verdict = "growing", severity = "medium", confidence = trend.confidence,
          summary = ("%s: grows by large allocations (%s each, %s more in %s)"):format(
            site.name, words.bytes(size), words.bytes(trend.rise), words.duration(1000 * trend.seconds)),
          evidence = { mean_bytes = size, growth_bytes = trend.rise, live_objects = site.inuse_objects },
          advice = { ("Work on pieces in %s, or reuse one buffer, in place of a block per use"):format(site.called) },
        }
      end
    end
    return findings
  end,
}
