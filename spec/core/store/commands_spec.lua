--- Commands to an agent that does not answer.
local ffi = require("ffi")
local snapshots = require("spec.support_snapshot")
local support = require("spec.support")

ffi.cdef("typedef int pid_t; typedef unsigned uid_t; pid_t getpid(void);")
support.declare("core/store/commands.h")
support.declare("core/wire/ring.h")
support.declare("core/wire/channel.h")
local core = support.core()
local HELLO, COMMAND, COMMANDED, PURGE = 1, 7, 8, 2

local function code(status) return tonumber(status) end

describe("commands to an agent", function()
  local run, agent, session, commands, callbacks, outcomes, aggregator

  --- What the agent finds in its socket: the next command, or nil. Its WELCOME is passed over.
  local function heard()
    local head, body = ffi.new("lupe_message"), ffi.new("uint64_t[64]")
    while core.lupe_channel_receive(agent, head, body, 512, nil) == core.LUPE_OK do
      if head.type == COMMAND then
        local command = ffi.new("lupe_agent_command")
        ffi.copy(command, body, ffi.sizeof(command))
        return command
      end
    end
  end

  local function answer(command)
    local reply = ffi.new("lupe_command_reply", { serial = command.serial })
    assert.equal(0, code(core.lupe_channel_send(agent, COMMANDED, reply, ffi.sizeof(reply), -1)))
    assert.equal(0, code(core.lupe_session_receive(session)))
  end

  local function send()
    local purge = ffi.new("lupe_agent_command", { kind = PURGE })
    return code(core.lupe_commands_send(commands, session, purge, callbacks.done, nil))
  end

  before_each(function()
    local path, fd = support.temp_dir() .. "/socket", ffi.new("int[1]")
    assert.equal(0, code(core.lupe_channel_listen(path, fd)))
    local listening = fd[0]
    assert.equal(0, code(core.lupe_channel_connect(path, fd)))
    agent = fd[0]
    assert.equal(0, code(core.lupe_channel_accept(listening, fd)))
    snapshots.close(listening)
    run, commands, outcomes = snapshots.run({}), ffi.new("lupe_commands"), {}
    callbacks = {
      done = ffi.cast("lupe_command_cb", function(_, status) outcomes[#outcomes + 1] = code(status) end),
      commanded = ffi.cast("void (*)(void *, lupe_session *, const lupe_command_reply *)", function(_, s, reply)
        core.lupe_commands_answered(commands, s, reply)
      end),
      mapped = ffi.cast("void (*)(void *)", function() end),
    }
    local out, welcome = ffi.new("lupe_session *[1]"), ffi.new("lupe_welcome")
    aggregator = run.a
    local events = ffi.new("lupe_session_events", { commanded = callbacks.commanded, mapped = callbacks.mapped })
    assert.equal(0, code(core.lupe_session_create(out, fd[0], aggregator, welcome, events, nil)))
    session = out[0]
    local segment = ffi.new("lupe_segment *[1]")
    assert.equal(0, code(core.lupe_segment_create(fd, segment)))
    local hello = ffi.new("lupe_hello", { version = ffi.C.LUPE_WIRE_VERSION, pid = ffi.C.getpid(), heap_state = 1 })
    assert.equal(0, code(core.lupe_channel_send(agent, HELLO, hello, ffi.sizeof(hello), fd[0])))
    snapshots.close(fd[0])
    core.lupe_segment_unmap(segment[0])
    assert.equal(0, code(core.lupe_session_receive(session)))
  end)
  after_each(function()
    core.lupe_session_free(session)
    snapshots.close(agent)
    for _, callback in pairs(callbacks) do callback:free() end
    support.cleanup()
  end)

  it("do not pile up behind one that was given up on", function()
    assert.equal(0, send())
    assert.equal(0, send())
    core.lupe_commands_expire(commands, 1e15)
    assert.same({ code(core.LUPE_EAGAIN), code(core.LUPE_EAGAIN) }, outcomes)
    assert.equal(code(core.LUPE_EAGAIN), send())
    answer(heard()) -- the first of the two: it goes on, and the other comes next
    assert.equal(code(core.LUPE_EAGAIN), send())
    answer(heard())
    assert.is_nil(heard())
    assert.equal(0, send())
    answer(heard())
    assert.equal(code(core.LUPE_OK), outcomes[3])
  end)

  it("tell of the newest rates only, once the last change was answered", function()
    assert.equal(0, code(core.lupe_session_set_rates(session, 100, 0)))
    for hz = 1, 50 do assert.equal(code(core.LUPE_EAGAIN), code(core.lupe_session_set_rates(session, hz, 0))) end
    answer(heard())
    assert.is_nil(heard())
    assert.equal(0, code(core.lupe_session_set_rates(session, 50, 0)))
    assert.equal(50, heard().cpu_hz)
  end)
end)
