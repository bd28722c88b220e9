require("spec.support")
local config = require("lupe.config")
local fake = require("spec.fake_host")

local HEAP = { sites = { { name = "f", history = { 100, 200 } } } }

local function server_of(settings, given)
  given = given or {}
  given.heap, given.config = HEAP, config.defaults()
  given.config.state_dir = "/state"
  for name, value in pairs(settings) do given.config[name] = value end
  return fake.server(given)
end

--- Lets so many seconds pass, a tick each.
local function pass(server, seconds)
  for _ = 1, seconds do
    server.host.clock_ms = server.host.clock_ms + 1000
    server.tick()
  end
end

local function pids(host)
  local list = {}
  for i, one in ipairs(host.proofs) do list[i] = one.pid end
  return list
end

local function logged(host, text)
  for _, line in ipairs(host.logged) do
    if line:find(text, 1, true) then return line end
  end
end

describe("leak proofs", function()
  it("are not run by themselves, nor at exit, unless the operator says so", function()
    for _, how in ipairs({ "request", "never" }) do
      local server = server_of({ proof = how })
      pass(server, 30)
      assert.same({}, server.host.proofs)
      assert.is_nil(server.host.proof_at_exit)
    end
  end)

  it("are run at exit with --proof=exit, with a shorter interval", function()
    local host = server_of({ proof = "exit", proof_max_secs = 3 }).host
    assert.same({ 200, 3000 }, { host.proof_at_exit.interval_ms, host.proof_at_exit.max_ms })
    assert.equal(50, server_of({ proof = "exit", proof_interval_ms = 50 }).host.proof_at_exit.interval_ms)
    assert.same({}, host.proofs)
  end)

  it("are run every so often with --proof=SECS, of what lives and is profiled, and logged", function()
    local server = server_of({ proof = 20 }, {
      target_list = {
        fake.target(), fake.target({ pid = 101, live = false }), fake.target({ pid = 102, connected = false }),
        fake.target({ pid = 103, heap_state = "no_jemalloc" }), fake.target({ pid = 104 }),
      },
      proved_heap = {
        sites = HEAP.sites, targets = { { pid = 100 } },
        proofs = { { pid = 100, unreachable_bytes = 1024, unreachable_objects = 1 } },
      },
    })
    pass(server, 19)
    assert.same({}, server.host.proofs)
    pass(server, 1)
    assert.same({ 100, 104 }, pids(server.host))
    assert.equal("info: leak proof of process 100 (redis-server): complete after 2.1 s, stopped it for "
      .. "6.5 ms at most, 58.0 MiB read; nothing was found that points to 1.00 KiB in 1 object",
      logged(server.host, "process 100"))
    pass(server, 20)
    assert.same({ 100, 104, 100, 104 }, pids(server.host))
  end)

  it("on schedule are never two at once, nor is one begun before the last has ended", function()
    local server = server_of({ proof = 5 }, {
      target_list = { fake.target(), fake.target({ pid = 101 }) }, immediate = false,
    })
    local answer
    server.host.prove = function(pid, _, callback)
      server.host.proofs[#server.host.proofs + 1] = { pid = pid }
      answer = callback
    end
    pass(server, 30)
    assert.same({ 100 }, pids(server.host))
    answer(nil, { outcome = 0, elapsed_ms = 1, pause_ms = 1, read_bytes = 1 })
    while server.host.run_pending() > 0 do end
    assert.same({ 100, 101 }, pids(server.host))
    answer(nil, { outcome = 0, elapsed_ms = 1, pause_ms = 1, read_bytes = 1 })
    while server.host.run_pending() > 0 do end
    pass(server, 4)
    assert.equal(2, #server.host.proofs)
    pass(server, 1)
    assert.same({ 100, 101, 100 }, pids(server.host))
  end)

  it("on schedule are followed by a check, and warn where they are refused", function()
    local server = server_of({ proof = 5 }, {
      proof_replies = { [100] = { outcome = 6, elapsed_ms = 0, pause_ms = 0, anonymous_bytes = 2 ^ 30 } },
    })
    server.tick()
    local before = server.app.analysis:latest()
    pass(server, 6)
    assert.not_equal(before, server.app.analysis:latest())
    local line = logged(server.host, "leak proof")
    assert.truthy(line:find("warning: leak proof of process 100 (redis-server): refused: it has 1.00 GiB of", 1, true),
      line)
    server = server_of({ proof = 5 }, { proof_replies = { [100] = "gone" } })
    pass(server, 5)
    assert.equal("warning: leak proof of process 100 (redis-server): no answer: gone",
      logged(server.host, "leak proof"))
  end)

  it("on schedule are each program's own where there are several, and followed by its check alone", function()
    local server = server_of({ proof = 20 }, {
      serves = true, target_list = { fake.target({ pid = 7 }), fake.target({ pid = 9, root_pid = 7 }) },
    })
    local checked, take = {}, server.host.take_program
    server.host.take_program = function(pid, ...)
      checked[#checked + 1] = pid
      take(pid, ...)
    end
    pass(server, 10)
    table.insert(server.host.target_list, fake.target({ pid = 8 }))
    pass(server, 10)
    assert.same({}, server.host.proofs)
    checked = {}
    pass(server, 1)
    assert.same({ 7, 9 }, pids(server.host))
    assert.same({ 7, 7 }, checked) -- what the log says of each
    checked = {}
    pass(server, 1)
    assert.same({ 7 }, checked) -- the check
    pass(server, 8)
    assert.same({ 7, 9 }, pids(server.host))
    pass(server, 1)
    assert.same({ 7, 9, 8 }, pids(server.host))
    server.host.target_list = { server.host.target_list[3] }
    pass(server, 40)
    assert.same({ 7, 9, 8, 8, 8 }, pids(server.host))
  end)

  it("are not run where profiling is off", function()
    local server = server_of({ proof = 5, enable_profiling = false })
    pass(server, 10)
    assert.same({}, server.host.proofs)
  end)
end)
