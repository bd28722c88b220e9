--- One function holds most of the heap: no leak as such, but the first place to save memory.
return {
  api = 1, id = "pattern.one-holder", kind = "pattern", needs = { "heap" },
  title = "One function holds most of the heap",
  params = { share = { default = 0.4, min = 0, max = 1, doc = "of all live bytes, at least" } },
  check = function(view, params)
    local findings = {}
    for site in view.heap:sites { by = "inuse_space", limit = 1 } do
      if site.share >= params.share then
        local summary = ("%s holds %s of the heap"):format(site.name, words.percent(100 * site.share))
        findings[1] = { site = site, score = site.share, summary = summary }
      end
    end
    return findings
  end,
}
