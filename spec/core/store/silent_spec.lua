--- Connections to the agents' socket that say nothing.
local ffi = require("ffi")
local collected_run = require("spec.core.store.collected_run")
local fake_agent = require("spec.core.store.fake_agent")
local support = require("spec.support")

support.declare("core/wire/channel.h")
local core = support.core()

describe("a connection that says nothing", function()
  local run

  after_each(function()
    run:stop()
    support.cleanup()
  end)

  local function connect()
    local fd = ffi.new("int[1]")
    assert.equal(0, tonumber(core.lupe_channel_connect(run.path, fd)))
    return fd[0]
  end
  local function is_closed(fd)
    local head, body = ffi.new("lupe_message"), ffi.new("char[64]")
    return tonumber(core.lupe_channel_receive(fd, head, body, 64, nil)) == 7 -- LUPE_ENOENT
  end
  local function refused() return tonumber(core.lupe_collector_refused(run.collector)) end

  it("is closed after a while, and counted", function()
    run = collected_run.start({ hello_wait_ms = 100 })
    local quiet = connect()
    run:until_(function() return is_closed(quiet) end, "its end")
    assert.equal(1, refused())
    ffi.C.close(quiet)
  end)

  it("is not one that has said HELLO", function()
    run = collected_run.start({ hello_wait_ms = 1 })
    local agent, quiet = fake_agent.connect(run.path), connect()
    run:connected(ffi.C.getpid())
    run:until_(function() return is_closed(quiet) end, "the other one's end")
    assert.equal(1, refused())
    assert.is_true(core.lupe_collector_connected(run.collector, ffi.C.getpid()))
    agent:close()
    ffi.C.close(quiet)
  end)

  it("is waited for in the beginning, as a forked child is", function()
    run = collected_run.start({ hello_wait_ms = 60000 })
    local quiet = connect()
    local agent = fake_agent.connect(run.path)
    run:connected(ffi.C.getpid())
    assert.is_false(is_closed(quiet))
    assert.equal(0, refused())
    agent:close()
    ffi.C.close(quiet)
  end)
end)
