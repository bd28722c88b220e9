--- Recordings of programs that lupe is in: what `lupe report` reads in them afterwards.
local embedding = require("spec.embedding")
local support = require("spec.support")

local STATUS, one = embedding.STATUS, embedding.one

local function report_on(path)
  local done = support.run({ support.built("lupe"), "report", path, "--report", "json" }, { seconds = 60 })
  assert.equal(0, done.code, done.err)
  return support.json.decode(done.out)
end

describe("the recording of an embedding program", function()
  local folder, path, program
  before_each(function()
    folder = support.temp_dir()
    path = folder .. "/run.rec"
    program = support.sanitized and "embed_plain" or "embed_host" -- jemalloc cannot share a process with a sanitizer
  end)
  after_each(support.cleanup)

  for _, mode in ipairs({ "process", "helper" }) do
    it("ends as lupe_stop does, with what was allocated until then (" .. mode .. ")", function()
      local said, _, process = embedding.run({ "mode " .. mode, "set heap_interval_secs=60", "set record=" .. path,
        "start", "alloc 4000000", "stop", "left" }, { program = program })
      assert.equal(0, one(said, "stop").status, process.err)
      assert.equal(1, tonumber(one(said, "left").text:match("^(%d+) threads")))
      local report = report_on(path)
      assert.equal("it stopped lupe", report.outcome.reason)
      assert.equal(program, report.name)
      assert.same({}, report.notes and report.notes[1] and report.notes[1]:match("not whole") and report.notes or {})
      if not support.sanitized then assert.equal("allocate", report.allocators[1].name) end
    end)

    it("ends when the program exits without lupe_stop (" .. mode .. ")", function()
      local function exit()
        embedding.run({ "mode " .. mode, "set record=" .. path, "start", "exit" }, { program = program })
      end
      local function written() return support.read_file(path) and report_on(path) end
      if mode == "helper" then exit() end
      -- In the process there are 0.3 s for it, and a busy machine may need them for something else.
      local report = support.eventually(function()
        if mode == "process" then exit() end
        return written()
      end, 60, "a recording")
      assert.equal("it stopped lupe", report.outcome.reason)
    end)

    it("says so where lupe_start cannot write there (" .. mode .. ")", function()
      local start = one(embedding.run({ "mode " .. mode, "set record=/nowhere/run.rec", "start" }), "start")
      assert.equal(STATUS.EINVAL, start.status)
      assert.matches("/nowhere/run.rec: No such file or directory", start.text, 1, true)
    end)

    it("does not take the place of another one where lupe did not start (" .. mode .. ")", function()
      support.write_file(path, "before")
      local rule = support.write_file(folder .. "/rule.lua", "return {")
      local said = embedding.run({ "mode " .. mode, "set record=" .. path, "add_rule bad.lua " .. rule, "start" },
        { program = program })
      assert.not_equal(STATUS.OK, one(said, "start").status)
      assert.equal("before", support.read_file(path))
    end)
  end

  it("ends when a helper needs longer for it than the program's exit waits", function()
    local go = folder .. "/go"
    local function exit_without_it()
      os.remove(go)
      local process = embedding.spawn({ "mode helper", "set record=" .. path, "start", "about", "wait " .. go, "exit" },
        { program = program })
      local helper = support.eventually(function() return process:stdout():match('"pid":(%d+)') end, 20, "the helper")
      local function status() return support.read_file("/proc/" .. helper .. "/status") end
      os.execute("kill -STOP " .. helper)
      support.eventually(function() return status():match("\nState:%s+T") end, 10, "the helper to stand still")
      support.write_file(go, "")
      assert.equal(0, (process:wait(20)))
      os.execute("kill -CONT " .. helper .. " 2>/dev/null") -- unless it has been killed
      support.eventually(function() return not status() end, 20, "the helper to end")
    end
    -- It has two seconds from the program's end on; where the machine takes those for something else, once more.
    local reason
    for _ = 1, 5 do
      exit_without_it()
      reason = support.read_file(path) and report_on(path).outcome.reason
      if reason == "it stopped lupe" then break end
    end
    assert.equal("it stopped lupe", reason)
  end)

  it("ends when the program is killed, where the runtime outlives it", function()
    local process = embedding.spawn({ "mode helper", "set record=" .. path, "start", "wait " .. folder .. "/never" },
      { program = program })
    support.eventually(function() return process:stdout():find("start 0") end, 20, "it to start")
    process:kill(9)
    process:wait(10)
    local report
    support.eventually(function() report = support.read_file(path) and report_on(path) return report end, 10,
      "a recording")
    assert.matches("it is gone", report.outcome.reason, 1, true)
  end)
end)
