--- What a leak proof changes in the verdicts of leak.steady-growth, and of the rules that follow it.
local given = require("spec.rules.support")
local rule = require("lupe.rule")
local sandbox = require("lupe.sandbox")
local support = require("spec.support")
local view_of = require("lupe.view").from_table

local MIB = given.MIB

local function leak(t) return 0.5 * MIB * t end

local function program(history, proof, more)
  local site = { name = "site", history = history, inuse_objects = 5000, stack = { "site", "caller", "main" } }
  for name, value in pairs(more or {}) do site[name] = value end
  local cache = { name = "cache_answer", history = given.history(#history, function() return MIB end) }
  return given.program({ site, cache }, { proofs = proof and { proof } })
end

local function judge(history, of_site, of_proof, params)
  local proof = { registers = 2, sites = { { name = "site" } } }
  for name, value in pairs(of_site or {}) do proof.sites[1][name] = value end
  for name, value in pairs(of_proof or {}) do proof[name] = value end
  local answer = given.run("steady_growth", program(history, of_site and proof), params)
  return given.about(answer, "site"), answer
end

describe("the rule leak.steady-growth, where a leak proof was run,", function()
  local steady = given.sampled(20, leak)
  local alone = judge(steady)

  it("is surer of a leak that is proven, and says so in words", function()
    local found = judge(steady, {
      unreachable = 412, reachable = 8, groups = 401, unreachable_bytes = 9.8 * MIB, bytes = 10 * MIB,
      bytes_variance = (0.5 * MIB / 1.96) ^ 2,
    })
    assert.equal("leak", found.verdict)
    assert.near(1 - 0.05 * (1 - alone.confidence), found.confidence, 1e-9)
    assert.equal("nothing points to 412 of 420 sampled objects: ~9.80 +- 0.50 MiB, 98 % of what lives there; "
      .. "in 401 structures or more", found.reasons[1])
    assert.truthy(found.summary:find("site grows .*, 9.80 MiB of it lost$"), found.summary)
    assert.same({ "proven", 412, 401 },
      { found.evidence.proof_state, found.evidence.unreachable_objects, found.evidence.structures })
    assert.same({ "proven", 401 }, { found.site.proof.state, found.site.proof.groups })
  end)

  it("calls a leak what is proven, where growth alone is too short, harmless or not there", function()
    local proven = { unreachable = 40, reachable = 1 }
    for name, history in pairs({
      short = given.sampled(5, leak),
      bounded = given.history(40, function(t) return math.min(t, 20) * MIB end),
      steady = given.history(40, function() return 8 * MIB end),
    }) do
      local found, answer = judge(history, proven)
      assert.equal("leak", found and found.verdict, name)
      assert.is_true(found.confidence >= 0.95, name)
      assert.truthy(found.reasons[1]:find("^nothing points to 40 of 41"), name)
      assert.equal(name == "short" and "insufficient_data" or "ok", answer.status)
    end
  end)

  it("rates what is lost without growth by its size", function()
    local quiet = given.history(40, function() return 60 * MIB end)
    local found = judge(quiet, { unreachable = 40, reachable = 1 })
    assert.same({ "high", 0 }, { found.severity, found.score })
    assert.equal("site has lost 58.5 MiB: nothing points to it any more", found.summary)
    assert.equal("low", judge(quiet, { unreachable = 40, unreachable_bytes = MIB }).severity)
  end)

  it("rates growth of which little is lost by what is, where the rest is shown reachable", function()
    local far = given.sampled(30, function(t) return 4 * MIB * t end)
    assert.equal("critical", judge(far).severity)
    local little = { unreachable = 5, reachable = 995, groups = 5 }
    local found = judge(far, little)
    assert.same({ "leak", "critical" }, { found.verdict, judge(far, { unreachable = 500, reachable = 500 }).severity })
    assert.near(0.005, found.evidence.lost_share, 1e-9)
    local pace = found.evidence.slope_mib_per_hour * 0.005
    assert.is_true(pace > 50, "the pace is to decide")
    assert.equal("critical", found.severity)
    local slow = { medium_growth = pace - 1, high_growth = pace + 1, critical_growth = pace + 2 }
    assert.equal("medium", judge(far, little, nil, slow).severity)
    slow.medium_growth = pace + 0.5
    assert.equal("low", judge(far, little, nil, slow).severity)
    slow.medium_size = 0.1
    assert.equal("medium", judge(far, little, nil, slow).severity)
  end)

  it("rates growth by all that lives where the rest is not shown reachable, or nothing is proven", function()
    local far = given.sampled(30, function(t) return 4 * MIB * t end)
    local slow = { medium_growth = 1e6, high_growth = 1e6, critical_growth = 1e6 }
    assert.equal("critical", judge(far, nil, nil, slow).severity)
    for about, of_site in pairs({
      ["most is unsettled"] = { unreachable = 5, reachable = 300, unsettled = 695 },
      ["most came since"] = { unreachable = 5, reachable = 995, bytes = 40 * MIB },
      ["too little is lost to count"] = { unreachable = 3, reachable = 997 },
    }) do
      assert.equal("critical", judge(far, of_site, nil, slow).severity, about)
    end
    assert.equal("low", judge(far, { unreachable = 5, reachable = 995 }, nil, slow).severity)
    assert.equal("critical", judge(far, { unreachable = 5, reachable = 995 }, { hidden = { "luajit" } }, slow).severity)
  end)

  it("says how much is proven where one process proves it, and another not", function()
    local literal = program(steady, { registers = 2, pid = 1, sites = { { name = "site", unreachable = 400,
      bytes = 5 * MIB } } })
    literal.targets = { { pid = 1, name = "a" }, { pid = 2, name = "b" } }
    literal.proofs[2] = { pid = 2, hidden = { "luajit" }, sites = literal.proofs[1].sites }
    local found = given.about(given.run("steady_growth", literal), "site")
    assert.equal("leak", found.verdict)
    assert.truthy(found.reasons[1]:find("^nothing was found that points to 800 of 800 sampled objects: ~10%.0 "))
    assert.truthy(found.reasons[1]:find("100 %% of what lives there; in 400 structures or more; 5%.00 MiB of that is "
      .. "proven$"), found.reasons[1])
    assert.truthy(found.summary:find("5.00 MiB of it lost$"), found.summary)
  end)

  it("says nothing of a few lost objects, and no more than it did of what grows", function()
    local quiet = given.history(40, function() return 8 * MIB end)
    assert.is_nil(judge(quiet, { unreachable = 3, reachable = 100 }))
    assert.equal("leak", judge(quiet, { unreachable = 3, reachable = 100 }, nil, { proof_objects = 3 }).verdict)
    assert.is_nil(judge(quiet, { unreachable = 9, unreachable_bytes = 6000 }))
    local found = judge(steady, { unreachable = 3, reachable = 1 })
    assert.same({ alone.verdict, alone.confidence }, { found.verdict, found.confidence })
    assert.truthy(found.reasons[1]:find("^nothing points to 3 of 4"))
  end)

  it("calls growing what can all be reached, and says who holds it", function()
    local found = judge(steady, { reachable = 400, interior = 10, unsettled = 30, holder = "cache_answer" })
    assert.equal("growing", found.verdict)
    assert.near(alone.confidence / 2, found.confidence, 1e-9)
    assert.equal("410 of 440 sampled objects can still be reached, the others are too young to tell; most are held by "
      .. "cache_answer", found.reasons[1])
    assert.same({ "cache_answer", true }, { found.evidence.held_by, found.evidence.all_reachable })
    found = judge(steady, { reachable = 400, holder = "site" })
    assert.equal("all of 400 sampled objects can still be reached; they hold each other", found.reasons[1])
    found = judge(steady, { reachable = 400 })
    assert.equal("all of 400 sampled objects can still be reached; what holds them is not sampled, or a global",
      found.reasons[1])
    assert.is_nil(found.evidence.held_by)
    found = judge(steady, { stack_only = 400 })
    assert.equal("all of 400 sampled objects can still be reached; only threads' stacks lead to them",
      found.reasons[1])
  end)

  it("keeps to the growth where the proof saw only part of what lives now, or could not tell", function()
    for _, of_site in ipairs({
      { reachable = 400, bytes = 5 * MIB }, { reachable = 10, unsettled = 200 }, { unsettled = 200 },
    }) do
      local found = judge(steady, of_site)
      assert.same({ "leak", alone.confidence }, { found.verdict, found.confidence })
      assert.is_nil(found.evidence.all_reachable)
    end
  end)

  it("is less sure of what is only unreferenced, and says why", function()
    local found = judge(steady, { unreachable = 400 }, { hidden = { "luajit" } })
    assert.equal("leak", found.verdict)
    assert.near(1 - 0.5 * (1 - alone.confidence), found.confidence, 1e-9)
    local lost = "^nothing was found that points to 400 of 400 sampled objects: ~[1-9][0-9.]* %+%- "
    assert.truthy(found.reasons[1]:find(lost), found.reasons[1])
    assert.truthy(found.reasons[1]:find(", 100 % of what lives there; in ", 1, true), found.reasons[1])
    assert.same({ 0, found.site.inuse_space, 1 },
      { found.evidence.proven_bytes, found.evidence.lost_bytes, found.evidence.lost_share })
    assert.truthy(found.reasons[2]:find("^LuaJIT keeps"))
    assert.is_nil(found.summary:find("lost", 1, true))
    found = judge(steady, { unreachable = 400, groups = 2 })
    assert.equal("unreferenced", found.evidence.proof_state)
    assert.truthy(found.reasons[2]:find("2 structures", 1, true))
  end)

  it("does not accuse by that alone", function()
    local hidden = { hidden = { "io_uring" } }
    assert.is_nil(judge(given.history(40, function() return 8 * MIB end), { unreachable = 400 }, hidden))
    local found = judge(given.sampled(40, function(t) return 40 * MIB * (1 - math.exp(-t / 7)) end),
      { unreachable = 400 }, hidden)
    assert.equal("info", found.severity)
  end)

  it("says each site once", function()
    local _, answer = judge(steady, { unreachable = 400 })
    assert.equal(1, #answer.findings)
  end)

  it("gives the very same answer where it was refused as where none was asked for", function()
    for _, history in ipairs({ steady, given.sampled(5, leak), given.history(40, function() return MIB end) }) do
      local refused = program(history)
      refused.proofs = { { outcome = "no_memory" } }
      assert.same(given.run("steady_growth", program(history)), given.run("steady_growth", refused))
    end
  end)
end)

describe("a finding's site", function()
  it("has its proof in plain figures, with names in place of other sites", function()
    local source = [[return { api = 1, id = "my.rule", kind = "pattern", title = "t", needs = { "proof" },
      check = function(view)
        local found = {}
        for site in view.proof:sites() do found[#found + 1] = { site = site, summary = site.proof.state } end
        return found
      end }]]
    local loaded = assert(rule.load("my.lua", source, sandbox.new(function() end)))
    local proof = { sites = { { name = "site", unreachable = 5, reachable = 2, holder = "cache_answer" } } }
    local found = rule.run("my.lua", loaded, view_of(program(given.history(9, leak), proof))).findings[1]
    assert.same({ "proven", "cache_answer", "site", 7 },
      { found.summary, found.site.proof.holder, found.site.proof.head, found.site.proof.sampled_objects })
    for _, value in pairs(found.site.proof) do assert.is_true(type(value) ~= "table" or #value == 0) end
  end)

  it("is refused where somebody made its proof up, and badly", function()
    local source = [[return { api = 1, id = "my.rule", kind = "pattern", title = "t", check = function()
      return { { summary = "s", site = { name = "f", proof = { state = "prooven", reasons = {} } } } }
    end }]]
    local loaded = assert(rule.load("my.lua", source, sandbox.new(function() end)))
    local ok, message = pcall(rule.run, "my.lua", loaded, view_of({}))
    assert.is_false(ok)
    assert.truthy(message:find("field 'site.proof.state': expected one of proven, unreferenced", 1, true), message)
  end)
end)

describe("the rule recommendation.growth", function()
  local function said_of(verdict, evidence)
    local finding = {
      rule = "leak.steady-growth", kind = "leak", verdict = verdict, score = 0, severity = "high", summary = "s",
      site = { name = "site", inuse_space = 10 * MIB, stack = { "site", "caller" } }, evidence = evidence,
    }
    local source = assert(support.read_file(support.root .. "/rules/recommend_leaks.lua"))
    local loaded = assert(rule.load("rules/recommend_leaks.lua", source, sandbox.new(function() end)))
    return rule.run("rules/recommend_leaks.lua", loaded, view_of({ findings = { finding } })).findings[1].summary
  end

  it("says what to do about what is lost", function()
    local said = said_of("leak", { proof_state = "proven", proven_bytes = 9 * MIB })
    assert.equal("Investigate site for potential memory leak: 10.0 MiB live. Nothing points to 9.00 MiB of it any "
      .. "more: free each before its last pointer goes. Begin at its caller, caller.", said)
  end)

  it("says what to do about what is held", function()
    local said = said_of("growing", { all_reachable = true, held_by = "cache" })
    assert.truthy(said:find("It is held by cache, and not lost: give what holds it a size limit", 1, true), said)
    assert.truthy(said_of("growing", { all_reachable = true }):find("It is held, and not lost", 1, true))
  end)
end)
