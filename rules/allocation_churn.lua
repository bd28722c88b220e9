--- A call site allocates much and keeps nothing: work for the allocator that brings no memory to use.
local MIB = 2 ^ 20

return {
  api = 1,
  id = "bottleneck.allocation-churn",
  kind = "bottleneck",
  title = "One call site allocates and frees at a high rate",
  version = "2",
  needs = { "heap" },
  params = {
    min_rate = { default = 20, min = 0, unit = "MiB/s", doc = "mean since the run began, at least" },
    high_rate = { default = 200, min = 0, unit = "MiB/s", doc = "from here on severity is high" },
    min_alloc_space = { default = 67108864, min = 0, unit = "bytes", doc = "allocated in all, at least" },
    max_survival = { default = 0.1, min = 0, max = 1, doc = "live share of it, at most" },
    most_findings = { default = 5, min = 1, doc = "the sites that allocated most" },
  },
  check = function(view, params)
    local findings = {}
    -- When a site began is not known: one that keeps nothing is seen live by chance only.
    local seconds = math.max(1, (view.time_ms - view.started_ms) / 1000)
    for site in view.heap:sites { by = "alloc_space", limit = 4 * params.most_findings } do
      local rate = site.alloc_space / seconds / MIB
      if #findings < params.most_findings and site.alloc_space >= params.min_alloc_space and rate >= params.min_rate
        and (site.survival or 1) <= params.max_survival then
        local size = site.alloc_objects > 0 and site.alloc_space / site.alloc_objects or nil
        findings[#findings + 1] = {
          site = site, score = rate, verdict = "info", severity = rate >= params.high_rate and "high" or "medium",
          summary = ("%s allocates %s/s and keeps %s of it"):format(site.name, words.bytes(rate * MIB),
            words.percent(100 * site.survival)),
          evidence = { mib_per_second = rate, survivors = site.survival, mean_bytes = size },
          advice = { ("Reuse one buffer in %s, or take what it needs from the stack or a pool"):format(site.called) },
        }
      end
    end
    return findings
  end,
}
