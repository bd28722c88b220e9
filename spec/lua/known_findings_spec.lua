require("spec.support")
local known_findings = require("lupe.known_findings")

describe("known findings", function()
  local function of(summary, fields)
    local finding = { rule = "r.a", summary = summary }
    for name, value in pairs(fields or {}) do finding[name] = value end
    return finding
  end

  local function same(a, b)
    return known_findings.key(of(a)) == known_findings.key(of(b))
  end

  it("without a place are the same where only figures and their units differ", function()
    for a, b in pairs({
      ["Resident memory 660.0 MiB is above 650 MiB"] = "Resident memory 1.02 GiB is above 2 GiB",
      ["it uses 512 B (9.5 %); full in 45 s"] = "it uses 1.20 KiB (10 %); full in 3 min 20 s",
      ["grows 821 KiB/s: 1,234 objects"] = "grows -3.00 MiB/min: 1 objects",
      ["5,000/s page faults"] = "12/s page faults",
      ["12MB are free"] = "1GB are free",
    }) do
      assert.is_true(same(a, b), a)
    end
  end)

  it("are other ones where a word or a name differs, be it by a digit", function()
    for a, b in pairs({
      ["worker-1 is busy"] = "worker-2 is busy", ["f1 holds 3 B"] = "f2 holds 3 B",
      ["above the warning limit of 5"] = "above the critical limit of 5",
      ["set dirty_decay_ms:1000"] = "set dirty_decay_ms:10000", ["min is 3"] = "h is 3",
    }) do
      assert.is_false(same(a, b), a)
    end
    assert.is_false(known_findings.key(of("x")) == known_findings.key(of("x", { action = { name = "purge" } })))
  end)

  it("of a function are the same whatever they say, written down or not", function()
    local site = { name = "f", module = "m" }
    local key = known_findings.key(of("grows", { site = site }))
    assert.equal(key, known_findings.key(of("has grown", { hotspot = site })))
    assert.equal(key, known_findings.key(of("x", { component = "f", module = "m" })))
    assert.is_false(key == known_findings.key(of("grows", { site = { name = "g", module = "m" } })))
  end)

  it("of one check are each their own", function()
    local keys = known_findings.keys({ of("tenant 1"), of("tenant 2"), of("other") })
    assert.is_false(keys[1] == keys[2] or keys[2] == keys[3])
    assert.same(keys, known_findings.keys({ of("tenant 5"), of("tenant 7"), of("other") }))
  end)
end)
