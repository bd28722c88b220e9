--- Leak proofs between the collector and agents: asked for, and not.
local ffi = require("ffi")
local collected_run = require("spec.core.store.collected_run")
local fake_agent = require("spec.core.store.fake_agent")
local proofs = require("spec.support_proof")
local snapshots = require("spec.support_snapshot")
local support = require("spec.support")

support.declare("core/store/jobs.h")
local core = support.core()
local OK, AGAIN, CORRUPT, GONE = 0, 4, 5, 7
local NO_MEMORY, BUSY = 5, 1 -- LUPE_PROOF_...

local function leak(size)
  return proofs.block {
    stacks = { { 0x1000 } }, objects = { { size = size or 64, state = "unreachable", group = 0, head = true } },
  }
end

--- Blocks of proofs that this process has open.
local function open_blocks()
  local _, count = support.run({ "ls", "-l", "/proc/" .. ffi.C.getpid() .. "/fd" }).out:gsub("memfd:spec%-proof", "")
  return count
end

describe("leak proofs of a run", function()
  local run, agent, own
  before_each(function()
    own = ffi.C.getpid()
    run = collected_run.start()
    agent = fake_agent.connect(run.path)
    run:connected(own)
  end)
  after_each(function()
    agent:close()
    run:stop()
    local left = open_blocks()
    support.cleanup()
    assert.equal(0, left)
  end)

  local function asked()
    local request
    run:until_(function()
      request = agent:heard_of("prove")
      return request
    end, "the request")
    return request
  end

  local function one(told)
    run:until_(function() return told[1] end, "the answer")
    return told[1]
  end

  it("are asked of the process's agent, within limits, and are in the next snapshot", function()
    local status, told = run:prove(own, {
      interval_ms = 2500, max_ms = 20000, max_heap_bytes = 8e9, max_table_bytes = 1e9, min_free_bytes = 2e8,
      min_free_share = 0.25,
    })
    assert.equal(OK, status)
    local request = asked()
    local limits = request.limits
    assert.same({ 2500, 20000, 8e9, 1e9, 2e8, 0.25 }, {
      limits.interval_ms, limits.max_ms, tonumber(limits.max_heap_bytes), tonumber(limits.max_table_bytes),
      tonumber(limits.min_free_bytes), limits.min_free_share,
    })
    assert.same({}, told)
    agent:prove({ serial = request.serial, elapsed_ns = 3e9 }, leak(96))
    assert.same({ OK, outcome = 0, elapsed_ns = 3e9, why = "" }, one(told))
    local _, rows = proofs.shown(run:snapshot().header)
    assert.same({ 1, 96 }, { #rows, rows[1].unreachable_bytes })
    assert.equal(1, #told)
  end)

  it("may be refused by the agent", function()
    local _, told = run:prove(own)
    agent:prove({ serial = asked().serial, outcome = NO_MEMORY }, leak()) -- nobody looks at its block
    assert.same({ OK, outcome = NO_MEMORY, elapsed_ns = 0, why = "" }, one(told))
    local list, rows = proofs.shown(run:snapshot().header)
    assert.same({ 1, NO_MEMORY, {} }, { #list, list[1].outcome, rows })
  end)

  it("are refused where the block is malformed, and the process stays", function()
    local _, told = run:prove(own)
    agent:prove({ serial = asked().serial }, leak():sub(1, -2))
    local answer = one(told)
    assert.equal(CORRUPT, answer[1])
    assert.is_truthy(answer.why:find("counts: they make", 1, true), answer.why)
    _, told = run:prove(own)
    agent:prove({ serial = asked().serial }, leak())
    assert.equal(OK, one(told)[1])
  end)

  it("are told of twice at once by the agent, which is busy, and not a third time", function()
    local _, first = run:prove(own)
    local _, second = run:prove(own)
    assert.equal(AGAIN, (run:prove(own)))
    local a, b = asked(), asked()
    agent:prove({ serial = b.serial, outcome = BUSY })
    assert.same({ OK, outcome = BUSY, elapsed_ns = 0, why = "" }, one(second))
    assert.same({}, first)
    agent:prove({ serial = a.serial }, leak())
    assert.equal(0, one(first).outcome)
    assert.equal(OK, (run:prove(own)))
  end)

  it("are not answered by an answer to something else", function()
    local _, told = run:prove(own)
    local request = asked()
    agent:answer_command(request.serial)
    agent:prove({ serial = request.serial + 1, outcome = BUSY })
    run:snapshot()
    assert.same({}, told)
    agent:prove({ serial = request.serial }, leak())
    assert.equal(0, one(told).outcome)
  end)

  it("come unasked from a program that exits, in time for the last snapshot", function()
    agent:prove({ serial = 0 }, leak(160))
    agent:say_goodbye()
    agent:close()
    local last = run:finish() -- nothing was read of it before
    local list, rows = proofs.shown(last.header)
    local targets = snapshots.column(last.header, "targets", "lupe_snapshot_target")
    assert.same({ 1, 0, 1, 160 }, { #list, targets[0].live, #rows, rows[1].unreachable_bytes })
  end)

  it("are taken in though nobody waits for them, where they come when the process ends", function()
    local _, told = run:prove(own)
    agent:prove({ serial = asked().serial }, leak())
    agent:close()
    assert.same({ OK, outcome = 0, elapsed_ns = 0, why = "" }, one(told))
    assert.equal(1, #told)
  end)

  it("end with the agent", function()
    local _, told = run:prove(own)
    asked()
    agent:close()
    assert.same({ GONE, why = "" }, one(told))
    assert.equal(GONE, (run:prove(own)))
    run:snapshot()
    assert.equal(1, #told)
  end)

  it("end with the run", function()
    local _, told = run:prove(own)
    asked()
    run:stop()
    assert.same({ { GONE, why = "" } }, told)
    run = collected_run.start()
  end)

  it("are made by several processes at once", function()
    local go = support.temp_dir() .. "/go"
    local other = fake_agent.spawn(run.path, go, 320)
    run:connected(other.pid)
    local _, of_own = run:prove(own)
    local _, of_other = run:prove(other.pid)
    agent:prove({ serial = asked().serial, elapsed_ns = 1 }, leak(64))
    assert.equal(1, one(of_own).elapsed_ns)
    assert.same({}, of_other)
    support.write_file(go, "")
    assert.equal(320, one(of_other).elapsed_ns)
    local list, rows = proofs.shown(run:snapshot().header)
    table.sort(rows, function(a, b) return a.bytes < b.bytes end)
    assert.same({ 2, 64, 320 }, { #list, rows[1].bytes, rows[2].bytes })
  end)

  it("are made at the exit of programs that run already, and of those to come", function()
    local welcome = agent:heard_of("welcome")
    assert.equal(0, welcome.proof_at_exit)
    local limits = ffi.new("lupe_proof_limits", { interval_ms = 1500, max_ms = 9000, min_free_share = 0.5 })
    core.lupe_collector_set_proof_at_exit(run.collector, limits)
    welcome = agent:heard_of("welcome")
    assert.same({ 1, 1500, 9000, 0.5 }, {
      welcome.proof_at_exit, welcome.proof.interval_ms, welcome.proof.max_ms, welcome.proof.min_free_share,
    })
    local later = fake_agent.connect(run.path)
    run:until_(function()
      welcome = later:heard_of("welcome")
      return welcome
    end, "its WELCOME")
    later:close()
    assert.same({ 1, 1500 }, { welcome.proof_at_exit, welcome.proof.interval_ms })
    core.lupe_collector_set_proof_at_exit(run.collector, nil)
    welcome = agent:heard_of("welcome")
    assert.same({ 0, 0 }, { welcome.proof_at_exit, welcome.proof.interval_ms })
  end)
end)

describe("a leak proof that is waited for", function()
  local run, agent, session, jobs, room, callbacks, told
  before_each(function()
    run = collected_run.start()
    local fd, out = ffi.new("int[1]"), ffi.new("lupe_session *[1]")
    local path = support.temp_dir() .. "/socket"
    assert.equal(0, tonumber(core.lupe_channel_listen(path, fd)))
    local listening = fd[0]
    agent = fake_agent.connect(path)
    assert.equal(0, tonumber(core.lupe_channel_accept(listening, fd)))
    snapshots.close(listening)
    room, told = ffi.new("lupe_proofs"), {}
    callbacks = {
      idle = ffi.cast("void (*)(void *)", function() end),
      proved = ffi.cast("void (*)(void *, lupe_session *, const lupe_proof_reply *, int)", function(_, s, reply, block)
        core.lupe_proofs_answered(room, jobs, s, reply, block)
      end),
      done = ffi.cast("lupe_proof_cb", function(_, status) told[#told + 1] = tonumber(status) end),
    }
    local queue = ffi.new("lupe_jobs *[1]")
    assert.equal(0, tonumber(core.lupe_jobs_create(queue, run.pool, run.a, callbacks.idle, nil)))
    jobs = queue[0]
    local events = ffi.new("lupe_session_events", { proved = callbacks.proved })
    assert.equal(0, tonumber(core.lupe_session_create(out, fd[0], run.a, ffi.new("lupe_welcome"), events, nil)))
    session = out[0]
    assert.equal(0, tonumber(core.lupe_session_receive(session)))
  end)
  after_each(function()
    core.lupe_session_free(session)
    agent:close()
    run:until_(function() return core.lupe_jobs_idle(jobs) end, "the jobs")
    core.lupe_jobs_free(jobs)
    run:stop()
    for _, callback in pairs(callbacks) do callback:free() end
    support.cleanup()
  end)

  local function ask(limits)
    return tonumber(core.lupe_proofs_ask(room, session, ffi.new("lupe_proof_limits", limits), callbacks.done, nil))
  end

  it("is given up on five seconds after its limits let it end, and is taken in when it comes all the same", function()
    local before = os.time() * 1000
    assert.equal(OK, ask { interval_ms = 3600000, max_ms = 7200000 })
    local due = before + 3600000 + 2 * 7200000 + 5000
    core.lupe_proofs_expire(room, due - 1000)
    assert.same({}, told)
    core.lupe_proofs_expire(room, due + 60000)
    assert.same({ AGAIN }, told)
    agent:prove({ serial = agent:heard_of("prove").serial }, leak(192))
    assert.equal(0, tonumber(core.lupe_session_receive(session)))
    run:until_(function() return core.lupe_jobs_idle(jobs) end, "the job")
    local _, rows = proofs.shown(run:snapshot().header)
    assert.same({ { AGAIN }, 192 }, { told, rows[1].unreachable_bytes })
  end)

  it("takes limits as long as can be asked for", function()
    assert.equal(OK, ask { interval_ms = 0xffffffff, max_ms = 0xffffffff })
    core.lupe_proofs_expire(room, os.time() * 1000 + 2 ^ 32)
    assert.same({}, told)
    core.lupe_proofs_forget(room, session)
    assert.same({ GONE }, told)
  end)

  it("does not pile up behind a process that is stopped", function()
    assert.same({ OK, OK, AGAIN }, { ask {}, ask {}, ask {} })
    core.lupe_proofs_expire(room, 1e15)
    assert.equal(AGAIN, ask {})
    agent:prove({ serial = agent:heard_of("prove").serial, outcome = BUSY })
    assert.equal(0, tonumber(core.lupe_session_receive(session)))
    assert.same({ OK, AGAIN }, { ask {}, ask {} })
    core.lupe_proofs_forget(room, session)
  end)
end)
