--- What to do about memory that has come near to its limits.
local function who_holds_most(view)
  local words_of = ""
  for site in view.heap:sites { by = "inuse_space", limit = 1 } do
    words_of = ("; most of the heap is held by %s (%s)"):format(site.name, words.bytes(site.inuse_space))
  end
  return words_of
end

local SENTENCES = {
  ["alert.memory-threshold"] = function(evidence)
    return ("Bring resident memory (%.1f MiB) below %.14g MiB, or raise the limit"):format(evidence.rss_mib or 0,
      evidence.limit_mib or 0)
  end,
  ["alert.cgroup-limit"] = function(evidence)
    return ("Give the control group more than %.0f MiB, or bring its use (%.0f MiB) down before the kernel ends a "
      .. "process of it"):format(evidence.limit_mib or 0, evidence.used_mib or 0)
  end,
}

return {
  api = 1,
  id = "recommendation.memory",
  kind = "recommendation",
  title = "What to do about memory near its limits",
  version = "2",
  needs = { "findings", "heap" },
  check = function(view)
    local found, who = {}, who_holds_most(view)
    for _, finding in ipairs(view.findings) do
      local sentence = SENTENCES[finding.rule]
      if sentence then
        found[#found + 1] = { severity = finding.severity, summary = sentence(finding.evidence or {}) .. who }
      end
    end
    return found
  end,
}
