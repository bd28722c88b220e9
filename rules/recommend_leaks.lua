--- What to do about call sites that grow.
local MIB = 2 ^ 20

return {
  api = 1,
  id = "recommendation.growth",
  kind = "recommendation",
  title = "What to do about call sites that grow",
  version = "1",
  needs = { "findings" },
  params = {
    most = { default = 5, min = 1, doc = "recommendations, the steepest growth first" },
    kept = { default = 0.9, min = 0, max = 1, doc = "live share from which nothing seems to be freed at all" },
  },
  check = function(view, params)
    local growing, found = {}, {}
    for _, finding in ipairs(view.findings) do
      if finding.kind == "leak" and finding.site and (finding.verdict == "leak" or finding.verdict == "growing") then
        growing[#growing + 1] = finding
      end
    end
    table.sort(growing, function(a, b)
      if a.score ~= b.score then return (a.score or 0) > (b.score or 0) end
      return a.site.name < b.site.name
    end)
    for i = 1, math.min(#growing, params.most) do
      local finding = growing[i]
      local site = finding.site
      local nothing_freed = (site.survival or 0) >= params.kept
      found[i] = {
        site = site, score = finding.score, severity = finding.severity, confidence = finding.confidence,
        summary = ("Investigate %s for potential memory leak: %.1f MiB live, %.1f MiB/h more; %s"):format(
          site.name, site.inuse_space / MIB, finding.score or 0,
          nothing_freed and "free what it allocates, or give what keeps it a size limit and eviction"
            or "part of it is freed: look at the paths that skip the free, errors first"),
        advice = {
          site.stack and site.stack[2] and ("Begin at its caller, %s"):format(site.stack[2])
            or ("Begin at %s"):format(site.name),
        },
      }
    end
    return found
  end,
}
