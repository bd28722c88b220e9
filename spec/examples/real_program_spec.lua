--- The examples on a real program, two of them with parameters of the operator's.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

local CONFIG = [[
return {
  rule_params = {
    ["pattern.never-allocates"] = { names = "on_request_bytes, idle" },
    ["pattern.growth-since-deploy"] = { min_growth = 2, settled_after = 0 },
  },
}
]]

describe("the example rules, all of them", function()
  teardown(support.cleanup)

  it("find in made-up programs what the cases beside them say", function()
    local tried = 0
    for _, file in ipairs(require("lupe.ffi").list(support.root .. "/examples/rules")) do
      local name = file:match("^(.*)%.test%.lua$")
      if name then
        local path = support.root .. "/examples/rules/" .. name .. ".lua"
        local done = support.run({ support.built("lupe"), "rules", "test", path })
        assert.equal(0, done.code, done.out .. done.err)
        tried = tried + 1
      end
    end
    assert.is_true(tried >= 3)
  end)

  it("find what a program under lupe does", function()
    local config = support.write_file(support.temp_dir() .. "/lupe.conf.lua", CONFIG)
    local run = lupe_run.start({ support.built("examples/leaky_server"), "--self-drive", 7 },
      { flags = { "--rules", support.root .. "/examples/rules", "--config", config, "--sample-bytes", "32K" } })
    local report, code = run:finish(nil, 60)
    assert.equal(0, code)
    assert.same({}, report.rule_errors)
    local told = table.concat(report.suspicious_patterns, "\n")
    assert.matches("on_request_bytes must not allocate, and did: %S+ %a+ in [%d,]+ allocations, most of it in ", told)
    assert.matches("remember_session holds %S+ MiB more than %S+ s ago", told)
    assert.is_nil(told:find("idle must not", 1, true))
  end)
end)
