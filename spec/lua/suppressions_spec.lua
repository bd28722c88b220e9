require("spec.support")
local suppressions = require("lupe.suppressions")

local DAY_MS = 86400000
local END_OF_JANUARY = 1801440000000 -- 2027-02-01T00:00:00Z

local function one(fields)
  local given = { site = "cache_page", reason = "bounded by max_pages", until_date = "2027-01-31" }
  for name, value in pairs(fields or {}) do given[name] = value or nil end
  return given
end

local function refused(...)
  local list, message = suppressions.check("lupe.conf.lua: suppressions", ...)
  assert.is_nil(list)
  return message
end

describe("suppressions", function()
  local now, logged

  local function new(...)
    local list = assert(suppressions.check("suppressions", { ... }))
    return suppressions.new(list, function() return now end, function(level, text)
      logged[#logged + 1] = level .. ": " .. text
    end)
  end

  local function finding(fields)
    local given = { rule = "leak.steady-growth", component = "cache_page", site = { module = "app" } }
    for name, value in pairs(fields or {}) do given[name] = value end
    return given
  end

  before_each(function() now, logged = END_OF_JANUARY - DAY_MS, {} end)

  for _, case in ipairs({
    { 5, "expected an array of suppressions, got number", "" },
    { one(), "expected an array of suppressions, each in braces of its own, got a table with other keys", "" },
    { { "x" }, "expected a table, got string" },
    { { one({ reson = "x" }) }, "unknown field 'reson', did you mean 'reason'?" },
    { { one({ site = false }) }, "expected a site or a rule, got neither" },
    { { one({ site = 5 }) }, "field 'site': expected string, got number" },
    { { one({ rule = "" }) }, "field 'rule': expected a name, got an empty text" },
    { { one({ module = {} }) }, "field 'module': expected string, got table" },
    { { one({ reason = false }) }, "field 'reason': expected string, got nothing" },
    { { one({ reason = "  " }) }, "field 'reason': expected a reason, got an empty text" },
    { { one({ until_date = false }) }, "field 'until_date': expected string, got nothing" },
    { { one({ until_date = "soon" }) }, "field 'until_date': expected a day such as 2027-01-31, got 'soon'" },
    { { one({ until_date = "2027-02-29" }) },
      "field 'until_date': expected a day such as 2027-01-31, got '2027-02-29'" },
    { { one({ until_date = "2027-13-01" }) },
      "field 'until_date': expected a day such as 2027-01-31, got '2027-13-01'" },
  }) do
    it("are refused with: " .. case[2], function()
      assert.equal("lupe.conf.lua: suppressions" .. (case[3] or "[1]") .. ": " .. case[2], refused(case[1]))
    end)
  end

  it("name the one that is wrong", function()
    assert.equal("lupe.conf.lua: suppressions[2]: field 'reason': expected string, got nothing",
      refused({ one(), one({ reason = false }) }))
  end)

  it("mark what all their names match, and nothing else", function()
    local set = new(one({ rule = "leak.*", module = "ap*" }))
    local found = finding()
    assert.is_true(set:mark(found))
    assert.same({ reason = "bounded by max_pages", until_date = "2027-01-31" }, found.suppressed)
    for field, other in pairs({ rule = "pattern.step", component = "cache_page2", site = { module = "lib" } }) do
      local different = finding({ [field] = other })
      assert.is_false(set:mark(different))
      assert.is_nil(different.suppressed)
    end
    assert.is_false(set:mark({ rule = "leak.steady-growth", summary = "of no site" }))
  end)

  it("take names as they are, but for the star", function()
    local pushed = finding({ component = "std::vector<int>::push_back" })
    assert.is_true(new(one({ site = "std::vector<int>::*" })):mark(pushed))
    assert.is_false(new(one({ site = "cache.page" })):mark(finding()))
    assert.is_true(new(one({ site = false, rule = "*growth" })):mark(finding()))
    assert.is_true(new(one({ site = "work" })):mark(finding({ component = "work", hotspot = { module = "app" } })))
  end)

  it("work until the end of their day, and say once that they have ended", function()
    local set = new(one(), one({ site = "other", until_date = "2030-01-01" }))
    now = END_OF_JANUARY - 1
    assert.is_true(set:mark(finding()))
    assert.same({ {}, false }, { set:expired(), set:due() })
    now = END_OF_JANUARY
    assert.is_false(set:mark(finding()))
    assert.is_true(set:due())
    local text = "suppressions[1]: that of site 'cache_page' ended with 2027-01-31, so it is told again; the reason "
      .. "was: bounded by max_pages"
    assert.same({ text }, set:expired())
    assert.same({ text }, set:expired())
    assert.is_false(set:due())
    assert.same({ "warning: " .. text }, logged)
  end)

  it("know the calendar", function()
    for day, ms in pairs({
      ["1970-01-01"] = DAY_MS, ["2000-02-29"] = 951868800000, ["2024-12-31"] = 1735689600000,
      ["2100-03-01"] = 4107628800000,
    }) do
      now = ms - 1
      local set = new(one({ until_date = day }))
      assert.is_true(set:mark(finding()), day)
      now = ms
      assert.is_false(set:mark(finding()), day)
    end
  end)
end)
