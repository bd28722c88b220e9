--- What the agent carries out when it is told to, in programs that run on.
-- not under asan: neither the agent nor the programs that it is in are sanitized
local ffi = require("ffi")
local fake_runtime = require("spec.core.agent.fake_runtime")
local support = require("spec.support")

local sampling = fake_runtime.sampling
local EPERM, EINVAL, ENOSYS, ENOTSUP = 1, 22, 38, 95
local SAME, NEVER = -2, -1

describe("the agent, told what to do,", function()
  local runtime

  before_each(function() runtime = fake_runtime.new() end)
  after_each(function() runtime:close() end)

  --- A fixture that does `commands`, and waits. Returns its connection and its process.
  local function paused(fixture, commands, options, welcome)
    local argv = { support.fixture(fixture) }
    for _, command in ipairs(commands) do argv[#argv + 1] = command end
    argv[#argv + 1] = runtime.tell
    argv[#argv + 1] = runtime.wait
    argv[#argv + 1] = commands.at_last
    local host = runtime:spawn(argv, options)
    local c = runtime:hello()
    c:welcome(welcome)
    runtime:reached()
    return c, host
  end

  local function ended(host)
    runtime:release()
    assert.are.equal(0, host:wait(20))
  end

  local function figure(c, name)
    local figures = c:figures()
    return figures and tonumber(figures[name])
  end

  local KEEPS = { conf = "prof:true,prof_active:false,lg_prof_sample:12,dirty_decay_ms:-1" }

  it("gives unused pages back, and shows it at once", function()
    local c, host = paused("agent_host", { "churn=10,4000000", "churn=1000,200000" }, KEEPS)
    support.eventually(function() return (figure(c, "dirty_bytes") or 0) > 3000000 end, 10, "dirty pages")
    local reply = c:command("purge")
    assert.are.equal(0, reply.status)
    assert.is_true(tonumber(reply.elapsed_ns) > 0)
    assert.is_true(figure(c, "dirty_bytes") < 500000, figure(c, "dirty_bytes") .. " bytes are dirty still")
    ended(host)
  end)

  it("changes how long unused pages are kept, in the arenas that are there", function()
    local c, host = paused("agent_host", { "churn=10,4000000" }, KEEPS)
    support.eventually(function() return (figure(c, "dirty_bytes") or 0) > 3000000 end, 10, "dirty pages")
    assert.are.equal(0, c:command("decay", { dirty_decay_ms = 0, muzzy_decay_ms = SAME }).status)
    assert.are.same({ 0, 0 }, { figure(c, "dirty_decay_ms"), figure(c, "muzzy_decay_ms") })
    assert.is_true(figure(c, "dirty_bytes") < 500000, figure(c, "dirty_bytes") .. " bytes are dirty still")
    assert.are.equal(0, c:command("decay", { dirty_decay_ms = 2500, muzzy_decay_ms = NEVER }).status)
    assert.are.same({ 2500, -1 }, { figure(c, "dirty_decay_ms"), figure(c, "muzzy_decay_ms") })
    assert.are.equal(EINVAL, c:command("decay", { dirty_decay_ms = -3, muzzy_decay_ms = SAME }).status)
    assert.are.equal(2500, figure(c, "dirty_decay_ms"))
    ended(host)
  end)

  it("lets huge blocks be given back at once, whatever it was told before", function()
    local conf = "narenas:1,background_thread:true,prof:true,prof_active:false,lg_prof_sample:12"
    local c, host = paused("agent_host", { "churn=1,20000000", at_last = "decays=1" }, { conf = conf })
    for _, ms in ipairs({ 0, 60000 }) do
      assert.are.equal(0, c:command("decay", { dirty_decay_ms = ms, muzzy_decay_ms = ms }).status)
    end
    ended(host)
    assert.are.equal("60000,60000 0,0\n", host:stdout())
  end)

  it("passes over arenas that have not begun", function()
    local conf = "narenas:2000,prof:true,prof_active:false,lg_prof_sample:12,dirty_decay_ms:-1"
    local c, host = paused("agent_host", { "churn=10,4000000" }, { conf = conf })
    assert.are.equal(0, c:command("purge").status)
    assert.is_true(figure(c, "dirty_bytes") < 500000, figure(c, "dirty_bytes") .. " bytes are dirty still")
    assert.are.equal(0, c:command("decay", { dirty_decay_ms = 0, muzzy_decay_ms = 0 }).status)
    ended(host)
  end)

  it("leaves forked children arenas that give back", function()
    local c, host = paused("agent_host", { at_last = "purgeforks=30,1000000" }, KEEPS)
    local serial, purges, over = 0, 0, false
    runtime:release()
    while not over do
      serial = serial + 1
      c:say(7, ffi.new("lupe_agent_command", { serial = serial, kind = 2 }))
      local name
      support.eventually(function()
        runtime:try_hello() -- of the children, who wait for it
        name = c:try()
        if name == "commanded" then purges = purges + 1 end
        over = name == "goodbye" or name == "gone"
        return name == "commanded" or over
      end, 20, "the purge")
    end
    assert.are.equal(0, host:wait(20))
    assert.is_true(purges > 5, purges .. " purges")
    local stuck = tonumber(host:stdout():match("stuck (%d+)"))
    assert.is_true(stuck < 3, stuck .. " of 30 children keep what they free") -- 0, but on a busy machine
  end)

  it("says that it cannot where there is no jemalloc, or it is to be left alone", function()
    for _, options in ipairs({ { jemalloc = false }, { env = { LUPE_ALLOCATOR = "system" } } }) do
      runtime:meet_again()
      local c, host = paused("agent_host", {}, options)
      assert.are.equal(ENOTSUP, c:command("purge").status)
      assert.are.equal(ENOTSUP, c:command("decay", { dirty_decay_ms = 0 }).status)
      ended(host)
    end
  end)

  it("refuses what it does not know, and everything while it is to be quiet", function()
    local c, host = paused("agent_host", {})
    assert.are.equal(ENOSYS, c:command(99).status)
    c:welcome({ enabled = false })
    assert.are.equal(EPERM, c:command("purge").status)
    assert.are.equal(EPERM, c:command("sampling", { cpu_hz = 100, wall_hz = 20 }).status)
    assert.are.equal(sampling.off, c:counter("cpu_state"))
    ended(host)
  end)

  it("switches CPU and wall sampling on and off, each without the other", function()
    local c, host = paused("cpu_host", { at_last = "burn=300" }, { jemalloc = false }, { cpu_hz = 200, wall_hz = 50 })
    local function states(cpu, wall)
      support.eventually(function()
        c:drain()
        return c:counter("cpu_state") == sampling[cpu] and c:counter("wall_state") == sampling[wall]
      end, 10, ("CPU %s, wall %s"):format(cpu, wall))
    end
    local function looked()
      local before = c:counter("wall_looks")
      support.eventually(function() return c:counter("wall_looks") > before + 2 end, 10, "looks")
    end
    states("on", "on")
    looked()
    c:command("sampling", { cpu_hz = 0, wall_hz = 50 })
    states("off", "on")
    looked()
    c:command("sampling", { cpu_hz = 0, wall_hz = 0 })
    states("off", "off")
    local before = c:counter("wall_looks")
    c:command("sampling", { cpu_hz = 1000, wall_hz = 0 })
    states("on", "off")
    c:command("sampling", { cpu_hz = 500, wall_hz = 0 })
    support.eventually(function() return c:counter("cpu_state") == sampling.on end, 10, "timers again")
    assert.are.equal(before, c:counter("wall_looks"))
    c:command("sampling", { cpu_hz = 500, wall_hz = 100 })
    states("on", "on")
    looked()
    ended(host)
    local sum = 0
    for _, sample in ipairs(c:drain()) do
      if sample.kind == "cpu" and sample.period_ns == 2000000 then sum = sum + sample.weight end
    end
    assert.is_near(0.3, sum * 0.002, 0.1)
  end)
end)
