require("spec.support")
local config = require("lupe.config")
local fake = require("spec.fake_host")
local json = require("lupe.json")
local report = require("lupe.report")
local text_report = require("lupe.text_report")
local view = require("lupe.view")

local MIB = 2 ^ 20
local STACK = { "session_open", "on_request", "on_read", "main" }

local function ramp(count, from, to)
  local list = {}
  for i = 1, count do list[i] = from + (to - from) * (i - 1) / (count - 1) end
  return list
end

local function a_view(proofs)
  return view.from_table({
    proofs = proofs,
    started_ms = 1728583180000, interval_ms = 1000, sample_period_bytes = 524288,
    sites = {
      {
        name = "session_open", module = "/usr/bin/server", history = ramp(20, MIB, 25 * MIB), inuse_objects = 25600,
        alloc_space = 25 * MIB, stack = STACK,
      },
      {
        name = "cache_put", module = "/usr/bin/server", history = ramp(20, MIB, MIB), inuse_objects = 10,
        stack = { "cache_put", "on_request", "main" },
      },
    },
    allocated = ramp(20, 2.5 * MIB, 26 * MIB),
    memory = {
      {
        time_ms = 1, rss_bytes = 45 * MIB, allocated_bytes = 26 * MIB, active_bytes = 32 * MIB,
        metadata_bytes = 3 * MIB, resident_bytes = 40 * MIB,
      },
    },
  })
end

local function leak(fields)
  local finding = {
    kind = "leak", rule = "leak.steady-growth", verdict = "leak", severity = "critical", confidence = 0.85,
    summary = "session_open grows", reasons = { "more in 19 of 19 steps" }, advice = { "Free it" },
    evidence = { slope_mib_per_hour = 4547.4, survivors = 1 },
    site = {
      name = "session_open", module = "server", inuse_space = 25 * MIB, inuse_objects = 25600, stack = STACK,
      first_seen_ms = 1728583181000, last_grown_ms = 1728583200000,
    },
  }
  for name, value in pairs(fields or {}) do finding[name] = value end
  return finding
end

local function assemble(given)
  given = given or {}
  local host = fake.new({ started_ms = 1728583180000 })
  for name, value in pairs(given.host or {}) do host[name] = value end
  local info = { pid = 100, exit_code = 0, connected = true }
  for name, value in pairs(given.info or {}) do info[name] = value end
  local result = { findings = given.findings or { leak() }, errors = given.errors or {}, status = given.status or "ok",
    reason = given.reason, needed_seconds = given.needed_seconds }
  local one = given.no_view and nil or a_view(given.proofs)
  return report.assemble({ host = host, config = host.config }, info, one, result)
end

local PROOFS = {
  {
    pause_ms = 6.5, read_bytes = 58 * MIB, unreachable_bytes = 24.5 * MIB, unreachable_objects = 25088, sites = {
      { name = "session_open", unreachable = 412, reachable = 8, groups = 401 },
      { name = "cache_put", reachable = 9 },
    },
  },
}

--- As the rules tell it where there is such a proof.
local function proven_leak()
  local one = leak()
  for site in a_view(PROOFS).proof:sites({ limit = 1 }) do
    one.site.proof = {}
    for name, value in pairs(site.proof) do one.site.proof[name] = value end
    one.site.proof.holder, one.site.proof.head = nil, "session_open"
  end
  return one
end

local function text(given, options) return text_report(assemble(given), options or { columns = 80 }) end

