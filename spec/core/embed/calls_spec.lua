local embedding = require("spec.embedding")
local support = require("spec.support")

local STATUS, one = embedding.STATUS, embedding.one

--- The allocator is jemalloc there: it cannot share a process with a sanitizer.
local function heap_it(name, body)
  if support.sanitized then return pending(name .. " (needs jemalloc)") end
  it(name, body)
end

describe("what an embedding program asks", function()
  after_each(support.cleanup)

  for _, mode in ipairs({ "process", "helper" }) do
    heap_it("is a report as lupe run writes it (" .. mode .. ")", function()
      -- One that is being taken while the memory is allocated may hold a part of it; the second next does not.
      local said = embedding.run({ "mode " .. mode, "set heap_interval_secs=0.1", "start",
        "alloc 4000000", "profiles 2", "report", "stop" }, { program = "embed_host" })
      local report = support.json.decode(one(said, "report").text)
      assert.equal("embed_host", report.name)
      assert.equal("it is running", report.outcome.reason)
      assert.equal("on", report.targets[1].heap_state)
      assert.equal("allocate", report.allocators[1].name)
      local bytes = report.allocators[1].inuse_space
      assert.is_true(bytes > 3500000 and bytes < 4500000, "about 4,000,000 bytes: " .. bytes)
    end)

    heap_it("is a snapshot in a file, in place of one that is there (" .. mode .. ")", function()
      local folder = support.temp_dir()
      support.write_file(folder .. "/snap.json", "before")
      local said = embedding.run({ "mode " .. mode, "start", "save snap.json", "stop" },
        { program = "embed_host", cwd = folder })
      assert.equal(0, one(said, "save").status)
      local text = support.read_file(folder .. "/snap.json")
      local snapshot = support.json.decode(text)
      assert.equal("lupe-heap-snapshot", snapshot.format)
      local pipe = io.popen("stat -c '%a %n' " .. folder .. "/* " .. folder .. "/.[!.]* 2>/dev/null")
      assert.equal("600 " .. folder .. "/snap.json\n", pipe:read("*a"))
      pipe:close()
    end)

    heap_it("is one rule, run now (" .. mode .. ")", function()
      local said = embedding.run({ "mode " .. mode, "start", "alloc 1000000", "evaluate leak.steady-growth",
        "evaluate leak.steady-grwth", "stop" }, { program = "embed_host" })
      local result = support.json.decode(said.evaluate[1].text)
      assert.equal("leak.steady-growth", result.rule)
      assert.same({}, result.findings)
      assert.is_number(result.elapsed_ms)
      assert.equal(STATUS.ENOENT, said.evaluate[2].status)
      assert.matches('did you mean "leak.steady-growth"', said.evaluate[2].text, 1, true)
    end)

    heap_it("is where a rule failed, and lupe answers on (" .. mode .. ")", function()
      local rule = support.write_file(support.temp_dir() .. "/rule.lua", [[
return {
  api = 1, id = "pattern.mine", kind = "pattern", title = "Mine",
  check = function() error("no such luck") end,
}
]])
      local said = embedding.run({ "mode " .. mode, "start", "profiles 1", "add_rule mine.lua " .. rule,
        "evaluate pattern.mine", "evaluate leak.steady-growth", "stop" }, { program = "embed_host" })
      assert.equal(STATUS.ESCRIPT, said.evaluate[1].status)
      assert.matches("mine.lua:3: no such luck", said.evaluate[1].text, 1, true)
      assert.equal(STATUS.OK, said.evaluate[2].status)
    end)

    it("is what HTTP would answer, whatever the limits there are (" .. mode .. ")", function()
      local said, lines = embedding.run({ "mode " .. mode, "set rate_reads=1", "start", "get /api/targets",
        "get /api/targets?x=1", "get /api/health", "get /nothing", "stop" })
      local statuses = {}
      for _, line in ipairs(lines) do statuses[#statuses + 1] = line:match("^http (%d+)") end
      assert.same({ "200", "400", "404", "404" }, statuses)
      assert.matches('"name":"embed_plain"', said.get[1].text, 1, true)
    end)
  end

  it("is refused in words where an argument is wrong", function()
    local said = embedding.run({ "start", "get nothing", "save ", "save /nowhere/at/all", "stop" })
    assert.equal(STATUS.EINVAL, one(said, "get").status)
    assert.matches('path is "nothing", expected such as', one(said, "get").text, 1, true)
    assert.equal(STATUS.EINVAL, said.save[1].status)
    assert.equal(STATUS.EIO, said.save[2].status)
    assert.equal("/nowhere/at/all: No such file or directory", said.save[2].text)
  end)
end)

describe("lupe_about", function()
  after_each(support.cleanup)

  local function about(program, env)
    local said = embedding.run({ "start", "about", "stop" }, { program = program, env = env })
    assert.equal(0, one(said, "start").status)
    local all = support.json.decode(one(said, "about").text)
    for _, each in ipairs(all.unavailable) do
      if each.what == "heap" then return each.reason, all end
    end
    return nil, all
  end

  heap_it("finds nothing missing on a jemalloc that profiles", function()
    local missing, all = about("embed_host")
    assert.is_nil(missing)
    assert.matches("^jemalloc", all.allocator)
    assert.is_true(all.pid > 0)
  end)

  it("says that there is no jemalloc, and what to do", function()
    local missing, all = about("embed_plain")
    assert.matches("does not use jemalloc: link it", missing, 1, true)
    assert.equal("system", all.allocator)
  end)

  heap_it("says that jemalloc's profiling is off, and what to set", function()
    local missing = about("embed_host", { MALLOC_CONF = "prof:false" })
    assert.matches("MALLOC_CONF=prof:true,prof_active:false,lg_prof_sample:19", missing, 1, true)
  end)

  heap_it("says that this jemalloc was built without profiling", function()
    local missing = about("embed_plain", { LD_PRELOAD = support.fixture("jemalloc_without_profiling_plugin.so") })
    assert.matches("built without profiling", missing, 1, true)
  end)

  it("says that the heap is left alone as it was told to", function()
    local said = embedding.run({ "set allocator=system", "start", "about", "stop" })
    assert.matches("leave the allocator alone", one(said, "about").text, 1, true)
  end)

  it("says what was switched off", function()
    local said = embedding.run({ "set cpu_hz=0", "set wall_hz=0", "start", "about", "stop" })
    assert.matches('"what":"cpu"', one(said, "about").text, 1, true)
    assert.matches('"what":"wall"', one(said, "about").text, 1, true)
  end)

  it("starts without profiling at all where that is switched off", function()
    local said, lines = embedding.run({ "set enable_profiling=false", "start", "get /api/profiling/memory", "about",
      "stop" })
    assert.equal(0, one(said, "start").status)
    assert.equal("http 503", lines[2])
    assert.matches("enable_profiling=false", one(said, "about").text, 1, true)
  end)
end)

describe("a thread that asks", function()
  -- It is scheduled late, so that what it waited on is used by the next start before it is back.
  it("comes back, however often lupe is stopped and started meanwhile", function()
    local folder = support.temp_dir()
    finally(support.cleanup)
    local process = support.run({ support.fixture("embed_callers"), "100" },
      { env = { LUPE_SOCKET = false, LUPE_CONFIG = false, LUPE_LISTEN = false, XDG_RUNTIME_DIR = folder },
        seconds = 120 })
    assert.equal("6 came back\n", process:stdout())
    assert.equal(0, process.code)
  end)

  it("comes back where it is cancelled, from a start and a stop, too, and lupe goes on", function()
    if support.sanitized then return pending("asan leaves the stack of a thread that is cancelled poisoned") end
    local folder = support.temp_dir()
    finally(support.cleanup)
    local process = support.run({ support.fixture("embed_cancelled") },
      { env = { LUPE_SOCKET = false, LUPE_CONFIG = false, LUPE_LISTEN = false, XDG_RUNTIME_DIR = folder } })
    local back = "came back\ncancelled\n"
    assert.equal("start 0\n" .. back .. back .. "stop 0\n" .. back .. "start 0\nstop 0\n", process:stdout())
    assert.equal(0, process.code)
  end)
end)
