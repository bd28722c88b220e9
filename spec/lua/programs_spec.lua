--- A daemon's programs: told apart, checked one by one, reported on when they have ended.
local async = require("lupe.async")
local fake = require("spec.fake_host")
local last_reports = require("lupe.last_reports")
local programs = require("lupe.programs")
local support = require("spec.support")

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

--- A server over a fake host whose state folder is real.
local function daemon(settings)
  local dir = support.temp_dir()
  os.execute("mkdir -p " .. dir .. "/reports")
  local server = fake.server({
    serves = true, target_list = {}, immediate = true,
    heap = { sites = { { name = "f", space = { 100, 200 } } } },
    list = function(path)
      local list = {}
      for name in support.run({ "ls", "-A", path }).out:gmatch("[^\n]+") do
        list[#list + 1] = { name = name, size = #support.read_file(path .. "/" .. name), mtime_ms = 1 }
      end
      return list
    end,
    unlink = os.remove,
    commit_file = function(temporary, final, callback)
      if exists(final) then return callback("it exists", "EEXIST") end
      assert(os.rename(temporary, final))
      callback(nil)
    end,
  })
  server.host.config.state_dir = dir
  for name, value in pairs(settings or {}) do server.host.config[name] = value end
  server.app.reports = last_reports.new(server.app)
  return server
end

local function tick(server, ms)
  server.host.clock_ms = server.host.clock_ms + (ms or 1000)
  server.tick()
end

local function target(server, fields)
  local one = fake.target(fields)
  one.first_ms, one.last_ms = server.host.clock_ms, server.host.clock_ms
  table.insert(server.host.target_list, one)
  return one
end

local function ends(server, one, left)
  one.live, one.connected, one.left, one.last_ms = false, false, left or false, server.host.clock_ms
end

local function listed(server) return fake.request(server, "GET", "/api/reports").json end

describe("programs", function()
  it("are told apart by the process that they began with, and called what that is at last", function()
    local host = fake.new({ target_list = {
      fake.target({ pid = 2, root_pid = 1, root_ticks = 5, name = "worker", first_ms = 30, last_ms = 90 }),
      fake.target({ pid = 9, name = "other", first_ms = 10, last_ms = 50 }),
      fake.target({ pid = 1, root_ticks = 5, name = "redis-server", first_ms = 25, last_ms = 40, left = true }),
      fake.target({ pid = 1, root_ticks = 5, name = "sh", first_ms = 20, last_ms = 25, live = false }),
      fake.target({ pid = 1, root_ticks = 2, name = "older", first_ms = 1, last_ms = 2, live = false }),
    } })
    local list, by_key = programs.list(host)
    local told = {}
    for i, one in ipairs(list) do told[i] = { one.pid, one.name, one.live, #one.targets, one.first_ms, one.last_ms } end
    assert.same({
      { 1, "older", false, 1, 1, 2 }, { 9, "other", true, 1, 10, 50 }, { 1, "redis-server", true, 3, 20, 90 },
    }, told)
    assert.equal(list[3], by_key["1:5"])
    assert.is_true(list[3].left)
  end)
end)

describe("a daemon", function()
  teardown(support.cleanup)

  it("reports on a program when it has been gone for two seconds", function()
    local server = daemon()
    local one = target(server, { pid = 7, name = "redis-server" })
    for _ = 1, 12 do tick(server) end
    ends(server, one, true)
    tick(server)
    tick(server)
    assert.same({}, listed(server).reports)
    tick(server)
    local report = listed(server).reports[1]
    assert.same({ 7, "redis-server", "exited", 12 }, { report.pid, report.name, report.how, report.lasted_seconds })
    assert.equal("info: redis-server (process 7) has exited after 12 s; its last report is " .. report.url,
      server.host.logged[#server.host.logged])
    local body = fake.request(server, "GET", report.url).json
    assert.equal(7, body.pid)
    assert.equal(12, body.duration_seconds)
    local text = fake.request(server, "GET", report.url .. "?format=text").body
    assert.truthy(text:find("^lupe: redis%-server ran for 12"))
    assert.equal(404, fake.request(server, "GET", "/api/reports/report_1").status)
    assert.equal(404, fake.request(server, "GET", "/api/reports/..%2Fsnapshots").status)
    local again = fake.request(server, "GET", "/api/targets").json.targets[1]
    assert.equal(report.url, again.report)
  end)

  it("does not take an exec, or a lost socket, for an end", function()
    local server = daemon({ reports_min_secs = 0 })
    local one = target(server, { pid = 7, name = "sh" })
    tick(server)
    ends(server, one)
    tick(server)
    one.live = true
    for _ = 1, 5 do tick(server) end
    assert.same({}, listed(server).reports)
    assert.same({ short = 0, skipped = 0 }, listed(server).left_out)
  end)

  it("keeps no report of short lives without a finding, but counts them, also those between two looks", function()
    local server = daemon()
    local one = target(server, { pid = 7 })
    tick(server)
    ends(server, one)
    tick(server, 500)
    server.host.clock_ms = server.host.clock_ms + 500
    ends(server, target(server, { pid = 8 }))
    for _ = 1, 4 do tick(server) end
    assert.same({}, listed(server).reports)
    assert.same({ short = 2, skipped = 0 }, listed(server).left_out)
  end)

  it("says of one that ended without a word that it is lost", function()
    local server = daemon({ reports_min_secs = 0 })
    local one = target(server, { pid = 7 })
    tick(server)
    ends(server, one)
    for _ = 1, 4 do tick(server) end
    assert.equal("lost", listed(server).reports[1].how)
  end)

  it("skips the shortest lives where more end than can wait, and those that were forgotten", function()
    local waiting = {}
    local server = daemon({ reports_min_secs = 0 })
    local take = server.host.take_program
    server.host.take_program = function(...) waiting[#waiting + 1] = { take, ... } end
    local all = {}
    for i = 1, 20 do
      all[i] = { pid = i, name = "p" .. i, first_ms = 0, last_ms = i, targets = {}, key = tostring(i) }
    end
    for i = 20, 1, -1 do server.app.reports:add(all[i], false) end
    server.app.reports:add({ pid = 99, first_ms = 0, last_ms = 1e6, forgotten = true, targets = {} }, false)
    assert.same({ short = 0, skipped = 4 }, listed(server).left_out) -- the first one is being made, 16 wait
    while waiting[1] do
      local call = table.remove(waiting, 1)
      call[1](unpack(call, 2))
    end
    local kept = {}
    for _, report in ipairs(listed(server).reports) do kept[report.pid] = true end
    for i = 1, 20 do assert.equal(i > 3, kept[i] or false, i) end
  end)

  it("keeps as many reports as it is told to, and finds them when it starts anew", function()
    local server = daemon({ reports_min_secs = 0, reports_keep = 2 })
    for pid = 1, 4 do
      local program = { pid = pid, name = "p", first_ms = 0, last_ms = pid, targets = {}, key = "k" .. pid }
      server.app.reports:add(program, false)
      server.host.clock_ms = server.host.clock_ms + 1000
    end
    local before = listed(server).reports
    assert.same({ 4, 3 }, { before[1].pid, before[2].pid })
    server.app.reports = last_reports.new(server.app)
    assert.same(before, listed(server).reports)
  end)

  it("leaves out of the list what is no report", function()
    local server = daemon({ reports_min_secs = 0 })
    support.write_file(server.host.config.state_dir .. "/reports/report_5.txt", "nonsense\n")
    support.write_file(server.host.config.state_dir .. "/reports/report_6.txt", "[1]\n{}\n")
    assert.same({}, listed(server).reports)
    assert.equal(404, fake.request(server, "GET", "/api/reports/report_5").status)
  end)

  it("remembers of each program what was found in it, and forgets that it is so when it ends", function()
    local server = daemon()
    local analysis = server.app.analysis
    local function finding() return { rule = "r", kind = "pattern", summary = "x", evidence = {} } end
    local function program(pid, name) return { key = pid .. ":1", pid = pid, name = name } end
    local function found(of) analysis:take_in({ findings = { finding() }, suppressed = {} }, of) end
    found(program(7, "redis"))
    found(program(8, "redis"))
    found(program(9, "nginx"))
    local list = fake.request(server, "GET", "/api/findings").json.findings
    local by_pid = {}
    for _, entry in ipairs(list) do by_pid[entry.target.pid] = entry end
    assert.equal(3, #list)
    assert.equal("nginx", by_pid[9].target.name)
    assert.equal(by_pid[7].id, by_pid[8].id) -- the next redis is another process
    assert.is_not.equal(by_pid[7].id, by_pid[9].id)
    assert.is_true(analysis:accuses(program(7, "redis")))
    analysis:ended(program(7, "redis"))
    assert.is_false(analysis:accuses(program(7, "redis")))
    for _, entry in ipairs(fake.request(server, "GET", "/api/findings").json.findings) do
      assert.equal(entry.target.pid ~= 7, entry.current)
    end
  end)

  it("makes nothing known of what its programs are together", function()
    local server = daemon()
    target(server, { pid = 7 })
    local heard = false
    server.app.analysis.heed = function() heard = true end
    assert.equal(200, fake.request(server, "POST", "/api/profiling/leak-detection").status)
    assert.is_false(heard)
    assert.same({}, fake.request(server, "GET", "/api/findings").json.findings)
  end)

  --- Counts the checks of each program, by the process that it began with.
  local function count_checks(server)
    local counts, take = {}, server.host.take_program
    server.host.take_program = function(pid, ...)
      counts[pid] = (counts[pid] or 0) + 1
      take(pid, ...)
    end
    return counts
  end

  --- Resident memory by process, in MiB.
  local function hold(server, mb)
    server.host.memory = function(pid)
      if pid and mb[pid] then return fake.figures({ rss_bytes = mb[pid] * 2 ^ 20 }) end
      local sum = 0
      for _, one in pairs(mb) do sum = sum + one end
      if not pid then return fake.figures({ rss_bytes = sum * 2 ^ 20 }) end
    end
  end

  it("checks a program early whose memory comes nearer to a limit, and no other", function()
    local server = daemon({ memory_interval_secs = 1 })
    target(server, { pid = 7, name = "redis-server" })
    target(server, { pid = 9, root_pid = 7, name = "redis-server" })
    target(server, { pid = 8, name = "memcached" })
    local mb = { [7] = 300, [9] = 300, [8] = 600 }
    hold(server, mb)
    for _ = 1, 60 do tick(server) end
    local counts = count_checks(server)
    for _ = 1, 5 do tick(server) end
    assert.same({}, counts) -- together they are far above the limit, each is below it
    mb[9] = 360
    tick(server)
    tick(server)
    assert.same({ [7] = 1 }, counts)
    for _ = 1, 5 do tick(server) end
    assert.same({ [7] = 1 }, counts)
    mb[9] = 460
    tick(server)
    assert.same({ [7] = 2 }, counts)
  end)

  it("checks a program early whose own control group is nearly full", function()
    local server = daemon({ memory_interval_secs = 1 })
    local used = { [7] = 0.1, [8] = 0.1 }
    server.app.cgroup = function(pid)
      return { limit_bytes = 2 ^ 30, used_bytes = assert(used[pid], "of nobody") * 2 ^ 30, reclaimable_bytes = 0 }
    end
    target(server, { pid = 7 })
    target(server, { pid = 8 })
    for _ = 1, 60 do tick(server) end
    local counts = count_checks(server)
    used[8] = 0.9
    tick(server)
    tick(server)
    assert.same({ [8] = 1 }, counts)
  end)

  it("says how near its programs are to the limits one by one, and has no control group for all of them", function()
    local server = daemon()
    target(server, { pid = 7, name = "redis-server" })
    target(server, { pid = 8, name = "memcached" })
    local mb = { [7] = 400, [8] = 600 }
    hold(server, mb)
    tick(server)
    local told = fake.request(server, "GET", "/api/profiling/memory").json
    assert.same({ 1000, "normal", {} }, { told.rss_mb, told.threshold_status, told.warnings })
    assert.equal("programs have control groups of their own: ask for one process, by ?target=PID", told.cgroup_reason)
    mb[8] = 660
    told = fake.request(server, "GET", "/api/profiling/memory").json
    assert.equal("warning", told.threshold_status)
    assert.same({ "memcached (process 8): rss_mb 660.0 is above the warning limit of 650 MiB" }, told.warnings)
    assert.equal(1024, fake.request(server, "GET", "/api/profiling/memory?target=8").json.cgroup.limit_mb)
    assert.is_nil(fake.request(server, "GET", "/metrics").body:find("lupe_memory_cgroup", 1, true))
    assert.is_nil(server.app.views:merged().cgroup)
  end)

  it("knows the surroundings of a program whose first process has ended, as of a server in the background", function()
    local server = daemon()
    local first = target(server, { pid = 7 })
    target(server, { pid = 9, root_pid = 7 })
    target(server, { pid = 8 })
    server.host.cgroup = function(pid) return { limit_bytes = pid, used_bytes = 0, reclaimable_bytes = 0 } end
    server.host.allocator = function(pid) return { dirty_bytes = pid, muzzy_bytes = 0, arena_count = 1 } end
    local both = server.app.surroundings:of_program(7)
    assert.same({ 7, 16, 2 }, { both.cgroup.limit_bytes, both.allocator.dirty_bytes, both.allocator.arena_count })
    ends(server, first)
    local left, seen = server.app.surroundings:of_program(7), nil
    assert.same({ 9, 9 }, { left.cgroup.limit_bytes, left.allocator.dirty_bytes })
    async.spawn(function() return server.app.views:of_program(7) end, function(_, view) seen = view end)
    assert.equal(9, seen.cgroup.limit_bytes)
    assert.is_nil(server.app.surroundings:of_program(5).cgroup)
  end)

  it("has its counts in the metrics", function()
    local server = daemon()
    local text = fake.request(server, "GET", "/metrics").body
    assert.truthy(text:find('lupe_last_reports_total{result="skipped"} 0', 1, true))
  end)
end)
