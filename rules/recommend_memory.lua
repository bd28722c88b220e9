--- What to do about memory as a whole: the allocator's share of it, and the limits.
local function about_fragmentation(evidence)
  if evidence.unused_bytes then
    return ("Reduce fragmentation: %s of %s in use is empty; fewer arenas (MALLOC_CONF narenas:N) or "
      .. "a pool for what lives long"):format(
      words.bytes(evidence.unused_bytes), words.bytes(evidence.active_bytes or 0))
  end
  return ("Let jemalloc give %s back: MALLOC_CONF dirty_decay_ms:1000,background_thread:true"):format(
    words.bytes(evidence.unreturned_bytes or 0))
end

local function about_limit(view, evidence)
  local largest
  for site in view.heap:sites { by = "inuse_space", limit = 1 } do largest = site end
  local who = largest and ("; most of the heap is held by %s (%s)"):format(
    largest.name, words.bytes(largest.inuse_space)) or ""
  return ("Bring resident memory (%.1f MiB) below %.14g MiB, or raise the limit%s"):format(
    evidence.rss_mib or 0, evidence.limit_mib or 0, who)
end

return {
  api = 1,
  id = "recommendation.memory",
  kind = "recommendation",
  title = "What to do about memory as a whole",
  version = "1",
  needs = { "findings", "heap" },
  check = function(view)
    local found = {}
    for _, finding in ipairs(view.findings) do
      local evidence = finding.evidence or {}
      local summary
      if finding.rule == "alert.fragmentation" then
        summary = about_fragmentation(evidence)
      elseif finding.rule == "alert.memory-threshold" then
        summary = about_limit(view, evidence)
      end
      if summary then found[#found + 1] = { severity = finding.severity, summary = summary } end
    end
    return found
  end,
}
