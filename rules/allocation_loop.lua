--- A function spends much of its CPU time in the allocator: it asks for memory, and gives it back, over and over.
return {
  api = 1,
  id = "pattern.allocation-loop",
  kind = "pattern",
  title = "A function spends much of its time in the allocator",
  version = "1",
  needs = { "cpu" },
  params = {
    min_own_share = { default = 0.3, min = 0, max = 1, doc = "of the function's CPU time, callees included" },
    min_share = { default = 0.05, min = 0, max = 1, doc = "of all CPU time, at least" },
    high = { default = 0.25, min = 0, max = 1, doc = "of all CPU time: from here on severity is high" },
    min_busy = { default = 0.1, min = 0, unit = "cores", doc = "used on average; who idles has time enough" },
    min_samples = { default = 200, min = 1, doc = "CPU samples; of 200, one in twenty is 10 +- 3" },
    most_findings = { default = 3, min = 1, doc = "functions, most time in the allocator first" },
  },
  check = function(view, params)
    local profile, findings = view.profile, {}
    local lack = profile:lacks(params.min_samples, "cpu")
    if lack then return {}, lack end
    if profile.cpu_ns < params.min_busy * profile.seconds * 1e9 then return {} end
    for f in profile:functions { by = "allocating_ns", limit = 4 * params.most_findings } do
      local share, own = f.allocating_ns / profile.cpu_ns, f.allocating_ns / f.cum_cpu_ns
      if #findings < params.most_findings and share >= params.min_share and own >= params.min_own_share then
        findings[#findings + 1] = {
          hotspot = f, score = share, verdict = "info", severity = share >= params.high and "high" or "medium",
          summary = ("%s spends %.0f %% of its CPU time in the allocator, %.0f %% of the program's"):format(f.name,
            100 * own, 100 * share),
          evidence = { share = share, own_share = own, allocator_seconds = f.allocating_ns / 1e9 },
          advice = {
            ("Take the allocation out of the loop in %s: one buffer that is reused, or a pool"):format(f.name),
          },
        }
      end
    end
    return findings
  end,
}
