require("spec.support")
local fake = require("spec.fake_host")

local MIB = 2 ^ 20

describe("actions", function()
  local server, host, app

  local function start(allowed, given)
    server = fake.server(given)
    host, app = server.host, server.app
    host.config.actions = allowed
    app.actions = require("lupe.actions").new(app)
    host.logged = {}
  end

  local function finding(action, fields)
    local made = { rule = "action.mine", kind = "action", summary = "memory is full", action = action }
    for name, value in pairs(fields or {}) do made[name] = value end
    return made
  end

  local function consider(...)
    local findings = {}
    for i, action in ipairs({ ... }) do findings[i] = finding(action) end
    app.actions:consider({ findings = findings })
  end

  local function states()
    local list = {}
    for i, entry in ipairs(app.actions:list()) do list[i] = entry.name .. " " .. entry.state end
    return list
  end

  it("that are not allowed are not run, and listed with what would allow them", function()
    start({})
    consider({ name = "purge" }, { name = "snapshot" }, { name = "decay", dirty_ms = 0 },
      { name = "sampling", cpu_hz = 1 })
    assert.same({ "sampling not_allowed", "decay not_allowed", "snapshot not_allowed", "purge not_allowed" }, states())
    assert.equal("it is not allowed; --actions purge would allow it", app.actions:list()[4].result)
    assert.same({ {}, {} }, { host.commands, host.files })
    assert.equal(99, app.capture.rates.cpu_hz)
    assert.equal("warning: action purge was not run: it is not allowed; --actions purge would allow it "
      .. "(action.mine: memory is full)", host.logged[1])
  end)

  it("purge has all processes give back, or the one that is named", function()
    local dirty = 30 * MIB
    start({ "purge" }, {
      target_list = {
        fake.target({ pid = 1 }), fake.target({ pid = 2 }), fake.target({ pid = 3, live = false }),
        fake.target({ pid = 4, connected = false }),
      },
      allocator = function(pid) return { dirty_bytes = pid == 4 and 0 or dirty, muzzy_bytes = 0, arena_count = 1 } end,
    })
    local told = host.command
    host.command = function(...)
      dirty = dirty - 10 * MIB
      told(...)
    end
    consider({ name = "purge" })
    assert.same({ { pid = 1, command = { name = "purge" } }, { pid = 2, command = { name = "purge" } } }, host.commands)
    assert.equal("gave 40.0 MiB of unused pages back, in 2 processes, 3 ms", app.actions:list()[1].result)
    consider({ name = "purge", pid = 2 })
    assert.same({ 3, 2 }, { #host.commands, host.commands[3].pid })
    assert.equal("process 2", app.actions:list()[1].target)
    consider({ name = "purge", pid = 77 })
    local newest = app.actions:list()[1]
    assert.same({ "failed", "no process 77 is profiled" }, { newest.state, newest.result })
  end)

  it("purge of one program of several leaves the others out, also of what it says", function()
    local dirty = { 30 * MIB, 20 * MIB, 10 * MIB }
    start({ "purge" }, {
      target_list = { fake.target({ pid = 1 }), fake.target({ pid = 2, root_pid = 1 }), fake.target({ pid = 3 }) },
      allocator = function(pid) return { dirty_bytes = dirty[pid], muzzy_bytes = 0, arena_count = 1 } end,
    })
    local told = host.command
    host.command = function(pid, ...)
      dirty[pid], dirty[3] = 0, dirty[3] + 25 * MIB -- the other one frees meanwhile
      told(pid, ...)
    end
    app.actions:consider({ findings = { finding({ name = "purge" }) } }, 1)
    assert.same({ 1, 2 }, { host.commands[1].pid, host.commands[2].pid })
    assert.equal("gave 50.0 MiB of unused pages back, in 2 processes, 3 ms", app.actions:list()[1].result)
  end)

  it("decay passes its times on", function()
    start({ "decay" })
    consider({ name = "decay", dirty_ms = 1000, muzzy_ms = -1 })
    assert.same({ name = "decay", dirty_ms = 1000, muzzy_ms = -1 }, host.commands[1].command)
    assert.equal("dirty_decay_ms:1000,muzzy_decay_ms:-1 in 1 process", app.actions:list()[1].result)
  end)

  it("say why they failed", function()
    start({ "purge" })
    host.command = function(_, _, callback) callback("Operation not supported", nil, "ENOTSUP") end
    consider({ name = "purge" })
    assert.equal("warning: action purge failed: process 100: Operation not supported (action.mine: memory is full)",
      host.logged[1])
  end)

  it("snapshot writes one, as the route does", function()
    start({ "snapshot" }, { heap = { sites = { { name = "f", history = { 100 } } } } })
    consider({ name = "snapshot", reason = "why not" })
    assert.same({ "snapshot done" }, states())
    assert.truthy(host.files["/state/snapshots/snapshot_1728583200.json"])
    assert.equal("wrote /state/snapshots/snapshot_1728583200.json (0.98 KiB)", app.actions:list()[1].result)
  end)

  it("snapshot fails in words, and what it began is given up", function()
    start({ "snapshot" })
    consider({ name = "snapshot" })
    assert.same({ "failed", "no heap profile was taken yet" },
      { app.actions:list()[1].state, app.actions:list()[1].result })
    assert.same({}, app.snapshots.pending)
  end)

  it("sampling changes the rates of the run", function()
    start({ "sampling" })
    consider({ name = "sampling", cpu_hz = 7 })
    assert.same({ 7, 20 }, host.rates)
    assert.equal("7 CPU samples per second of CPU time, 20 looks a second", app.actions:list()[1].result)
  end)

  it("are not run again within their cooldown, each action and target by itself", function()
    start({ "purge", "decay" })
    consider({ name = "purge" })
    consider({ name = "purge" }, { name = "purge", pid = 100 }, { name = "decay", dirty_ms = 1 })
    assert.same({ "decay done", "purge done", "purge done" }, states())
    host.clock_ms = host.clock_ms + 299999
    consider({ name = "purge" })
    assert.equal(3, #host.commands)
    host.clock_ms = host.clock_ms + 1
    consider({ name = "purge" })
    assert.equal(4, #host.commands)
    consider({ name = "purge", cooldown_secs = 1 })
    assert.equal(4, #host.commands)
    host.clock_ms = host.clock_ms + 1000
    consider({ name = "purge", cooldown_secs = 1 })
    assert.equal(5, #host.commands)
  end)

  it("not allowed keep to the cooldown too, so that the list is not full of them", function()
    start({})
    for _ = 1, 10 do consider({ name = "purge" }) end
    assert.same({ "purge not_allowed" }, states())
  end)

  it("run one after the other", function()
    start({ "purge" }, { immediate = false })
    consider({ name = "purge" }, { name = "purge", pid = 100 })
    assert.same({ "purge waiting", "purge running" }, states())
    while host.run_pending() > 0 do end
    assert.same({ "purge done", "purge done" }, states())
  end)

  it("are listed up to a bound, the newest first", function()
    start({ "purge" })
    for i = 1, 250 do consider({ name = "purge", pid = i }) end
    local list = app.actions:list()
    assert.same({ 200, "process 250", "process 51" }, { #list, list[1].target, list[200].target })
  end)

  it("are notes in the report at the end", function()
    start({ "decay" })
    consider({ name = "decay", dirty_ms = 5 }, { name = "purge" })
    local notes = app.actions:notes()
    table.sort(notes)
    assert.same({
      "action decay was run: dirty_decay_ms:5 in 1 process (action.mine: memory is full)",
      "action purge was not run: it is not allowed; --actions purge would allow it (action.mine: memory is full)",
    }, notes)
  end)
end)
