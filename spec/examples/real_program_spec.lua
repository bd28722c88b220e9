--- Two of the examples on a real program, with their parameters changed as a reader would: in a copy of the file.
local example = require("spec.examples.example_rule")
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

describe("the example rules, in a folder of one's own", function()
  teardown(support.cleanup)

  local function copy(folder, name, changes)
    local text = assert(support.read_file(example.path(name)))
    for from, to in pairs(changes) do
      local first, last = text:find(from, 1, true)
      assert(first, name .. " has no " .. from)
      text = text:sub(1, first - 1) .. to .. text:sub(last + 1)
    end
    support.write_file(folder .. "/" .. name .. ".lua", text)
  end

  it("find what a program under lupe does", function()
    local folder = support.temp_dir()
    copy(folder, "never_allocates", { ['names = { default = ""'] = 'names = { default = "on_request_bytes, idle"' })
    copy(folder, "growth_since_deploy", {
      ["min_growth = { default = 8"] = "min_growth = { default = 2",
      ["settled_after = { default = 10"] = "settled_after = { default = 0",
    })
    local run = lupe_run.start({ support.built("examples/leaky_server"), "--self-drive", 7 },
      { flags = { "--rules", folder, "--sample-bytes", "32K" } })
    local report, code = run:finish(nil, 60)
    assert.equal(0, code)
    assert.same({}, report.rule_errors)
    local told = table.concat(report.suspicious_patterns, "\n")
    assert.matches("on_request_bytes must not allocate, and did: %S+ %a+ in [%d,]+ allocations, most of it in ", told)
    assert.matches("remember_session holds %S+ MiB more than %S+ s ago", told)
    assert.is_nil(told:find("idle must not", 1, true))
  end)
end)
