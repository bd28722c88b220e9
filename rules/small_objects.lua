--- A call site grows by a great many small objects.
-- Each costs its size class's rounding and an entry in some list; together they fragment what they leave.
return {
  api = 1,
  id = "pattern.many-small-objects",
  kind = "pattern",
  title = "One call site grows by many small objects",
  version = "2",
  needs = { "heap.history" },
  params = {
    small = { default = 512, min = 1, unit = "bytes", doc = "mean size of the added objects, at most" },
    min_objects = { default = 10000, min = 1, doc = "objects added over the history" },
    still_growing = { default = 0.3, min = 0, max = 1, doc = "least pace of the last third, as a share of the whole" },
    min_inuse_space = { default = 1048576, min = 0, unit = "bytes", doc = "smaller sites are not looked at" },
    min_profiles = { default = 8, min = 5, doc = "heap profiles without which nothing is said" },
    most_sites = { default = 50, min = 1, doc = "steepest sites looked at" },
  },
  check = function(view, params)
    local findings = {}
    local steep = { by = "growth", min_inuse_space = params.min_inuse_space, limit = params.most_sites }
    for site in view.heap:sites(steep) do
      local bytes, objects = site:trend("inuse_space"), site:trend("inuse_objects")
      if bytes and objects and bytes.profiles >= params.min_profiles and bytes.low > 0 and objects.low > 0
        and bytes.late >= params.still_growing and bytes.new_high > 0 and objects.rise >= params.min_objects
        and bytes.rise / objects.rise <= params.small then
        findings[#findings + 1] = {
          site = site, score = objects.rise, verdict = "growing", severity = "medium",
          confidence = bytes.confidence * objects.confidence,
          summary = ("%s: many small allocations pile up (%s more objects of %.0f bytes, %s live)"):format(
            site.name, words.count(objects.rise), bytes.rise / objects.rise, words.bytes(site.inuse_space)),
          evidence = { added_objects = objects.rise, mean_bytes = bytes.rise / objects.rise, seconds = bytes.seconds },
          advice = { ("Keep the objects of %s in blocks or a pool, and free them together"):format(site.called) },
        }
      end
    end
    return findings
  end,
}
