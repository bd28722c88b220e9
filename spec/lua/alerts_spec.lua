require("spec.support")
local alerts = require("lupe.alerts")
local exposition = require("lupe.exposition")

local MINUTE = 60000

describe("alerts", function()
  local now, logged, self

  before_each(function()
    now, logged = 1728583200000, {}
    self = alerts.new({
      now_ms = function() return now end, log = function(level, text) logged[#logged + 1] = level .. ": " .. text end,
    }, 300)
  end)

  local function alert(fields)
    local finding = { rule = "alert.a", kind = "alert", severity = "medium", summary = "memory is high" }
    for name, value in pairs(fields or {}) do finding[name] = value end
    return finding
  end

  --- A scheduled check a minute after the last one, with these findings; returns what was logged.
  local function check(findings, options)
    options = options or {}
    now, logged = now + (options.after or MINUTE), {}
    local result = { findings = findings, failed = options.failed or {}, lacking = options.lacking or {} }
    self:update(result, options.scheduled ~= false)
    return logged
  end

  it("are raised once, and cleared by the second scheduled check in a row without them", function()
    assert.same({ "warning: alert raised: memory is high (alert.a)" }, check({ alert() }))
    assert.same({ state = "raised", since_ms = now, notified_ms = now }, self:of(alert()))
    local since = now
    assert.same({}, check({ alert({ summary = "memory is higher" }) }))
    assert.same({}, check({}))
    assert.same({ "clearing", since }, { self:of(alert()).state, self:of(alert()).since_ms })
    assert.same({ "info: alert cleared after 3 min 0 s: memory is higher (alert.a)" }, check({}))
    assert.is_nil(self:of(alert()))
    assert.same({}, self:active())
  end)

  it("do not waver with a figure that does", function()
    check({ alert() })
    for _ = 1, 3 do
      assert.same({}, check({}, { after = 1000 }))
      assert.same({}, check({ alert() }, { after = 1000 }))
    end
    assert.equal("raised", self:of(alert()).state)
  end)

  it("are not cleared by checks that somebody's request brought about", function()
    check({ alert() })
    for _ = 1, 5 do assert.same({}, check({}, { scheduled = false })) end
    assert.equal("raised", self:of(alert()).state)
  end)

  it("are raised by any check", function()
    assert.equal(1, #check({ alert() }, { scheduled = false }))
  end)

  it("remind after each cooldown", function()
    check({ alert() })
    for _ = 1, 4 do assert.same({}, check({ alert() })) end
    assert.same({ "warning: alert still raised after 5 min 0 s: memory is high (alert.a)" }, check({ alert() }))
    for _ = 1, 4 do assert.same({}, check({ alert() })) end
    assert.equal(1, #check({ alert() }))
  end)

  it("speak at once where things get worse, not where they get better", function()
    check({ alert() })
    assert.same({ "warning: alert worse: memory is full (alert.a)" },
      check({ alert({ severity = "critical", summary = "memory is full" }) }))
    assert.same({}, check({ alert() }))
  end)

  it("that come back within the cooldown are raised without a word, and then told if they stay", function()
    check({ alert() })
    check({})
    assert.equal(1, #check({}))
    assert.same({}, check({ alert() }))
    assert.equal("raised", self:of(alert()).state)
    for _ = 1, 3 do assert.same({}, check({ alert() })) end
    assert.same({ "warning: alert raised: memory is high (alert.a)" }, check({ alert() }))
  end)

  it("of which nobody was told are over without a word", function()
    check({ alert() })
    check({})
    check({})
    check({ alert() })
    assert.same({}, check({}))
    assert.same({}, check({}))
  end)

  it("stay as they are where their rule gave no answer", function()
    check({ alert() })
    for _ = 1, 4 do assert.same({}, check({}, { failed = { ["alert.a"] = true } })) end
    assert.equal("raised", self:of(alert()).state)
  end)

  it("stay as they are where their rule asks for more history", function()
    check({ alert() })
    for _ = 1, 4 do assert.same({}, check({}, { lacking = { ["alert.a"] = 30 } })) end
    assert.equal("raised", self:of(alert()).state)
  end)

  it("are told apart by rule and place, and the most urgent of several of one place counts", function()
    local here, there = { site = { name = "f", module = "m" } }, { site = { name = "g", module = "m" } }
    assert.equal(2, #check({ alert(here), alert(there) }))
    assert.same({ { "alert.a", 2 } }, self:active())
    check({ alert({ rule = "alert.b", summary = "low", severity = "low" }),
      alert({ rule = "alert.b", summary = "urgent", severity = "critical" }) })
    assert.same({ "warning: alert raised: urgent (alert.b)" }, logged)
  end)

  it("are findings of kind alert only", function()
    assert.same({}, check({ alert({ kind = "leak" }) }))
    assert.is_nil(self:of(alert({ kind = "leak" })))
  end)

  it("have a metric for each rule", function()
    check({ alert() })
    local out = exposition.new("prometheus")
    self:metrics(out, { "alert.a", "alert.b" })
    local text = table.concat(out.lines, "\n")
    assert.truthy(text:find('lupe_alert_active{rule="alert.a"} 1', 1, true))
    assert.truthy(text:find('lupe_alert_active{rule="alert.b"} 0', 1, true))
  end)

  it("of one program are not cleared by another one's checks, and are over with it", function()
    local function of(pid) return alert({ target = { pid = pid, name = "p" .. pid } }) end
    local function checked(findings, pid)
      now, logged = now + MINUTE, {}
      self:update({ findings = findings, failed = {}, lacking = {} }, true, pid)
      return logged
    end
    assert.same({ "warning: alert raised: memory is high (alert.a, in p7, process 7)" }, checked({ of(7) }, 7))
    assert.equal(1, #checked({ of(8) }, 8))
    for _ = 1, 3 do assert.same({}, checked({ of(8) }, 8)) end
    assert.equal("raised", self:of(of(7)).state)
    logged = {}
    self:ended(7)
    assert.same({ "info: alert over with its program, after 4 min 0 s: memory is high (alert.a, in p7, process 7)" },
      logged)
    assert.is_nil(self:of(of(7)))
    assert.same({ { "alert.a", 1 } }, self:active())
  end)
end)
