require("spec.support")
local async = require("lupe.async")
local fake = require("spec.fake_host")
local recorder = require("lupe.recorder")
local surroundings = require("lupe.surroundings")

local SECOND, MIB = 1000, 2 ^ 20

describe("the recorder", function()
  local host, recording

  local function start(settings, given)
    host = fake.new(given)
    host.heap = { sites = { { name = "f", history = { 1, 2 } } } }
    host.config.record = "run.lupe"
    for name, value in pairs(settings or {}) do host.config[name] = value end
    host.clock_ms = host.started_ms
    local one, message = recorder.new(host, surroundings.new(host, function() return { wall = "nobody asked" } end))
    recording = host.recordings["run.lupe"]
    return one, message
  end

  --- A round of heap profiles each second; returns when frames were taken.
  local function run(one, seconds)
    for _ = 1, seconds do
      host.clock_ms = host.clock_ms + SECOND
      one:on_snapshot()
    end
    local times = {}
    for i, frame in ipairs(recording.frames) do times[i] = (frame.time_ms - host.started_ms) / SECOND end
    return times
  end

  local function finish(one, info)
    local ended
    async.spawn(function() one:finish(info) end, function(ok, failure) ended = assert(ok, failure) end)
    return ended
  end

  it("says at the start that a file cannot be made", function()
    local refused = { recorder = function() return nil, "run.lupe: Is a directory", "EISDIR" end }
    assert.same({ nil, "--record: run.lupe: Is a directory" }, { start({}, refused) })
  end)

  it("takes the first snapshot, and then one at each interval", function()
    assert.same({ 1, 5, 10, 15, 20, 25 }, run(start(), 29))
    assert.same({ 1, 10, 20 }, run(start({ record_interval_secs = 10 }), 29))
  end)

  it("takes fewer as the run gets longer: a day has some two hundred", function()
    local count = #run(start(), 86400)
    assert.is_true(count > 100 and count < 250, tostring(count))
  end)

  it("waits for the end where no process lives any more", function()
    local one = start()
    run(one, 1)
    host.target_list = { fake.target({ live = false }) }
    assert.same({ 1 }, run(one, 20))
  end)

  it("notes what no snapshot holds", function()
    run(start(), 1)
    local notes = recording.frames[1].notes
    assert.equal("redis-server", notes.targets[1].name)
    assert.equal(host.started_ms + SECOND, notes.now_ms)
    assert.equal(18 * MIB, notes.profiler.rss_bytes)
    local beside = notes.surroundings
    assert.same({ 2, 8, 1024 * MIB, "nobody asked" },
      { beside.cores, beside.allocator.arena_count, beside.cgroup.limit_bytes, beside.off_because.wall })
    assert.is_nil(notes.info)
  end)

  it("says what the run was", function()
    start({ command = { "server", "-x" }, memory_alert_mb = 900 })
    assert.same({ "server", "-x" }, recording.about.command)
    assert.equal(host.started_ms, recording.about.started_ms)
    assert.equal(900, recording.about.config.memory_alert_mb)
  end)

  it("ends with how the program ended", function()
    local one = start()
    run(one, 7)
    finish(one, { pid = 100, exit_code = 3, argv = { "server" }, color = true, snapshot = { keepalive = "kept" } })
    local last = recording.frames[3]
    assert.is_true(last.last)
    assert.equal("kept", last.keepalive)
    assert.same({ pid = 100, exit_code = 3, argv = { "server" } }, last.notes.info)
  end)

  it("has a last frame without a snapshot where nothing was profiled", function()
    local one = start()
    finish(one, { pid = 100, exit_code = 0 })
    assert.equal(1, #recording.frames)
    assert.is_nil(recording.frames[1].keepalive)
  end)

  it("keeps to its size: past it only the end is added, and that is said and counted", function()
    local one = start({ record_max_mb = 3 }, { frame_bytes = MIB })
    assert.equal(3, #run(one, 29))
    assert.equal("warning: the recording has reached 3.00 MiB (--record-max-mb): of what comes, only the end is added",
      table.concat(host.logged, "\n"))
    finish(one, { pid = 100, exit_code = 0 })
    assert.equal(4, #recording.frames)
    assert.equal(3, recording.frames[4].notes.skipped)
  end)

  it("says once that the disk is full, and stops", function()
    local one = start()
    run(one, 5)
    host.record_fails = "run.lupe: No space left on device"
    assert.equal(2, #run(one, 10))
    host.record_fails = nil
    assert.equal(2, #run(one, 10))
    finish(one, { pid = 100, exit_code = 0 })
    assert.equal(2, #recording.frames)
    assert.same({ "warning: the recording ends here, after 2 frames: run.lupe: No space left on device" }, host.logged)
  end)

  it("stops where writing raises an error, and holds up no end of a run", function()
    for frames = 0, 1 do
      local one = start()
      run(one, frames)
      host.record = function() error("no such recorder") end
      run(one, 10 * (1 - frames)) -- it fails here, or with the last frame
      assert.is_true(finish(one, { pid = 100, exit_code = 0 }))
      assert.equal(frames, #recording.frames)
      assert.equal(1, #host.logged)
      assert.matches("^error: recording failed: .*no such recorder", host.logged[1])
    end
  end)

  it("writes one frame at a time, and the last one after all others", function()
    local one = start()
    host.immediate = false
    assert.equal(1, #run(one, 20)) -- the first is on its way, as the fake's file has it at once
    assert.is_nil(finish(one, { pid = 100, exit_code = 0 }))
    host.run_pending()
    assert.equal(2, #recording.frames)
    assert.is_true(recording.frames[2].last)
    host.run_pending()
    assert.is_true(one.stopped)
  end)
end)
