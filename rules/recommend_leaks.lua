--- What to do about call sites that grow.
local function what_to_change(finding, params)
  local evidence, survival = finding.evidence or {}, finding.site.survival or 0
  if finding.verdict == "leak" and evidence.proof_state == "proven" then
    return ("Nothing points to %s of it any more: free each before its last pointer goes"):format(
      words.bytes(evidence.proven_bytes))
  end
  if evidence.all_reachable then
    return ("It is held%s, and not lost: give what holds it a size limit and eviction"):format(
      evidence.held_by and " by " .. evidence.held_by or "")
  end
  if survival < params.kept then return "Part of it is freed: look at the paths that skip the free, errors first" end
  return ("%s of it is freed: free it, or give what keeps it a size limit and eviction"):format(
    survival > params.nothing_freed and "Nothing" or "Hardly any")
end

--- @param next_in_stack name of who called the function, or allocates most under the tag; nil: not known
local function where_to_begin(next_in_stack, is_tag)
  if is_tag then return next_in_stack and next_in_stack .. ", which allocates most under it" or "what enters it" end
  return next_in_stack and "its caller, " .. next_in_stack or "the function itself"
end

return {
  api = 1,
  id = "recommendation.growth",
  kind = "recommendation",
  title = "What to do about call sites that grow",
  version = "2",
  needs = { "findings" },
  params = {
    most = { default = 5, min = 1, doc = "recommendations, the steepest growth first" },
    kept = { default = 0.9, min = 0, max = 1, doc = "live share from which hardly anything seems to be freed" },
    nothing_freed = { default = 0.995, min = 0, max = 1, doc = "live share from which it is called nothing" },
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
      local is_tag = site.module == "[tag]"
      local pace = (finding.score or 0) > 0 and (", %s more"):format(words.rate(finding.score)) or ""
      found[i] = {
        site = site, score = finding.score, severity = finding.severity, confidence = finding.confidence,
        summary = ("Investigate %s for potential memory leak: %s live%s. %s. Begin at %s."):format(
          is_tag and "the tag " .. site.name or site.name, words.bytes(site.inuse_space), pace,
          what_to_change(finding, params), where_to_begin(site.stack and site.stack[2], is_tag)),
      }
    end
    return found
  end,
}
