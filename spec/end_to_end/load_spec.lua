--- More of everything than anybody needs: requests, processes.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

local KIB = 1024

local function memory_kib(pid, field)
  return tonumber(support.read_file("/proc/" .. pid .. "/status"):match("\n" .. field .. ":%s*(%d+) kB"))
end

describe("10,000 requests at once", function()
  teardown(support.cleanup)

  it("are all answered, in bounded memory, while the program works on", function()
    local run = lupe_run.start({ support.built("examples/leaky_server"), "--self-drive", 120 })
    run:await("/api/profiling/allocations", function(a) return #a.top_allocators > 0 end)
    local pid = run.process.pid
    run:get("/api/profiling/memory")
    for path, count in pairs({ ["/api/profiling/memory"] = 10000, ["/api/profiling/allocations"] = 2000 }) do
      local crowd = support.run({ support.fixture("http_many"), run.port, count, path }, { seconds = 140 })
      assert.equal(("answered %d failed 0\n"):format(count), crowd.out)
    end
    local bound = support.sanitized and 1024 or 96
    assert.is_true(memory_kib(pid, "VmHWM") < bound * KIB, memory_kib(pid, "VmHWM"))
    assert.is_true(run:get("/api/profiling/memory").rss_mb > 0)
    assert.equal(1, #run:get("/api/targets").targets)
    local port = run.process:stdout():match("leaky_server: http://127.0.0.1:(%d+)")
    local asked = support.run({ "curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}",
      ("http://127.0.0.1:%d/page/[1-20]"):format(port) })
    assert.equal(("200"):rep(20), asked.out)
    local report = run:finish(15)
    assert.equal("leaky_server", report.name)
  end)
end)

describe("more processes than lupe may have descriptors", function()
  teardown(support.cleanup)

  it("run all the same; lupe says what it could not take in, and reports the others", function()
    local dir = support.temp_dir()
    local program = ("for i in $(seq 80); do %s tell=%s/$i wait=%s/go & done; wait; echo all ended")
      :format(support.fixture("agent_host"), dir, dir)
    local report = dir .. "/report.json"
    local process = support.spawn({ "prlimit", "--nofile=64:64", support.built("lupe"), "run", "--listen",
      "127.0.0.1:" .. support.free_port(), "--report", "json", "--output", report, "--", "sh", "-c", program })
    support.eventually(function()
      for i = 1, 80 do
        if not support.read_file(dir .. "/" .. i) then return false end
      end
      return true
    end, 30, "all programs to run")
    support.eventually(function() return process:stderr():match("Too many open files") end, 10, "lupe to say so")
    support.write_file(dir .. "/go", "")
    assert.equal(0, process:wait(30))
    assert.equal("all ended\n", process:stdout())
    local _, lines = process:stderr():gsub("\n", "")
    assert.is_true(lines < 200, lines)
    assert.is_nil(process:stderr():match("corrupt"))
    local profiled = 0
    for _, target in ipairs(support.json.decode(support.read_file(report)).targets) do
      if target.heap_state == "on" then profiled = profiled + 1 end
    end
    assert.is_true(profiled > 20, profiled)
  end)
end)