describe("the report", function()
  it("answers in words first", function()
    local data = assemble()
    assert.equal("Leak: session_open (server) grows 1.26 MiB/s: 25.0 MiB live, 100 % of all that it allocated.",
      data.answer[1].text)
    assert.equal("leak", data.answer[1].kind)
    assert.equal("session_open", data.highest_risk_component)
  end)

  it("says that there is no leak only after it has seen enough", function()
    assert.equal("No leak: no function's live memory grew steadily in 19 s.",
      assemble({ findings = {} }).answer[1].text)
    local data = assemble({ findings = {}, status = "insufficient_data", needed_seconds = 30 })
    assert.truthy(data.answer[1].text:find("Too short to tell", 1, true))
    assert.truthy(data.answer[1].text:find("takes 30 s of heap profiles, and these cover 19 s", 1, true))
  end)

  it("does not say that there is no leak where no leak rule answered", function()
    local data = assemble({ findings = {}, status = "failed", reason = "leak.steady-growth is quarantined" })
    assert.same({ { "unknown", "Whether it leaks is not known: leak.steady-growth is quarantined." } },
      { { data.answer[1].kind, data.answer[1].text } })
    assert.same({ "failed", "leak.steady-growth is quarantined" }, { data.status, data.reason })
    assert.equal("No leak: no function's live memory grew steadily in 19 s, by the rules that gave an answer.",
      assemble({ findings = {}, errors = { "leak.mine: oops" } }).answer[1].text)
  end)

  it("tells alerts at the top, be they about memory or about time", function()
    local data = assemble({
      findings = {
        { kind = "alert", rule = "alert.a", about = "time", summary = "too busy" },
        { kind = "alert", rule = "alert.b", about = "memory", summary = "too large" },
      },
    })
    assert.same({ "alert", "too large" }, { data.answer[2].kind, data.answer[2].text })
    assert.same({ "alert", "too busy" }, { data.answer[3].kind, data.answer[3].text })
  end)

  it("tells with the patterns what a leak rule says of no site", function()
    local data = assemble({
      findings = {
        { kind = "leak", rule = "leak.mine", about = "memory", summary = "handles leak" },
        { kind = "leak", rule = "leak.mine", about = "time", summary = "timers leak" },
        { kind = "pattern", rule = "pattern.a", about = "memory", summary = "crumbs" },
      },
    })
    assert.same({ "handles leak", "timers leak", "crumbs" }, data.suspicious_patterns)
  end)

  it("does not call a site a leak that merely grew", function()
    local said = assemble({ findings = { leak({ verdict = "growing", reasons = { "only its objects grow" } }) } })
      .answer[1].text
    assert.equal("Perhaps a leak: session_open (server) grows 1.26 MiB/s: 25.0 MiB live; only its objects grow.", said)
    local bare = leak({ verdict = "growing", reasons = {} })
    assert.truthy(assemble({ findings = { bare } }).answer[1].text:find("live%.$"))
    local data = assemble({ findings = { leak({ verdict = "bounded", summary = "it stopped" }) } })
    assert.same({}, data.potential_leaks)
    assert.same({ "it stopped" }, data.settled)
    assert.equal("none", data.answer[1].kind)
  end)

  it("calls a tag a tag", function()
    local site = {
      name = "acme", module = "[tag]", inuse_space = 25 * MIB, inuse_objects = 1, stack = { "acme", "main" },
    }
    local data = assemble({ findings = { leak({ site = site }) } })
    assert.truthy(data.answer[1].text:find("the tag acme grows", 1, true), data.answer[1].text)
  end)

  it("puts the most urgent leak first, each component once", function()
    local data = assemble({
      findings = {
        leak({ severity = "low", site = { name = "small", inuse_space = 1, inuse_objects = 1 } }),
        leak({ severity = "high" }), leak({ severity = "critical" }),
      },
    })
    assert.equal(2, #data.potential_leaks)
    assert.equal("critical", data.potential_leaks[1].severity)
    assert.equal("small", data.potential_leaks[2].component)
  end)

  it("compares its sites with the allocator's own figure", function()
    local measured = assemble().measurement
    assert.near(100, measured.coverage_percent, 0.2)
    assert.equal(26 * MIB, measured.profiled_bytes)
    assert.equal(20, measured.profiles)
  end)

  it("compares what both said at the last tick", function()
    local one = view.from_table({
      sample_period_bytes = 524288, allocated = { MIB, 2 * MIB, 4 * MIB, 8 * MIB, 30 * MIB },
      sites = { { name = "grow", history = { MIB, 2 * MIB, 4 * MIB, 15 * MIB, 30 * MIB }, stack = { "grow" } } },
    })
    local host = fake.new()
    local data = report.assemble({ host = host, config = host.config },
      { pid = 1, exit_code = 0, connected = true }, one, { findings = {}, errors = {}, status = "ok" })
    local measured = data.measurement
    assert.same({ 30 * MIB, 30 * MIB, 100 },
      { measured.profiled_bytes, measured.allocated_bytes, measured.coverage_percent })
  end)

  it("tells the newest memory figures, the processes' own where the series ends before them", function()
    assert.equal(45 * MIB, assemble().memory.rss_bytes)
    local one = view.from_table({
      memory = { { time_ms = 1000, rss_bytes = 1 } },
      targets = {
        {
          pid = 1,
          memory = {
            time_ms = 5000, rss_bytes = 10, allocated_bytes = 6, active_bytes = 8, resident_bytes = 12,
            has_allocator = 1,
          },
        },
        { pid = 2, memory = { time_ms = 4900, rss_bytes = 20, allocated_bytes = 0, has_allocator = 0 } },
        { pid = 3, live = false, memory = { time_ms = 100, rss_bytes = 1000, has_allocator = 0 } },
      },
    })
    local host = fake.new()
    local data = report.assemble({ host = host, config = host.config },
      { pid = 1, exit_code = 0, connected = true }, one, { findings = {}, errors = {}, status = "ok" })
    assert.equal(30, data.memory.rss_bytes)
    assert.equal(6, data.memory.heap_bytes)
    assert.equal(25, data.memory.fragmentation_percent)
  end)

  it("says why the heap was not profiled", function()
    local data = assemble({
      no_view = true, findings = {}, host = { target_list = { fake.target({ heap_state = "no_jemalloc" }) } },
    })
    assert.equal("unprofiled", data.status)
    assert.equal("The heap was not profiled: the process does not use jemalloc.", data.answer[1].text)
    data = assemble({
      no_view = true, findings = {}, host = { target_list = {} }, info = { connected = false, argv = { "/bin/thing" } },
    })
    assert.equal("thing", data.name)
    assert.truthy(data.answer[1].text:find("never connected", 1, true))
  end)

  it("groups what is to be said of many processes", function()
    local list = { fake.target() }
    for pid = 1, 3 do list[#list + 1] = fake.target({ pid = pid, name = "sh", heap_state = "no_jemalloc" }) end
    local data = assemble({ host = { target_list = list } })
    assert.same({ "sh (3 processes): the heap was not profiled: the process does not use jemalloc" }, data.notes)
    assert.equal("ok", data.status)
    assert.truthy(text({ host = { target_list = list } }):find("4 processes: redis-server, sh x3", 1, true))
  end)

  it("says that the last data is older than the end after SIGKILL", function()
    local data = assemble({ info = { signal = 9, signal_name = "KILL" } })
    assert.truthy(data.notes[1]:find("SIGKILL left no time", 1, true))
    assert.truthy(text({ info = { signal = 9, signal_name = "KILL" } }):find("ended by SIGKILL", 1, true))
  end)

  it("has the leak proof, of the whole and of each leak", function()
    local data = assemble({ findings = { proven_leak() }, proofs = PROOFS })
    assert.equal("Leak: session_open (server) grows 1.26 MiB/s: 25.0 MiB live, and nothing points to 24.5 MiB of it "
      .. "any more.", data.answer[1].text)
    assert.same({ "complete", 24.5 * MIB }, { data.proof.status, data.proof.unreachable_bytes })
    assert.equal("proven", data.potential_leaks[1].proof.state)
    assert.equal("proven", json.decode(json.encode(data)).potential_leaks[1].proof.state)
    data = assemble()
    assert.same({ nil, "no leak proof was run" }, { data.proof, data.proof_reason })
    assert.equal("no leak proof was run", data.potential_leaks[1].proof_reason)
    assert.equal("no leak proof was run", assemble({ no_view = true, findings = {} }).proof_reason)
  end)

  it("does not call a leak what a proof found held, nor counts what is all lost", function()
    local found = leak({ verdict = "growing", reasons = { "all of it can still be reached" } })
    assert.truthy(assemble({ findings = { found } }).answer[1].text:find("^Perhaps a leak: session_open"))
    found.evidence = { slope_mib_per_hour = 4547.4, all_reachable = true }
    assert.truthy(assemble({ findings = { found } }).answer[1].text:find("^Growing, and not lost: session_open"))
    found = proven_leak()
    found.site.proof.share = 1
    assert.truthy(assemble({ findings = { found } }).answer[1].text:find("live, and nothing points to it any more.", 1,
      true))
    found.site.proof.proven_bytes = 5 * MIB
    assert.truthy(assemble({ findings = { found } }).answer[1].text:find("nothing points to 5.00 MiB of it any more.",
      1, true))
  end)

  it("is JSON with its fields in order", function()
    local body = json.encode(assemble())
    assert.same({ "timestamp", "name", "pid", "outcome", "duration_seconds", "answer" },
      { unpack(fake.order(body), 1, 6) })
    assert.equal(4547.4, json.decode(body).potential_leaks[1].growth_rate_mb_per_hour)
  end)
end)

describe("the report's text", function()
  it("names leak, rate, callers, holders, advice and cost", function()
    local all = text()
    for _, words in ipairs({
      "lupe: redis-server ran for 20 s, exit code 0",
      "Leak: session_open (server) grows 1.26 MiB/s", "called by on_request",
      "25.0 MiB live in 25,600 objects of 1.00 KiB", "cache_put < on_request", "What to do", "> Free it",
      "one sample per 512 KiB", "lupe's own cost", "lost: 1 stack cut short",
    }) do
      assert.truthy(all:find(words, 1, true), words .. " is not in:\n" .. all)
    end
  end)

  it("says what a leak proof found, a line for each function that lost something", function()
    local all = text({ findings = { proven_leak() }, proofs = PROOFS }, { columns = 120 })
    for _, words in ipairs({
      "\nLeak proof, at the end\n  nothing was found that points to 24.5 MiB in 25,088 objects; stopped for 6.5 ms",
      " at most, 58.0 MiB read\n",
      "\n  - session_open, proven: 24.5 +- 2.4 MiB in 401 structures or more, 98 % of what lives there\n",
    }) do
      assert.truthy(all:find(words, 1, true), words .. " is not in:\n" .. all)
    end
    assert.is_nil(all:find("- cache_put", 1, true))
    PROOFS[1].hidden = { "luajit" }
    finally(function() PROOFS[1].hidden = nil end)
    all = text({ findings = { proven_leak() }, proofs = PROOFS }, { columns = 120 })
    assert.truthy(all:find("\n  - session_open, unreferenced: 24.5 +- 2.4 MiB in 401 structures or more, 98 % of", 1,
      true), all)
    PROOFS[1].hidden = nil
    local partly = assemble({ findings = { proven_leak() }, proofs = PROOFS })
    partly.proof.sites[1].proven_bytes = 5 * MIB
    all = text_report(partly, { columns = 120 })
    assert.truthy(all:find("98 % of what lives there; 5.00 MiB of that is\n    proven\n", 1, true), all)
    assert.is_nil(text():find("Leak proof", 1, true))
    PROOFS[1].time_ms = 1728583190000
    finally(function() PROOFS[1].time_ms = nil end)
    assert.truthy(text({ proofs = PROOFS }):find("\nLeak proof, 10 s before the end\n", 1, true))
  end)

  it("says which processes have no leak proof of their exit, and does not speak for them", function()
    local targets = { fake.target({ pid = 1 }), fake.target({ pid = 102, name = "worker" }) }
    local given = { proofs = PROOFS, host = { targets = function() return targets end } }
    assert.is_nil(text(given):find("at its exit", 1, true))
    given.host.config = config.defaults()
    given.host.config.proof = "exit"
    local all = text(given, { columns = 120 })
    assert.truthy(all:find("\nLeak proof of 1 of 2 processes, at the end\n", 1, true), all)
    assert.truthy(all:find("worker (process 102): no leak proof at its exit: a signal ended it", 1, true), all)
    assert.is_nil(all:find("redis-server (process 1)", 1, true))
  end)

  it("says in one sentence why there is no leak proof", function()
    local all = text({ proofs = { { outcome = "busy" } } }, { columns = 120 })
    assert.truthy(all:find("\nLeak proof\n  refused: another proof of this process is under way: ask again", 1, true))
    all = text({ proofs = { { outcome = "time", read_bytes = 2 ^ 30 } } }, { columns = 120 })
    assert.truthy(all:find("\n  given up: a scan took longer than --proof-max-secs, and had read 1.00 GiB", 1, true))
    all = text({ proofs = { { outcome = "busy", scanned_ms = 1728583190000 } } }, { columns = 120 })
    assert.truthy(all:find("\nLeak proof, 10 s before the end\n  something points to every object", 1, true))
    assert.truthy(all:find("\n  the newest was refused: another proof", 1, true))
    all = text({ proofs = { { unreachable_bytes = 0, unreachable_objects = 0 } } }, { columns = 120 })
    assert.truthy(all:find("\n  something points to every object: nothing is lost; stopped for 1.0 ms", 1, true))
  end)

  it("tells the line of a leak where it is known", function()
    local site = {
      name = "session_open", module = "server", inuse_space = MIB, inuse_objects = 1, file = "/src/app/session.c",
      line = 45, stack = STACK,
    }
    assert.truthy(text({ findings = { leak({ site = site }) } }):find("session_open  server  session.c:45\n", 1, true))
  end)

  it("keeps to the terminal's width", function()
    local long = ("very::long::name<"):rep(20)
    local site = { name = long, module = "m", inuse_space = 1, inuse_objects = 1, stack = { long } }
    local findings = { leak({ site = site }) }
    for _, columns in ipairs({ 60, 80, 110 }) do
      for line in text({ findings = { findings[1], leak() } }, { columns = columns }):gmatch("[^\n]*") do
        if not line:find(long, 1, true) then assert.is_true(#line <= columns, line) end
      end
    end
  end)

  it("keeps a number and its unit on one line", function()
    for columns = 60, 120 do
      for line in text(nil, { columns = columns }):gmatch("[^\n]*") do
        assert.is_nil(line:find(" %d[%d.,]*$"), ("%d columns: %s"):format(columns, line))
      end
    end
  end)

  it("is coloured only when told", function()
    assert.is_nil(text():find("\27", 1, true))
    local plain = text(nil, { columns = 80, color = true }):gsub("\27%[[%d;]*m", "")
    assert.equal(text(), plain)
  end)

  it("shows losses, notes and errors of rules", function()
    local all = text({ errors = { "mine.lua:3: oops" }, info = { signal = 9, signal_name = "KILL" } })
    assert.truthy(all:find("rule error: mine.lua:3: oops", 1, true))
    assert.truthy(all:find("SIGKILL left no time", 1, true))
  end)
end)
