require("spec.support")
local fake = require("spec.fake_host")
local json = require("lupe.json")
local report = require("lupe.report")
local text_report = require("lupe.text_report")
local view = require("lupe.view")

local READ, EPOLL_WAIT = 0, 232

local function hotspot(fields)
  local finding = {
    kind = "bottleneck", about = "time", rule = "bottleneck.hotspot", score = 0.85, summary = "parse_row takes 50 %",
    hotspot = {
      name = "parse_row", module = "server", file = "/src/app/parse.c", line = 45, definition_line = 40,
      cpu_percent = 50, cum_cpu_percent = 50, wall_percent = 40, cum_wall_percent = 45,
      stack = { "parse_row", "read_table", "main", "__libc_start_call_main" },
    },
  }
  for name, value in pairs(fields or {}) do finding[name] = value end
  return finding
end

local function about_time(kind, summary, advice)
  return { kind = kind, about = "time", rule = kind .. ".x", summary = summary, advice = advice }
end

local FINDINGS = {
  hotspot(),
  hotspot({ score = 0.01, hotspot = { name = "tick", module = "server", cpu_percent = 0.1, wall_percent = 0.1 } }),
  about_time("bottleneck", "CPU-bound: 67 % of the time that threads were not idle"),
  about_time("pattern", "one thread is saturated while 3 others idle", { "Share its work out" }),
  about_time("recommendation", "Critical: Optimize parse_row (50.0% CPU time, impact score: 0.85)"),
}

local function a_view(profile, target)
  local given = {
    from_ms = 1728583180000, to_ms = 1728583200000, cpu_hz = 100, wall_hz = 20,
    threads = { { tid = 100, pid = 100, name = "main" } },
    samples = {
      { stack = { "parse_row", "main" }, state = "user", count = 1000 },
      { stack = { "libc.so.6!read", "fetch" }, state = "waiting", syscall = READ, count = 100 },
      { stack = { "libc.so.6!epoll_wait", "loop" }, state = "waiting", syscall = EPOLL_WAIT, count = 100 },
    },
  }
  for name, value in pairs(profile or {}) do given[name] = value end
  return view.from_table({ time_ms = 1728583200000, targets = { target or { pid = 100 } }, profile = given })
end

local function assemble(seen, findings)
  local host = fake.new({ started_ms = 1728583180000 })
  return report.assemble({ host = host, config = host.config }, { pid = 100, exit_code = 0, connected = true }, seen,
    { findings = findings or FINDINGS, errors = {}, status = "ok", elapsed_ms = 3 })
end

local function text(data, options) return text_report(data, options or { columns = 80 }) end

--- The part of the text from its heading to the next one.
local function part(all)
  return all:match("\n(Where the time goes.-)\n\n") or error("no such part in:\n" .. all)
end

