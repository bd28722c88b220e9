--- How long it takes from an edit of a rule's file to the rule in force, with 10,000 call sites in the last snapshot
-- that the new text is tried on: as an editor saves (a new file takes the old one's name), and written in place.
local harness = require("bench.harness")
local support = require("spec.support")

local SITES, EDITS, ASKED_MS = 10000, 20, 300
local POLL_SECONDS = 0.004
local RULE = [[
return {
  api = 1, id = "bench.edited", kind = "pattern", title = "The largest site", version = %q,
  check = function(view)
    local findings = {}
    for site in view.heap:sites { by = "inuse_space", limit = 1 } do
      findings[1] = { site = site, summary = site.name .. " is the largest" }
    end
    return findings
  end,
}
]]

local function version_in_force(lupe)
  for _, rule in ipairs(lupe:get("/api/rules").rules) do
    if rule.id == "bench.edited" then return rule.version end
  end
end

return {
  title = "from an edit on disk to the rule in force",
  run = function()
    local folder = support.temp_dir()
    local path = folder .. "/edited.lua"
    local lupe = harness.start_under_lupe({ harness.program("many_stacks"), SITES, 3600 },
      { "--sample-bytes", 4096, "--rules", folder })
    lupe:await_profile()
    local times_ms = {}
    for i = 1, harness.scaled(EDITS, 2) do
      local version = "edit " .. i
      local target = i % 2 == 0 and path or path .. ".new"
      support.write_file(target, RULE:format(version))
      local began = support.now()
      if target ~= path then assert(os.rename(target, path)) end
      while version_in_force(lupe) ~= version do
        if support.now() - began > 30 then error(version .. " is not in force after 30 s") end
        support.sleep(POLL_SECONDS)
      end
      times_ms[i] = 1000 * (support.now() - began)
      support.sleep(0.1 + 0.037 * (i % 7)) -- edits come at no fixed time of a tick or a profile
    end
    lupe:stop()
    return {
      harness.row("edit on disk to live, median of " .. #times_ms, harness.median(times_ms), "<=", ASKED_MS, "ms"),
      harness.row("edit on disk to live, worst of " .. #times_ms, harness.quantile(times_ms, 1), "<=", ASKED_MS, "ms"),
    }, { times_ms = times_ms, sites = SITES }
  end,
}
