--- What lupe.conf.lua says about rules, in a whole run.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

local RULE = [[return {
  api = 1, id = "pattern.spec", kind = "pattern", title = "x", params = { word = { default = "default" } },
  check = function(view, params)
    return { { summary = "the word is " .. params.word }, { summary = "known already" } }
  end,
}]]

describe("lupe.conf.lua", function()
  after_each(support.cleanup)

  it("sets params, disables rules and suppresses findings; a request sets params for itself", function()
    local dir = support.temp_dir()
    local rules = dir .. "/rules"
    assert(os.execute("mkdir " .. rules) == 0)
    support.write_file(rules .. "/mine.lua", RULE)
    support.write_file(rules .. "/hidden.lua", (RULE:gsub("pattern.spec", "pattern.hidden")))
    support.write_file(dir .. "/lupe.conf.lua", [[return {
      rule_params = { ["pattern.spec"] = { word = "set" }, ["pattern.nobody"] = { n = 1 } },
      rules_disabled = { "leak.*", "bottleneck.*" },
      suppressions = {
        { rule = "pattern.hid*", reason = "seen, and fine", until_date = "2999-12-31" },
        { rule = "pattern.spec", reason = "for a while", until_date = "2000-01-01" },
      },
    }]])
    local go = dir .. "/go"
    local run = lupe_run.start({ support.fixture("agent_host"), "keep=500,20000", "wait=" .. go },
      { flags = { "--rules", rules }, cwd = dir })
    run:await("/api/profiling/allocations", function(a) return #a.top_allocators > 0 end)

    local answer = run:post("/api/profiling/leak-detection")
    assert.same({ "known already", "the word is set" }, answer.suspicious_patterns)
    assert.equal(2, answer.suppressed)
    assert.same({ "failed", "leak.steady-growth is switched off (rules_disabled)" }, { answer.status, answer.reason })
    answer = run:post("/api/profiling/leak-detection?param.word=now")
    assert.same({ "known already", "the word is now" }, answer.suspicious_patterns)

    local listed = run:get("/api/rules")
    for _, entry in ipairs(listed.rules) do
      local disabled = entry.kind == "leak" or entry.kind == "bottleneck"
      assert.equal(disabled and "disabled" or "active", entry.state, entry.id)
      if entry.id == "pattern.spec" then assert.same({ word = "set" }, entry.set) end
    end
    assert.equal(2, #listed.complaints)
    assert.matches("rule_params: no rule 'pattern.nobody' is in force", listed.complaints[1], 1, true)
    assert.matches("suppressions[2]: that of rule 'pattern.spec' ended with 2000-01-01", listed.complaints[2], 1, true)
    local _, times = run.process:stderr():gsub("suppressions%[2%]", "")
    assert.equal(1, times)

    local reasons = {}
    for _, finding in ipairs(run:get("/api/findings").findings) do
      assert.is_nil(finding.summary:find("is now", 1, true))
      if finding.suppressed ~= support.json.null then reasons[finding.rule] = finding.suppressed.reason end
    end
    assert.same({ ["pattern.hidden"] = "seen, and fine" }, reasons)

    support.write_file(go, "")
    local report = run:finish()
    assert.equal(2, report.suppressed)
    assert.same({ "unknown", "Whether it leaks is not known: leak.steady-growth is switched off (rules_disabled)." },
      { report.answer[1].kind, report.answer[1].text })
    assert.same({ "known already", "the word is set" }, report.suspicious_patterns)
    assert.matches("2 findings suppressed: pattern.hidden (seen, and fine, until 2999-12-31)",
      table.concat(report.notes, "\n"), 1, true)
  end)
end)
