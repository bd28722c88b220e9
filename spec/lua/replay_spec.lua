--- Commands on recordings, over a fake host: `lupe rules replay` and `lupe report`.
require("spec.support")
local async = require("lupe.async")
local fake = require("spec.fake_host")
local json = require("lupe.json")
local recording = require("lupe.recording")
local recorded_report = require("lupe.recorded_report")
local replay = require("lupe.replay")
local support = require("spec.support")

local MIB, STARTED = 2 ^ 20, 1728583000000

local function ramp(ticks, step)
  local list = {}
  for i = 1, ticks do list[i] = i * step end
  return list
end

--- A leak that shows after a while, and a function that is loud at 20 s only.
local function frame_at(seconds)
  local sites = { { name = "remember", module = "/bin/server", history = ramp(seconds, MIB) } }
  return {
    time_ms = STARTED + seconds * 1000,
    notes = {
      now_ms = STARTED + seconds * 1000, targets = { fake.target({ name = "server", pid = 7 }) },
      profiler = fake.new().profiler(),
    },
    heap = {
      started_ms = STARTED, interval_ms = 1000, sample_period_bytes = 524288, sites = sites,
      time_ms = STARTED + seconds * 1000, generation = seconds,
    },
  }
end

local SPEAKS_UP = [[
return {
  api = 1, id = "spec.speaks-up", kind = "pattern", title = "speaks up", needs = { "heap" },
  check = function(view)
    local profiles = view.heap.profiles
    if profiles < 20 then return {} end
    for site in view.heap:sites() do
      return { { site = site, verdict = profiles < 40 and "growing" or "leak", summary = "profile " .. profiles } }
    end
  end,
}
]]
local RAISES = [[
return { api = 1, id = "spec.raises", kind = "pattern", title = "raises", check = function() error("oops") end }
]]

