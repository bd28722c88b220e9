--- redis under lupe, in the eyes of `go tool pprof` and google-pprof: they read its profiles, and see what lupe says.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

describe("profiles of redis-server for other tools", function()
  local run, port, home

  setup(function()
    port, home = support.free_port(), support.temp_dir()
    run = lupe_run.start({ "redis-server", "--port", port, "--save", "", "--dir", support.temp_dir() },
      { flags = { "--sample-bytes", "16K", "--cpu-hz", "500" } })
    support.eventually(function()
      return support.run({ "redis-cli", "-p", port, "ping" }).out:match("PONG")
    end, 20, "redis to answer")
    local filled = support.run(
      { "redis-benchmark", "-p", port, "-q", "-t", "set", "-n", "60000", "-r", "60000", "-d", "400", "-P", "16" },
      { seconds = 60 })
    assert.equal(0, filled.code, filled.err)
    -- From here on its heap stands still: all who ask see the same.
    local last
    support.eventually(function()
      local now = run:get("/api/profiling/allocations")
      if now.profile_time == support.json.null or last and now.profile_time == last.profile_time then return false end
      local before = last
      last = now
      return before and now.profiled_bytes > 0 and math.abs(now.profiled_bytes / before.profiled_bytes - 1) < 0.001
    end, 30, "two heap profiles in a row to be the same")
  end)

  teardown(support.cleanup)

  local function url(path) return ("http://127.0.0.1:%d%s"):format(run.port, path) end

  --- Runs a tool with a home of its own, where it may leave what it fetched.
  local function tool(...)
    local done = support.run({ ... }, { env = { HOME = home, PPROF_TMPDIR = home }, seconds = 60 })
    assert.equal(0, done.code, done.out .. done.err)
    return done.out, done.err
  end

  --- Something that keeps redis busy until the spec lets it go.
  local function load()
    local argv = { "redis-benchmark", "-p", port, "-q", "-t", "set", "-n", "100000000", "-r", "60000", "-P", "16" }
    return support.spawn(argv)
  end

  --- The function at the top of what a tool printed, and its share.
  local function top(text)
    local row = "[^\n]*\n%s*%S+%s+([%d.]+)%%%s+[%d.]+%%%s+%S+%s+[%d.]+%%%s+(%S+)"
    local share, name = text:match("flat%%" .. row)
    if not share then share, name = text:match("Total: " .. row) end
    assert.truthy(share, text)
    return name, tonumber(share)
  end

  it("have the heap's top, as lupe tells it", function()
    local first = run:get("/api/profiling/allocations").allocators[1]
    local by_go, go_share = top(tool("go", "tool", "pprof", "-top", url("/debug/pprof/heap")))
    local by_google, google_share = top(tool("google-pprof", "--text", url("/pprof/heap")))
    assert.same({ first.name, first.name }, { by_go, by_google })
    assert.is_true(math.abs(go_share - first.share_percent) < 0.5, go_share .. " " .. first.share_percent)
    assert.is_true(math.abs(google_share - first.share_percent) < 0.5, google_share .. " " .. first.share_percent)
  end)

  it("have what was allocated since the start", function()
    local first = run:get("/api/profiling/allocations?by=alloc_space").allocators[1]
    local name = top(tool("go", "tool", "pprof", "-top", url("/debug/pprof/allocs")))
    assert.equal(first.name, name)
  end)

  it("are read by go's tool to the last field", function()
    local path = home .. "/heap.pb.gz"
    tool("curl", "-sf", "-o", path, url("/debug/pprof/heap"))
    local raw = tool("go", "tool", "pprof", "-raw", path)
    assert.matches("PeriodType: space bytes\nPeriod: 16384\n", raw)
    assert.matches("alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes%[dflt%]", raw)
    assert.matches("\nMappings\n1: 0x%x+/0x%x+/0x%x+ %S*redis%S* %x+ %[FN%]\n", raw)
    assert.matches("libc", raw)
    -- And what it writes of them is a profile again.
    local again = home .. "/again.pb.gz"
    tool("go", "tool", "pprof", "-proto", "-output", again, path)
    assert.equal(top(tool("go", "tool", "pprof", "-top", path)), (top(tool("go", "tool", "pprof", "-top", again))))
  end)

  it("are read by google-pprof beside the program, too", function()
    local path = home .. "/heap.heap"
    tool("curl", "-sf", "-o", path, url("/pprof/heap"))
    local program = tool("sh", "-c", 'readlink -f "$(command -v redis-server)"'):match("%S+")
    local name = top(tool("google-pprof", "--text", program, path))
    assert.equal(run:get("/api/profiling/allocations").allocators[1].name, name)
  end)

  it("have the CPU's time, from both tools", function()
    local busy = load()
    local text = tool("go", "tool", "pprof", "-top", url("/debug/pprof/profile?seconds=2"))
    assert.matches("\nType: cpu\n", text)
    assert.matches("Duration: 2[.%d]*s, Total samples = ", text) -- a busy machine ends the window a little later
    assert.matches(" main\n", text) -- everything is below it
    local google = tool("google-pprof", "--text", "--seconds=2", url("/pprof/profile"))
    assert.is_true(tonumber(google:match("Total: (%d+) samples")) > 20, google)
    assert.matches(" main\n", google)
    assert.matches(" processCommand\n", google)
    assert.matches("processCommand\n", text)
    busy:kill(9)
    busy:wait()
  end)

  it("have what waited and where", function()
    local path = home .. "/wall.pb.gz"
    tool("curl", "-sf", "-o", path, url("/debug/pprof/wall?seconds=2"))
    local tags = tool("go", "tool", "pprof", "-tags", path)
    assert.matches("waiting", tags)
    assert.matches("redis%-server", tags)
    assert.matches("epoll_wait", tool("go", "tool", "pprof", "-top", path))
  end)

  it("come with the command line and the names of addresses", function()
    assert.matches("^redis%-server", tool("curl", "-sf", url("/debug/pprof/cmdline")))
    local raw = tool("go", "tool", "pprof", "-raw", url("/debug/pprof/heap"))
    local address, name = raw:match("\n +%d+: (0x%x+) M=%d+ (%S+) ")
    assert.equal(address .. "\t" .. name .. "\n", tool("curl", "-sf", url("/debug/pprof/symbol?" .. address)))
    assert.equal(address .. "\t" .. name .. "\n", tool("curl", "-sf", "-d", address, url("/debug/pprof/symbol")))
  end)

  it("that are waited for keep lupe from ending no longer than redis does", function()
    local waiting = support.spawn({ "curl", "-sv", url("/debug/pprof/profile?seconds=600") })
    support.eventually(function() return waiting:stderr():find("> GET /debug", 1, true) end, 10,
      "the request to be sent")
    run:get("/healthz") -- came after it
    assert.is_true(waiting:alive())
    support.run({ "redis-cli", "-p", port, "shutdown", "nosave" })
    local _, code = run:finish()
    assert.equal(0, code)
    waiting:wait(10)
  end)
end)
