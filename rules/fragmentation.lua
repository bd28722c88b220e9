--- Memory that the allocator holds and the program does not use: pages that are part empty, and pages that
-- are empty but were not given back.
return {
  api = 1,
  id = "alert.fragmentation",
  kind = "alert",
  title = "The allocator holds much more memory than the program uses",
  version = "2",
  needs = { "allocator" },
  params = {
    max_fragmentation = { default = 0.2, min = 0, max = 1, doc = "unused share of the pages in use" },
    high_fragmentation = { default = 0.5, min = 0, max = 1, doc = "from here on severity is high" },
    max_unreturned = { default = 0.3, min = 0, max = 1, doc = "share of resident memory in no page in use" },
    min_bytes = { default = 33554432, min = 0, unit = "bytes", doc = "less than this is nobody's concern" },
  },
  check = function(view, params)
    local a, findings = view.allocator, {}
    if not a or not a.fragmentation or a.resident_bytes <= 0 then return findings end
    local within = a.active_bytes - a.allocated_bytes
    if a.fragmentation > params.max_fragmentation and within >= params.min_bytes then
      findings[#findings + 1] = {
        score = a.fragmentation, verdict = "info",
        severity = a.fragmentation >= params.high_fragmentation and "high" or "medium",
        summary = ("Fragmentation: %.0f %% of the pages in use is empty (%s)"):format(
          100 * a.fragmentation, words.bytes(within)),
        evidence = {
          fragmentation = a.fragmentation, unused_bytes = within, allocated_bytes = a.allocated_bytes,
          active_bytes = a.active_bytes,
        },
        advice = { "Allocate what lives long apart from what does not" },
      }
    end
    local unreturned = a.resident_bytes - a.active_bytes - (a.metadata_bytes or 0)
    if unreturned / a.resident_bytes > params.max_unreturned and unreturned >= params.min_bytes then
      findings[#findings + 1] = {
        score = unreturned / a.resident_bytes, verdict = "info", severity = "low",
        summary = ("Unused pages: %s of resident memory are free, and not given back yet"):format(
          words.bytes(unreturned)),
        evidence = { unreturned_bytes = unreturned, resident_bytes = a.resident_bytes },
        advice = { "Set dirty_decay_ms lower, or background_thread:true, in MALLOC_CONF" },
      }
    end
    return findings
  end,
}