describe("the report's bottlenecks", function()
  it("come after the leak's answer, and before the advice", function()
    local data = assemble(a_view())
    assert.same({ "none", "time" }, { data.answer[1].kind, data.answer[2].kind })
    assert.equal("CPU-bound: 67 % of the time that threads were not idle", data.answer[2].text)
    local all = text(data)
    local at = assert(all:find("Where the time goes", 1, true))
    assert.is_true(all:find("No leak", 1, true) < all:find("CPU-bound", 1, true))
    assert.is_true(at < all:find("What to do", 1, true))
    assert.truthy(all:find("> Critical: Optimize parse_row", 1, true))
  end)

  it("say in words and rows where the time went", function()
    assert.equal([[
Where the time goes, 10 s of CPU in 20 s
  threads were idle for 25 % of their time; of the rest they spent 67 %
  computing, 33 % waiting for I/O
     cpu    wall  function  line < its callers
    50 %    40 %  parse_row  parse.c:45 < read_table < main
  - one thread is saturated while 3 others idle]], part(text(assemble(a_view()))))
  end)

  it("leave out what only begins a thread, and keep a number with its unit in brackets too", function()
    local one = hotspot()
    one.hotspot.stack = { "parse_row", "worker", "start_thread", "clone3" }
    local all = text(assemble(a_view(), { one }))
    assert.truthy(all:find("parse_row  parse.c:45 < worker\n", 1, true), all)
    for columns = 60, 120 do
      local told = about_time("pattern", ("take (100 %, 3 threads) "):rep(8))
      for line in part(text(assemble(a_view(), { told }), { columns = columns })):gmatch("[^\n]+") do
        assert.is_nil(line:find("%(%d+$"), line)
      end
    end
  end)

  it("are JSON with the fields of the route", function()
    local body = json.encode(assemble(a_view()))
    local data = json.decode(body).bottlenecks
    assert.equal("parse_row", data.hotspots[1].function_name)
    assert.near(66.67, data.cpu_bound_percent, 0.01)
    assert.equal(20, data.window_seconds)
    assert.same({ "one thread is saturated while 3 others idle" }, data.patterns)
  end)

  it("do not mix with what is told of memory", function()
    local data = assemble(a_view())
    assert.same({}, data.suspicious_patterns)
    assert.same({ "Critical: Optimize parse_row (50.0% CPU time, impact score: 0.85)", "Share its work out" },
      data.recommendations)
  end)

  it("say who owns SIGPROF, and that waits cannot be read", function()
    local foreign = part(text(assemble(a_view(nil, { pid = 100, cpu_state = "foreign" }))))
    assert.truthy(foreign:find("no CPU profile: the program has a handler for SIGPROF of its own", 1, true), foreign)
    local blind = part(text(assemble(a_view(nil, { pid = 100, wall_state = "unreadable" }))))
    assert.truthy(blind:find("no wall profile: ", 1, true), blind)
    assert.truthy(blind:find("what bounds the program is not known", 1, true), blind)
    assert.truthy(blind:find("50 %       -  parse_row", 1, true), blind)
  end)

  it("note the process of several that owns SIGPROF", function()
    local host = fake.new({ started_ms = 1728583180000 })
    host.target_list = {
      fake.target(), fake.target({ pid = 101, name = "owner", cpu_state = "foreign" }),
      fake.target({ pid = 102, cpu_state = "off" }),
    }
    local data = report.assemble({ host = host, config = host.config }, { pid = 100, exit_code = 0, connected = true },
      a_view(), { findings = {}, errors = {}, status = "ok", elapsed_ms = 3 })
    assert.same({ "owner (process 101): no CPU profile: the program has a handler for SIGPROF of its own" },
      data.notes)
  end)

  it("tell of page faults where they take time", function()
    local function faults(minor, major)
      local data = assemble(a_view())
      data.bottlenecks.page_faults = { minor = minor, minor_per_second = minor, major = major }
      return part(text(data)):match("page faults: [^\n]*")
    end
    assert.is_nil(faults(3, 0))
    assert.equal("page faults: 2,000/s, and none from disk", faults(2000, 0))
    assert.equal("page faults: 3/s, and 2 pages from disk", faults(3, 2))
  end)

  it("say how often time was sampled", function()
    local told = text(assemble(a_view())):gsub("%s+", " ")
    assert.truthy(told:find("100 samples per second of CPU time, 20 looks a second at what threads wait for; "
      .. "1,200 samples", 1, true), told)
    assert.is_nil(text(assemble(a_view({ samples = {} }), {})):find("samples per second of CPU", 1, true))
  end)

  it("say that nothing was sampled", function()
    local off = assemble(a_view({ cpu_hz = 0, wall_hz = 0, samples = {} }), {})
    assert.truthy(part(text(off)):find("CPU profiling is off", 1, true))
    local early = { pid = 100, cpu_state = "off", wall_state = "off" }
    local told = part(text(assemble(a_view({ samples = {} }, early), {})))
    assert.equal("neither the time on the CPU nor waits were sampled: sampling begins a moment after a program's start",
      (told:match("\n(.*)"):gsub("%s+", " "):gsub("^ ", "")))
    local short = assemble(a_view({ samples = {} }), {})
    assert.truthy(part(text(short)):find("no samples in the last 20 s", 1, true))
  end)

  it("keep to the terminal's width", function()
    local long = ("very::long::name<"):rep(20)
    local one = hotspot({ hotspot = {
      name = long, module = "m", file = "/src/" .. ("x"):rep(90) .. ".c", line = 1, cpu_percent = 9, wall_percent = 9,
      stack = { long, long },
    } })
    for _, columns in ipairs({ 60, 80, 110 }) do
      for line in part(text(assemble(a_view(), { one, hotspot() }), { columns = columns })):gmatch("[^\n]+") do
        assert.is_true(#line <= columns, line)
      end
    end
  end)

  it("are coloured only when told", function()
    local data = assemble(a_view())
    local plain = text(data, { columns = 80, color = true }):gsub("\27%[[%d;]*m", "")
    assert.equal(text(data), plain)
  end)
end)
