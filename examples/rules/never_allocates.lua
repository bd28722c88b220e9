--- A function that must never allocate does, itself or in what it calls: an audio callback, a signal's handler, the hot
-- path of a server. Allocations are sampled: what is found is true, and a few small ones may be missed.
return {
  api = 1, id = "pattern.never-allocates", kind = "pattern", needs = { "heap" },
  title = "A function that must never allocate does",
  params = { names = { default = "", doc = "of the functions, with commas between them" } },
  check = function(view, params)
    local findings = {}
    for name in params.names:gmatch("[^,]+") do
      name = name:match("^%s*(.-)%s*$")
      local bytes, objects, worst = 0, 0, nil
      for site in view.heap:sites { group = "stack", through = name, by = "alloc_space" } do
        bytes, objects = bytes + site.alloc_space, objects + site.alloc_objects
        worst = worst or site
      end
      if bytes > 0 then
        findings[#findings + 1] = {
          site = worst, score = bytes, severity = "high",
          summary = ("%s must not allocate, and did: %s in %s allocations, most of it in %s"):format(name,
            words.bytes(bytes), words.count(objects), worst.name),
          evidence = { bytes = bytes, allocations = objects },
          advice = { "On the way to it: " .. table.concat(worst.stack, " < ") },
        }
      end
    end
    return findings
  end,
}
