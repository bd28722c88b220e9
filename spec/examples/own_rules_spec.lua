--- The example of a program with a rule, a module and a route of its own.
local support = require("spec.support")

describe("the example program with its own rule and route", function()
  teardown(support.cleanup)

  it("has its rule judge its memory, and its route answer, in process and over HTTP", function()
    local port = support.free_port()
    local program = support.spawn({ support.built("examples/own_rules"), 60 },
      { env = { LUPE_LISTEN = "127.0.0.1:" .. port, LUPE_HEAP_INTERVAL_SECS = 0.2 } })
    local evaluated, status, body
    support.eventually(function()
      if not program:alive() then error("it ended: " .. program:stderr()) end
      evaluated, status, body = program:stdout():match("^([^\n]+)\n(%d+) ([^\n]+)\n")
      return body
    end, 30, "what it prints")
    assert.equal("200", status)
    evaluated = support.json.decode(evaluated)
    assert.equal("alert.component-budget", evaluated.rule)
    assert.equal(1, #evaluated.findings)
    assert.matches("^The page cache holds 1%d%.%d MiB, and may hold 8%.00 MiB$", evaluated.findings[1].summary)

    for _, parts in ipairs({ support.json.decode(body).parts, support.http(port, "/api/x/budgets").json().parts }) do
      assert.same({ "page cache", "word index" }, { parts[1].part, parts[2].part })
      assert.is_true(parts[1].live_mib > 9 and parts[1].live_mib < 15)
      assert.is_true(parts[2].live_mib > 0.3 and parts[2].live_mib < 3)
    end
    program:kill(15)
    program:wait(10)
  end)
end)
