local embedding = require("spec.embedding")
local support = require("spec.support")

local STATUS, one = embedding.STATUS, embedding.one

describe("lupe_start and lupe_stop", function()
  after_each(support.cleanup)

  for _, mode in ipairs({ "process", "helper" }) do
    describe("with the runtime in " .. (mode == "process" and "the process" or "a helper"), function()
      it("start, answer, stop, and start again", function()
        local said = embedding.run({ "mode " .. mode, "start", "get /api/targets", "stop", "start", "about", "stop" })
        assert.same({ 0, 0 }, { said.start[1].status, said.start[2].status })
        assert.same({ 0, 0 }, { said.stop[1].status, said.stop[2].status })
        assert.equal(0, one(said, "get").status)
        local about = support.json.decode(one(said, "about").text)
        assert.equal(mode == "process" and "in-process" or "helper", about.mode)
        assert.matches("^http://127%.0%.0%.1:%d+$", about.url)
      end)

      it("may be called on any thread", function()
        local said = embedding.run({ "mode " .. mode, "start_elsewhere", "stop", "start", "stop_elsewhere" })
        assert.same({ 0, 0, 0, 0 }, {
          one(said, "start_elsewhere").status, one(said, "stop").status, one(said, "start").status,
          one(said, "stop_elsewhere").status,
        })
      end)

      it("leave nothing behind in the process, nor in the file system", function()
        local folder = support.temp_dir()
        local words = { "mode " .. mode, "start", "stop", "start", "stop", "left" }
        for _ = 1, 10 do
          words[#words + 1] = "start"
          words[#words + 1] = "stop"
        end
        words[#words + 1] = "left"
        local said = embedding.run(words, { folder = folder, checks_leaks = true })
        assert.equal(2, #said.left)
        assert.equal(said.left[1].text:match("^.* descriptors"), said.left[2].text:match("^.* descriptors"))
        assert.equal(1, tonumber(said.left[2].text:match("^(%d+) threads")))
        local pipe = io.popen("ls -A " .. folder)
        assert.equal("", pipe:read("*a"))
        pipe:close()
      end)

      it("say which setting is wrong, and what was expected", function()
        local said = embedding.run({ "mode " .. mode, "set heap_interval_secs=soon", "start" })
        local start = one(said, "start")
        assert.equal(STATUS.EINVAL, start.status)
        assert.matches('heap_interval_secs: cannot understand "soon", expected', start.text, 1, true)
      end)

      it("refuse a setting that is of lupe run or lupe serve alone", function()
        for name, why in pairs({ duration_secs = "ends by itself", output = "lupe_report", ["report"] = "lupe_report",
          require = "lupe_about", sample_bytes = "lg_prof_sample", socket = "of lupe serve" }) do
          local start = one(embedding.run({ "mode " .. mode, "set " .. name .. "=1", "start" }), "start")
          assert.equal(STATUS.EINVAL, start.status)
          assert.matches(("settings: %s is not for lupe_start: "):format(name), start.text, 1, true)
          assert.matches(why, start.text, 1, true)
        end
      end)

      it("do not heed the same in the environment, which is for all programs", function()
        local said = embedding.run({ "mode " .. mode, "start", "stop" },
          { env = { LUPE_REPORT = "json", LUPE_DURATION_SECS = "1", LUPE_OUTPUT = "/nowhere/report" } })
        assert.equal(0, one(said, "start").status)
      end)

      it("say that the port is taken", function()
        local first = embedding.spawn({ "start", "about", "wait " .. support.temp_dir() .. "/x" })
        local port = support.eventually(function()
          return first:stdout():match('"url":"http://127%.0%.0%.1:(%d+)"')
        end, 20, "the first one to start")
        local start = one(embedding.run({ "mode " .. mode, "set listen=127.0.0.1:" .. port, "start" }), "start")
        assert.equal(STATUS.EINUSE, start.status)
        assert.matches("cannot listen on 127.0.0.1 port " .. port, start.text, 1, true)
        assert.matches("choose another by listen=ADDRESS:PORT", start.text, 1, true)
      end)

      it("let the agents of nobody else but the program's user in", function()
        local folder = support.temp_dir()
        local process = embedding.spawn({ "mode " .. mode, "start", "about", "wait " .. folder .. "/x" },
          { folder = folder })
        support.eventually(function() return process:stdout():find("about 0") end, 20, "it to start")
        local pipe = io.popen("stat -c %a " .. folder .. "/lupe-*")
        assert.equal("700\n", pipe:read("*a"))
        pipe:close()
      end)
    end)
  end

  it("allow one runtime at a time", function()
    local start = embedding.run({ "start", "start", "stop", "stop" }).start
    assert.same({ 0, STATUS.EINUSE }, { start[1].status, start[2].status })
    assert.matches("lupe runs in this process already", start[2].text, 1, true)
  end)

  it("say that none runs", function()
    local said = embedding.run({ "stop", "report", "about", "get /api/targets" })
    for _, word in ipairs({ "stop", "report", "about", "get" }) do
      assert.equal(STATUS.ENOENT, one(said, word).status)
      assert.matches("lupe does not run in this process", one(said, word).text, 1, true)
    end
  end)

  it("know no setting by a wrong name, and say which is near", function()
    local start = one(embedding.run({ "set heap_intervall_secs=1", "start" }), "start")
    assert.equal(STATUS.EINVAL, start.status)
    assert.matches('unknown setting "heap_intervall_secs", did you mean "heap_interval_secs"?', start.text, 1, true)
  end)

  it("take a setting before the environment, and a file only where it is named", function()
    local folder = support.temp_dir()
    support.write_file(folder .. "/lupe.conf.lua", "return { nonsense = 1 }")
    local process = embedding.run({ "start", "stop" }, { cwd = folder })
    assert.equal(0, one(process, "start").status)
    local start = one(embedding.run({ "set config=lupe.conf.lua", "start" }, { cwd = folder }), "start")
    assert.equal(STATUS.EINVAL, start.status)
    assert.matches("unknown setting", start.text, 1, true)
    start = one(embedding.run({ "set cpu_hz=10", "start", "stop" }, { env = { LUPE_CPU_HZ = "nonsense" } }), "start")
    assert.equal(0, start.status)
    start = one(embedding.run({ "start" }, { env = { LUPE_CPU_HZ = "nonsense" } }), "start")
    assert.equal(STATUS.EINVAL, start.status)
    assert.matches("LUPE_CPU_HZ", start.text, 1, true)
  end)

  it("refuse a program with a Lua of its own, whose runtime may be a helper", function()
    local said = embedding.run({ "mode process", "start", "mode helper", "start", "get /api/targets", "stop" },
      { program = "embed_lua" })
    assert.equal(STATUS.EUNSUPPORTED, said.start[1].status)
    assert.matches("exports a Lua of its own", said.start[1].text, 1, true)
    assert.matches("LUPE_MODE_HELPER", said.start[1].text, 1, true)
    assert.same({ 0, 0, 0 }, { said.start[2].status, one(said, "get").status, one(said, "stop").status })
  end)

  it("are answered by the daemon's absence where the environment names one that is not there", function()
    local said = embedding.run({ "start", "mode process", "start", "stop" },
      { env = { LUPE_SOCKET = "/nowhere/agents" } })
    assert.equal(STATUS.ENOENT, said.start[1].status)
    assert.matches("nobody listens at /nowhere/agents", said.start[1].text, 1, true)
    assert.equal(0, said.start[2].status)
    local start = one(embedding.run({ "mode daemon", "start" }), "start")
    assert.equal(STATUS.EINVAL, start.status)
    assert.matches("LUPE_SOCKET is not set", start.text, 1, true)
  end)

  it("fail, and harm nothing, where the program has few descriptors left", function()
    for most = 4, 8 do -- the loader itself needs one
      local process = support.run({ "/bin/sh", "-c", ('ulimit -n %d; exec "$@"'):format(most), "sh",
        support.fixture("embed_plain"), "set listen=127.0.0.1:0", "start" },
        { env = { LUPE_SOCKET = false, LUPE_CONFIG = false, LUPE_LISTEN = false } })
      assert.matches("^start [^0]", process:stdout())
      assert.equal(0, process.code)
    end
  end)

  for _, mode in ipairs({ "process", "helper" }) do
    it("say that a limit leaves too few descriptors, and start where it is raised (" .. mode .. ")", function()
      local words, limits = { "mode " .. mode }, { 4, 5, 6, 8, 10, 12, 14, 15, 17, 19, 24, 36 }
      for _, limit in ipairs(limits) do
        words[#words + 1] = "limit_files " .. limit
        words[#words + 1] = "start"
      end
      for _, word in ipairs({ "limit_files 256", "start", "get /api/targets", "stop" }) do words[#words + 1] = word end
      local said = embedding.run(words)
      for i, limit in ipairs(limits) do
        local start = said.start[i]
        assert.equal(STATUS.EIO, start.status, limit)
        assert.is_truthy(start.text:find("descriptors", 1, true) or start.text:find("oo many open files", 1, true),
          start.text)
      end
      assert.equal("the runtime needs 32 descriptors of its own and gets 31: Too many open files; RLIMIT_NOFILE is 36 "
        .. "(`ulimit -n`)", said.start[#limits].text)
      assert.same({ 0, 0, 0 }, { said.start[#limits + 1].status, one(said, "get").status, one(said, "stop").status })
    end)
  end

  it("say that the program itself has no descriptors left, and start where it has closed some", function()
    local words, lefts = { "mode process", "limit_files 64" }, { 0, 1, 3 }
    for _, left in ipairs(lefts) do
      for _, word in ipairs({ "fill_files " .. left, "start", "closefrom" }) do words[#words + 1] = word end
    end
    for _, word in ipairs({ "start", "get /api/targets", "stop" }) do words[#words + 1] = word end
    local said = embedding.run(words)
    for i in ipairs(lefts) do
      assert.not_equal(STATUS.OK, said.start[i].status)
      assert.is_truthy(said.start[i].text:find("no descriptors", 1, true)
        or said.start[i].text:find("oo many open files", 1, true), said.start[i].text)
    end
    assert.same({ 0, 0, 0 }, { said.start[#lefts + 1].status, one(said, "get").status, one(said, "stop").status })
  end)

  it("wait for a runtime that has not ended before there is another one", function()
    local process = support.run({ support.fixture("embed_hangs") },
      { env = { LUPE_SOCKET = false, LUPE_CONFIG = false, LUPE_LISTEN = false, XDG_RUNTIME_DIR = support.temp_dir() },
        seconds = 60 })
    assert.equal(("start 0\nstop %d\nstart %d the runtime that was stopped last has not ended yet: try again later, "
      .. "or use LUPE_MODE_HELPER\nstart 0\nstop 0\n"):format(STATUS.EIO, STATUS.EINUSE), process:stdout())
    assert.equal(0, process.code)
  end)

  it("answer calls that wait on other threads when it stops", function()
    local said = embedding.run({ "start", "reader", "alloc 1000000", "stop", "join_reader" })
    assert.equal(0, one(said, "stop").status)
    assert.equal(STATUS.ENOENT, one(said, "reader").status)
  end)
end)
