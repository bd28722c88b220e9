--- What programs do that lupe is in, and that must neither hang nor leave anything behind.
local embedding = require("spec.embedding")
local support = require("spec.support")

local STATUS, one = embedding.STATUS, embedding.one

describe("a program with lupe inside", function()
  local folder
  before_each(function() folder = support.temp_dir() end)
  after_each(support.cleanup)

  --- What there is in the folder that sockets go to.
  local function sockets()
    local pipe = io.popen("ls -A " .. folder)
    local text = pipe:read("*a")
    pipe:close()
    return text
  end

  --- The processes that were started for the one of that id: workers, keepers, helpers.
  local function descendants(pid)
    local list = {}
    for _, child in ipairs(support.children(pid)) do
      list[#list + 1] = child
      for _, deeper in ipairs(descendants(child)) do list[#list + 1] = deeper end
    end
    return list
  end

  local function alive(pid) return os.execute(("kill -0 %d 2>/dev/null"):format(pid)) == 0 end

  --- How often the agent's thread has waited for something; nil: there is none.
  local function looks(pid)
    local pipe = io.popen(("grep -l '^lupe-agent$' /proc/%d/task/*/comm 2>/dev/null"):format(pid))
    local comm = pipe:read("*l")
    pipe:close()
    if not comm then return nil end
    return tonumber(support.read_file((comm:gsub("comm$", "status"))):match("\nvoluntary_ctxt_switches:%s*(%d+)"))
  end

  --- Started, with a worker process at work, and then left waiting before what it does `after`.
  local function running(mode, words, after)
    local go_on = support.temp_dir() .. "/go_on"
    local all = { "mode " .. mode, "start", "add_module m " .. support.write_file(go_on .. ".lua", "return {}") }
    for _, word in ipairs(words or {}) do all[#all + 1] = word end
    all[#all + 1] = "wait " .. go_on
    for _, word in ipairs(after or {}) do all[#all + 1] = word end
    local process = embedding.spawn(all, { folder = folder })
    support.eventually(function() return process:stdout():find("add_module 0") end, 30, "it to run")
    local others = support.eventually(function()
      local list = descendants(process.pid)
      return #list > 0 and list
    end, 10, "its worker process")
    return process, others, go_on
  end

  for _, mode in ipairs({ "process", "helper" }) do
    describe("(" .. mode .. ")", function()
      it("exits without stopping it", function()
        local process, others, go_on = running(mode)
        support.write_file(go_on, "")
        assert.equal(0, (process:wait(10)))
        support.eventually(function() return sockets() == "" end, 5, "no socket to be left")
        for _, pid in ipairs(others) do
          support.eventually(function() return not alive(pid) end, 5, pid .. " to end")
        end
      end)

      --- The last thread of a program ends that does `words`, and before that writes to a file.
      local function ends_with_its_last_thread(words)
        local path = support.temp_dir() .. "/written"
        local process, others, go_on = running(mode, words, { "write " .. path })
        support.write_file(go_on, "")
        assert.equal(0, (process:wait(5)))
        assert.equal("on the last thread\nin an exit handler\n", support.read_file(path))
        support.eventually(function() return sockets() == "" end, 5, "no socket to be left")
        for _, pid in ipairs(others) do
          support.eventually(function() return not alive(pid) end, 5, pid .. " to end")
        end
      end

      it("ends with its last thread, where the first one has left by pthread_exit", function()
        ends_with_its_last_thread({ "leave" })
      end)

      it("ends with its last thread, where there is a callback, too", function()
        ends_with_its_last_thread({ "callback plain", "leave" })
      end)

      it("ends with its last thread, which has started lupe again after the first one left", function()
        ends_with_its_last_thread({ "leave", "stop", "start",
          "add_module m " .. support.write_file(support.temp_dir() .. "/m.lua", "return {}") })
      end)

      it("ends with its last thread, also when no runtime or worker is left", function()
        local path = support.temp_dir() .. "/written"
        local process, others, go_on = running(mode, { "callback plain", "leave" }, { "write " .. path })
        for _, pid in ipairs(others) do os.execute(("kill -9 %d 2>/dev/null"):format(pid)) end
        support.write_file(go_on, "")
        assert.equal(0, (process:wait(10)))
        assert.equal("on the last thread\nin an exit handler\n", support.read_file(path))
      end)

      it("lives on while a thread of its own does", function()
        local process, _, go_on = running(mode, { "callback plain", "leave" }, { "get /api/targets", "exit" })
        support.eventually(function() return looks(process.pid) end, 10, "the agent's thread")
        local before = looks(process.pid)
        support.eventually(function() return looks(process.pid) >= before + 30 end, 20, "it to look around")
        support.write_file(go_on, "")
        assert.equal(0, (process:wait(10)))
        assert.equal(0, one(embedding.parse(process:stdout()), "get").status)
      end)

      it("is killed", function()
        local process, others = running(mode)
        process:kill(9)
        process:wait(10)
        for _, pid in ipairs(others) do
          support.eventually(function() return not alive(pid) end, 5, pid .. " to end")
        end
        if mode == "helper" then
          support.eventually(function() return sockets() == "" end, 5, "no socket to be left")
        else
          -- Nobody was there to remove it; who starts some minutes later does.
          local left = sockets():match("^lupe%-%w+")
          assert(os.execute(("touch -d '10 minutes ago' %s/%s"):format(folder, left)))
          embedding.run({ "start", "stop" }, { folder = folder })
          assert.equal("", sockets())
        end
      end)

      it("becomes another one by exec", function()
        local process = embedding.spawn({ "mode " .. mode, "start", "exec /bin/true" }, { folder = folder })
        assert.equal(0, (process:wait(10)))
        if mode == "helper" then
          support.eventually(function() return sockets() == "" end, 5, "no socket to be left")
        end
      end)

      it("exits in a signal handler amid a call", function()
        local _, _, process = embedding.run({ "mode " .. mode, "start", "exit_in_handler" }, { folder = folder })
        assert.equal(0, process.code)
        support.eventually(function() return sockets() == "" end, 5, "no socket to be left")
      end)

      it("exits in its callback", function()
        local rule = support.write_file(support.temp_dir() .. "/rule.lua", [[return {
          api = 1, id = "alert.mine", kind = "alert", title = "Mine", needs = { "memory" },
          check = function() return { { summary = "now", severity = "high" } } end,
        }]])
        local process = embedding.spawn({ "mode " .. mode, "set leak_check_interval_secs=1", "exit_in_callback",
          "callback plain", "start", "add_rule mine.lua " .. rule, "wait " .. folder .. "/never" }, { folder = folder })
        assert.equal(0, (process:wait(30)))
        support.eventually(function() return sockets() == "" end, 5, "no socket to be left")
      end)

      it("closes all descriptors", function()
        local said = embedding.run({ "mode " .. mode, "start", "closefrom", "get /api/targets", "stop", "start",
          "closefrom", "stop", "left" }, { folder = folder })
        assert.equal(0, one(said, "get").status)
        assert.same({ 0, 0 }, { said.stop[1].status, said.stop[2].status })
        assert.equal("", sockets())
      end)

      it("closes all descriptors, and its children have what it opens on the same numbers", function()
        local said, lines = embedding.run({ "mode " .. mode, "start", "closefrom", "open_files",
          "fork read_files;fork read_files", "read_files", "stop" })
        local read = {}
        for _, line in ipairs(lines) do
          if line:find("^file") then read[#read + 1] = line end
        end
        -- The child's, the child's child's, and the parent's.
        assert.equal(("file 0,file 1 cloexec,file 2,"):rep(3), table.concat(read, ",") .. ",")
        assert.equal(0, one(said, "stop").status)
      end)

      it("exits on a thread that is to be cancelled, with the code that it gave", function()
        embedding.run({ "mode " .. mode, "start", "exit_cancelled 7" }, { folder = folder, code = 7 })
        support.eventually(function() return sockets() == "" end, 5, "no socket to be left")
      end)

      it("ignores the ends of its children, or waits for any", function()
        for _, word in ipairs({ "ignore_children", "wait_children" }) do
          local said, lines = embedding.run({ "mode " .. mode, "start", word, "wait_children",
            "add_module m " .. support.write_file(folder .. "/m.lua", "return {}"), "wait_children",
            "get /api/targets", "stop", "wait_children" })
          assert.equal(0, one(said, "add_module").status)
          assert.equal(0, one(said, "get").status)
          for _, line in ipairs(lines) do
            if line:find("^wait_children") then assert.equal("wait_children -1 ECHILD", line) end
          end
        end
      end)

      it("forks: there is none in the child, which may start one itself", function()
        local said, lines = embedding.run({ "mode " .. mode, "start",
          "fork report;stop;start;get /api/targets;stop;left", "get /api/targets", "stop" }, { folder = folder })
        assert.equal("child 0", lines[#lines - 3])
        assert.equal(STATUS.ENOENT, one(said, "report").status)
        assert.same({ STATUS.ENOENT, 0, 0 }, { said.stop[1].status, said.stop[2].status, said.stop[3].status })
        assert.same({ 0, 0 }, { said.get[1].status, said.get[2].status })
        assert.equal("", sockets())
      end)

      it("forks: the child is seen by the parent's lupe, until it starts one itself", function()
        local first, second = folder .. "/first", folder .. "/second"
        local process = embedding.spawn({ "mode " .. mode, "start", "about",
          ("fork report;wait %s;start;wait %s;stop"):format(first, second), "stop" }, { folder = folder })
        local port = support.eventually(function()
          return process:stdout():match('"url":"http://127%.0%.0%.1:(%d+)"')
        end, 30, "it to run")
        local function forked_live()
          local live = 0
          for _, target in ipairs(support.http(tonumber(port), "/api/targets").json().targets) do
            if target.pid ~= process.pid and target.live then live = live + 1 end
          end
          return live
        end
        support.eventually(function() return forked_live() == 1 end, 20, "the child among its targets")
        support.write_file(first, "")
        support.eventually(function() return forked_live() == 0 end, 20, "the child to leave")
        support.write_file(second, "")
        assert.equal(0, process:wait(20))
        local said = embedding.parse(process:stdout())
        assert.equal(STATUS.ENOENT, one(said, "report").status)
        assert.same({ 0, 0 }, { said.start[2].status, said.stop[1].status })
      end)

      it("forks children that exit as they like, while a callback is set", function()
        local said, lines = embedding.run({ "mode " .. mode, "callback plain", "start", "fork exit", "fork quick_exit",
          "fork closefrom;exit", "stop" })
        assert.equal(0, one(said, "stop").status)
        local children = 0
        for _, line in ipairs(lines) do
          if line == "child 0" then children = children + 1 end
        end
        assert.equal(3, children)
      end)
    end)
  end

  it("opens the library and closes it", function()
    local process = support.run({ support.fixture("embed_dlopen"), support.built("liblupe.so") },
      { env = { LUPE_SOCKET = false } })
    assert.equal("start 0 \nstop 0\nstart 0 \nstop 0\nstart 0 \n", process:stdout())
    assert.equal(0, process.code)
  end)

  it("shows none of lupe's descriptors", function()
    local said = embedding.run({ "left", "start", "left", "stop" })
    local before, while_it_runs = said.left[1].text:match("(%d+) desc"), said.left[2].text:match("(%d+) desc")
    assert.is_true(tonumber(while_it_runs) - tonumber(before) <= 2, "but libuv's own two: " .. while_it_runs)
  end)

  it("is profiled by lupe run already", function()
    if support.sanitized then return end -- jemalloc is preloaded there
    local report = folder .. "/report.json"
    local words = { support.built("lupe"), "run", "--listen", "127.0.0.1:0", "--report", "json", "--output", report,
      "--", support.fixture("embed_plain"), "start", "about", "report", "mode process", "start", "stop", "start" }
    local process = support.run(words, { env = { LUPE_SOCKET = false } })
    local said = embedding.parse(process:stdout())
    assert.same({ 0, STATUS.EINUSE }, { said.start[1].status, said.start[2].status })
    assert.equal("daemon", support.json.decode(one(said, "about").text).mode)
    assert.equal(STATUS.EUNSUPPORTED, one(said, "report").status)
    assert.equal(0, one(said, "stop").status)
    assert.equal(STATUS.EINUSE, said.start[3].status)
    assert.matches("profiled by `lupe run` or a daemon already", said.start[3].text, 1, true)
    local text = support.read_file(report)
    assert.equal("embed_plain", support.json.decode(text).name)
  end)
end)
