--- What to do about how call sites allocate: much and often, in crumbs, in lumps.
local SENTENCES = {
  ["bottleneck.allocation-churn"] = function(site, evidence)
    return ("Consider implementing memory pooling for frequent allocations in %s: %s/s pass through it")
      :format(site.name, words.bytes((evidence.mib_per_second or 0) * 2 ^ 20))
  end,
  ["pattern.many-small-objects"] = function(site, evidence)
    return ("Consider implementing memory pooling for frequent small allocations in %s: %s more of %.0f bytes")
      :format(site.name, words.count(evidence.added_objects or 0), evidence.mean_bytes or 0)
  end,
  ["pattern.large-allocations"] = function(site, evidence)
    return ("Large allocations detected in %s: %s each; stream the data, or keep one buffer and reuse it")
      :format(site.name, words.bytes(evidence.mean_bytes or 0))
  end,
  ["pattern.exponential-growth"] = function(site, evidence)
    return ("Put a limit on what %s may hold: it doubles every %s"):format(
      site.name, words.duration(1000 * (evidence.doubling_seconds or 0)))
  end,
}

return {
  api = 1,
  id = "recommendation.allocations",
  kind = "recommendation",
  title = "What to do about how call sites allocate",
  version = "1",
  needs = { "findings" },
  params = { most = { default = 5, min = 1, doc = "recommendations" } },
  check = function(view, params)
    local found = {}
    for _, finding in ipairs(view.findings) do
      local sentence = finding.site and SENTENCES[finding.rule]
      if sentence and #found < params.most then
        found[#found + 1] = {
          site = finding.site, severity = finding.severity, summary = sentence(finding.site, finding.evidence or {}),
        }
      end
    end
    return found
  end,
}