describe("a recording", function()
  local host, folder

  before_each(function()
    folder = support.temp_dir()
    host = fake.new({ rules_dir = folder })
    local last = frame_at(60)
    last.last, last.notes.info = true, { pid = 7, exit_code = 3, argv = { "/bin/server" }, timed_out = false }
    host.recordings["run.lupe"] = {
      about = {
        lupe = "0.1.0", started_ms = STARTED, command = { "/bin/server" },
        config = { memory_warning_mb = 100, memory_alert_mb = 200, enable_profiling = true },
      },
      frames = { frame_at(5), frame_at(20), frame_at(40), last },
    }
  end)
  after_each(support.cleanup)

  local function rule(name, source) support.write_file(folder .. "/" .. name .. ".lua", source) end

  local function in_task(body, ...)
    local results
    async.spawn(body, function(...) results = { n = select("#", ...), ... } end, ...)
    assert(results, "it never ended")
    assert(results[1], results[2])
    return unpack(results, 2, results.n)
  end

  local function opened() return assert(recording.open(host, "run.lupe")) end

  local function replayed(options)
    options = options or {}
    local text = in_task(replay.run, host, opened(), options)
    return options.format == "json" and json.decode(text) or text
  end

  local function reported(options) return in_task(recorded_report, host, opened(), options or {}) end

  it("that is not there, or says nothing of its run, is an error that names it", function()
    assert.same({ nil, "other.lupe: No such file or directory" }, { recording.open(host, "other.lupe") })
    host.recordings["run.lupe"].about = { lupe = "0.1.0" }
    local _, message = recording.open(host, "run.lupe")
    assert.equal("run.lupe: what it says about its run cannot be read: no start time", message)
  end)

  it("finds the frame nearest to a time", function()
    local one = opened()
    for seconds, index in pairs({ [0] = 1, [12] = 1, [13] = 2, [20] = 2, [30] = 3, [1e6] = 4 }) do
      assert.equal(index, one:nearest(seconds), seconds)
    end
  end)

  it("is replayed frame by frame, with what the rules find at each", function()
    rule("speaks_up", SPEAKS_UP)
    local told = replayed({ format = "json" })
    assert.same({ "run.lupe", "server", true, 0 }, { told.recording, told.program, told.complete, told.skipped })
    local seen = {}
    for i, frame in ipairs(told.frames) do
      local found = frame.findings[1]
      seen[i] = { frame.seconds, frame.last, #frame.findings, found and found.verdict, found and found.component }
    end
    assert.same({
      { 5, false, 0 }, { 20, false, 1, "growing", "remember" }, { 40, false, 1, "leak", "remember" },
      { 60, true, 1, "leak", "remember" },
    }, seen)
  end)

  it("gives the same text on every replay", function()
    rule("speaks_up", SPEAKS_UP)
    rule("raises", RAISES)
    for _, form in ipairs({ "json", "text" }) do
      local first = replayed({ format = "text", raw = form })
      assert.equal(first, replayed({ format = "text", raw = form }))
    end
  end)

  it("tells in words what appeared, changed and went, and what there is at the end", function()
    rule("speaks_up", (SPEAKS_UP:gsub("if profiles < 20", "if profiles < 20 or profiles == 60")))
    assert.equal([[
run.lupe: server, 4 frames, the last at 60 s
     5.0 s    failed
    20.0 s  + spec.speaks-up, growing
              profile 20
    40.0 s  ~ spec.speaks-up, leak (was growing)
              profile 40
    60.0 s  - spec.speaks-up
              profile 40

at 60 s: nothing found
]], replayed())
  end)

  it("shows an error of a rule once, and goes on", function()
    rule("raises", RAISES)
    local told = replayed({ format = "json" })
    assert.equal(4, #told.frames)
    for _, frame in ipairs(told.frames) do assert.matches("^spec.raises: .*oops", frame.errors[1]) end
    local _, times = replayed():gsub("oops", "")
    assert.equal(1, times)
  end)

  it("is replayed at one frame, or for one rule", function()
    rule("speaks_up", SPEAKS_UP)
    rule("raises", RAISES)
    local told = replayed({ format = "json", at = 21 })
    assert.same({ 1, 20 }, { #told.frames, told.frames[1].seconds })
    for _, frame in ipairs(replayed({ format = "json", only = "spec.speaks-up" }).frames) do
      assert.same({}, frame.errors)
      assert.equal("ok", frame.status)
    end
    told = replayed({ format = "json", only = "spec.raises" })
    assert.same({ "failed", {} }, { told.frames[2].status, told.frames[2].findings })
  end)

  it("is replayed for one rule that does not run: each frame says why", function()
    rule("speaks_up", SPEAKS_UP)
    host.config.rules_disabled = { "spec.*" }
    local function told(options)
      options.format, options.only = "json", "spec.speaks-up"
      local frame = replayed(options).frames[3]
      assert.same({}, frame.findings)
      return { frame.status, frame.errors[1] }
    end
    local path = folder .. "/speaks_up.lua"
    local disabled = { "failed", "spec.speaks-up: not run, it is disabled: see rules_disabled" }
    assert.same(disabled, told({}))
    assert.same(disabled, told({ path = path }))
    local text = replayed({ only = "spec.speaks-up" })
    assert.matches("  failed\n.*not run, it is disabled", text)
    assert.matches("at 60 s: nothing found, and not all rules gave an answer\n$", text)
    host.config.rules_disabled = nil
    assert.same({ "failed", "spec.nobody: not run, no rule with this id is in force" }, (function()
      local frame = replayed({ format = "json", only = "spec.nobody" }).frames[1]
      return { frame.status, frame.errors[1] }
    end)())
    -- Another rule of the same id does not stand in for a file that was refused.
    local mine = support.temp_dir()
    support.write_file(mine .. "/mine.lua", "return {")
    host.config.rules = mine
    local refused = told({ path = mine .. "/mine.lua" })
    assert.equal("failed", refused[1])
    assert.matches("^spec.speaks%-up: not run, it is broken: .*mine.lua:1: ", refused[2])
    assert.equal("ok", replayed({ format = "json", only = "spec.speaks-up" }).frames[3].status)
  end)

  it("tells nothing twice of findings that differ from frame to frame in their figures", function()
    rule("counts", [[
return { api = 1, id = "spec.counts", kind = "pattern", title = "counts", check = function(view)
  return { { summary = view.heap.profiles .. " profiles" } }
end }
]])
    local text = replayed()
    local _, appeared = text:gsub("%+ spec.counts", "")
    assert.same({ 1, nil }, { appeared, (text:find("- spec.counts\n", 1, true)) })
  end)

  it("is replayed with other params, which must be some rule's", function()
    rule("speaks_up", (SPEAKS_UP:gsub("needs =", "params = { least = { default = 20, min = 1 } }, needs =")
      :gsub("view%)", "view, params)"):gsub("profiles < 20", "profiles < params.least")))
    assert.equal(0, #replayed({ format = "json", params = { least = "50" } }).frames[3].findings)
    assert.equal(1, #replayed({ format = "json", params = { ["spec.speaks-up.least"] = "2" } }).frames[1].findings)
    assert.same({ nil, 'parameter "param.laest": no rule that runs has a param \'laest\', did you mean \'least\'?' },
      { in_task(replay.run, host, opened(), { params = { laest = "2" } }) })
  end)

  it("is replayed around a damaged frame", function()
    host.recordings["run.lupe"].frames[2].wrong = "a frame is damaged: its checksum differs"
    local told = replayed({ format = "json" })
    assert.equal("damaged", told.frames[2].status)
    assert.same({ "run.lupe: frame 2, at 20.0 s: a frame is damaged: its checksum differs" }, told.frames[2].errors)
    assert.equal(4, #told.frames)
  end)

  it("says when it is not whole, and when frames were left out", function()
    local held = host.recordings["run.lupe"]
    held.ending = "it is cut off within a frame"
    held.frames[4].notes.skipped = 2
    local told = replayed({ format = "json" })
    assert.same({ false, held.ending, 2 }, { told.complete, told.ending, told.skipped })
    local text = replayed()
    assert.matches("the recording is not whole: it is cut off within a frame", text, 1, true)
    assert.matches("2 frames left out", text, 1, true)
    text = reported()
    assert.matches("not whole: it is cut off within a frame, after 60 s", text, 1, true)
    assert.matches("2 frames left out", text, 1, true)
  end)

  it("is reported as at the end of its run", function()
    local text = reported()
    assert.matches("lupe: server ran for 60 s, exit code 3", text, 1, true)
    assert.matches("Live heap, 60.0 MiB", text, 1, true)
    host.config.report = "json"
    local data = json.decode(reported())
    assert.same({ 7, 60, 3 }, { data.pid, data.duration_seconds, data.outcome.exit_code })
    assert.equal("2024-10-10T17:57:40.000Z", data.timestamp)
  end)

  it("is reported as of an earlier moment, when it was still running", function()
    local text = reported({ at = 20 })
    assert.matches("lupe: server ran for 20 s, and was still running", text, 1, true)
    assert.matches("this is the run after 20 s; its recording has 4 frames in all", text, 1, true)
  end)

  it("is reported also where its end is missing", function()
    local held = host.recordings["run.lupe"]
    held.frames[4], held.ending = nil, "it ends without an end mark"
    assert.matches("ran for 40 s, how it ended is not in the recording", reported(), 1, true)
    held.frames = {}
    assert.same({ nil, "run.lupe: it holds no frame: it ends without an end mark" }, { reported() })
  end)

  it("is reported where nothing was profiled", function()
    local held = host.recordings["run.lupe"]
    held.frames = {
      {
        time_ms = STARTED + 1000, last = true,
        notes = {
          now_ms = STARTED + 1000, targets = {}, profiler = fake.new().profiler(),
          info = { pid = 7, exit_code = 0, argv = { "server" }, reason = "it is statically linked" },
        },
      },
    }
    assert.matches("The heap was not profiled: it is statically linked.", reported(), 1, true)
    assert.equal("no_snapshot", replayed({ format = "json" }).frames[1].status)
  end)

  it("keeps the limits of its run, where no others are set", function()
    rule("limits", [[
return { api = 1, id = "spec.limits", kind = "pattern", title = "limits", check = function(view)
  return { { summary = view.config.memory_warning_mb .. " " .. view.config.memory_alert_mb } }
end }
]])
    assert.equal("100 200", replayed({ format = "json" }).frames[1].findings[1].summary)
    host.config.memory_alert_mb, host.config.sources.memory_alert_mb = 300, "flag"
    assert.equal("100 300", replayed({ format = "json" }).frames[1].findings[1].summary)
  end)

  it("is compared with another", function()
    rule("grew", [[
return { api = 1, id = "spec.grew", kind = "pattern", title = "grew", check = function(view)
  return { { summary = view.base and view.base.heap.profiles .. " before" or view.base_reason } }
end }
]])
    local function found(at) return replayed({ format = "json", at = at }).frames[1].findings[1].summary end
    assert.equal("there is no other snapshot to compare with", found(5))
    host.base = recording.last_view(host, "run.lupe")
    assert.equal("60 before", found(5))
  end)

  it("gives its last snapshot to compare with", function()
    assert.equal(60, recording.last_view(host, "run.lupe").heap.profiles)
    host.recordings["run.lupe"].frames[4].wrong = "damaged"
    assert.equal(40, recording.last_view(host, "run.lupe").heap.profiles)
    for _, frame in ipairs(host.recordings["run.lupe"].frames) do frame.heap, frame.wrong = nil, nil end
    assert.same({ nil, "run.lupe: it holds no snapshot" }, { recording.last_view(host, "run.lupe") })
  end)
end)
