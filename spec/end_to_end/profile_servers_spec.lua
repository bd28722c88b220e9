--- CPU and wall profiles of servers under load, and of an interpreter.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

local FLAGS = { "--cpu-hz", "500", "--wall-hz", "50" }

local function enough(answer)
  return answer.cpu_seconds ~= support.json.null and answer.cpu_seconds >= 1.5 and #answer.hotspots > 2
end

--- Names of hotspots by the module that they are in, in order; a name without a symbol counts as none.
local function named(answer, module)
  local names = {}
  for _, hotspot in ipairs(answer.hotspots) do
    if hotspot.module:find(module, 1, true) and not hotspot.function_name:find("+0x", 1, true) then
      names[#names + 1] = hotspot.function_name
    end
  end
  return names
end

local function check_whole(answer)
  assert.is_true(answer.profiler.truncated_stacks <= 0.03 * answer.total_samples,
    ("%d of %d stacks are truncated"):format(answer.profiler.truncated_stacks, answer.total_samples))
  assert.equal(0, answer.profiler.dropped_records)
  assert.same({}, answer.rule_errors)
end

describe("redis-server under load", function()
  local run, port

  setup(function()
    port = support.free_port()
    run = lupe_run.start({ "redis-server", "--port", port, "--save", "", "--dir", support.temp_dir() },
      { flags = FLAGS })
    support.eventually(function()
      return support.run({ "redis-cli", "-p", port, "ping" }).out:match("PONG")
    end, 20, "redis to answer")
    support.spawn({ "redis-benchmark", "-p", port, "-q", "-l", "-t", "set,get,lpush,lrange_100", "-n", 50000, "-P",
      16 })
    run:await("/api/profiling/bottlenecks", enough, 60)
  end)
  teardown(support.cleanup)

  it("has hotspots of its own, on stacks that are whole", function()
    local answer = run:get("/api/profiling/bottlenecks")
    local names = named(answer, "redis-") -- Debian's redis-server is a link to redis-check-rdb
    assert.is_true(#names >= 3, support.json.encode(answer.hotspots))
    local folded = support.http(run.port, "/api/profiling/flamegraph?format=folded").body
    for _, frame in ipairs({ "main;", "aeMain;", "processCommand" }) do
      assert.is_truthy(folded:find(frame, 1, true), frame)
    end
    check_whole(answer)
    assert.is_true(answer.cpu_bound_percent + answer.memory_bound_percent > 50)
  end)

  it("has threads with its names, and one of them at work", function()
    local names = {}
    local answer = run:await("/api/profiling/cpu", function(a)
      return a.top_threads[1] and a.top_threads[1].running_percent ~= support.json.null
    end)
    for _, thread in ipairs(answer.top_threads) do names[thread.name] = thread end
    assert.is_truthy(names["redis-server"] and names["bio_lazy_free"], support.json.encode(answer.top_threads))
    assert.equal("redis-server", answer.top_threads[1].name)
    assert.is_true(names.bio_lazy_free.idle_percent > 90)
  end)

  it("is read by go tool pprof, whose top is the same", function()
    local dir = support.temp_dir()
    local profile = support.http(run.port, "/debug/pprof/profile?seconds=2", { seconds = 30 })
    assert.equal(200, profile.status, profile.body)
    local path = support.write_file(dir .. "/cpu.pb.gz", profile.body)
    local done = support.run({ "go", "tool", "pprof", "-top", "-cum", "-nodecount=40", path },
      { seconds = 60, env = { HOME = dir } })
    assert.equal(0, done.code, done.err)
    for _, name in ipairs({ "main", "aeMain", "processCommand" }) do
      assert.is_truthy(done.out:find(name, 1, true), name)
    end
  end)

  it("grew where a flame graph against a snapshot says so", function()
    local made = run:post("/api/profiling/snapshot", 201)
    assert.equal("completed", made.status)
    for _, kind in ipairs({ "cpu", "wall", "heap", "alloc" }) do
      local path = ("/api/profiling/flamegraph?type=%s&base=%s&format="):format(kind, made.snapshot_id)
      local tree = support.http(run.port, path .. "json")
      assert.equal(200, tree.status, tree.body)
      local root = tree.json()
      assert.is_true(root.value > 0 and root.base > 0, kind)
      local picture = support.http(run.port, path .. "svg")
      assert.equal(200, picture.status, picture.body:sub(1, 300))
      assert.matches("red grew, blue shrank", picture.body, 1, true)
    end
    assert.matches("no snapshot", run:get("/api/profiling/flamegraph?base=snapshot_1", nil, 404).detail, 1, true)
  end)

  it("tells where its time went when it ends", function()
    support.run({ "redis-cli", "-p", port, "shutdown", "nosave" })
    local report, code = run:finish()
    assert.equal(0, code)
    assert.is_true(#named(report.bottlenecks, "redis-") >= 3)
  end)
end)

describe("nginx with two workers under load", function()
  teardown(support.cleanup)

  it("has hotspots of its workers, whoever they run as", function()
    local dir, port = support.temp_dir(), support.free_port()
    os.execute("mkdir -p " .. dir .. "/html && chmod 755 " .. dir .. " " .. dir .. "/html")
    support.write_file(dir .. "/html/index.html", ("hello"):rep(1000))
    os.execute("chmod 644 " .. dir .. "/html/index.html")
    support.write_file(dir .. "/nginx.conf", ([[
      worker_processes 2; daemon off; pid %s/pid; error_log %s/error.log;
      events { worker_connections 64; }
      http { access_log off; client_body_temp_path %s/a; proxy_temp_path %s/b; fastcgi_temp_path %s/c;
             uwsgi_temp_path %s/d; scgi_temp_path %s/e; keepalive_requests 100000000;
             server { listen 127.0.0.1:%d; root %s/html; } }
    ]]):format(dir, dir, dir, dir, dir, dir, dir, port, dir))
    local run = lupe_run.start({ "nginx", "-e", dir .. "/error.log", "-c", dir .. "/nginx.conf" }, { flags = FLAGS })
    support.eventually(function()
      local answer = support.http(port, "/index.html")
      return answer and answer.status == 200
    end, 20, "nginx to serve a page")
    support.spawn({ support.built("bench/http_load"), port, "/index.html", 16, 120 })
    local answer = run:await("/api/profiling/bottlenecks", enough, 60)
    assert.is_true(#named(answer, "nginx") >= 3, support.json.encode(answer.hotspots))
    check_whole(answer)
    assert.equal("on", answer.cpu_profile.state)
    -- Workers that ran as another user could not be read by one who is not root: that has to be said.
    local workers = 0
    for _, target in ipairs(run:get("/api/targets").targets) do
      local one = run:get("/api/profiling/bottlenecks?target=" .. target.pid)
      assert.equal("on", one.cpu_profile.state)
      if one.wall_profile.state ~= "on" then
        assert.is_string(one.wall_profile.reason)
        assert.equal(support.json.null, one.io_bound_percent)
      end
      if one.cpu_seconds ~= support.json.null and one.cpu_seconds > 0.2 then workers = workers + 1 end
    end
    assert.is_true(workers >= 1)
    local report, code = run:finish(3) -- SIGQUIT: nginx ends in order
    assert.equal(0, code)
    assert.is_true(#named(report.bottlenecks, "nginx") >= 3)
  end)
end)

describe("a Python program", function()
  teardown(support.cleanup)

  it("is seen as its interpreter's functions", function()
    local program = [[
import sys
def turn(n): return sum(len(str(i)) for i in range(n))
while True: turn(20000)
]]
    local run = lupe_run.start({ "/usr/bin/python3", "-c", program }, { flags = FLAGS })
    local answer = run:await("/api/profiling/bottlenecks", enough, 60)
    assert.matches("_PyEval_EvalFrameDefault", table.concat(named(answer, "python3"), " "), 1, true)
    check_whole(answer)
    assert.is_true(answer.cpu_bound_percent + answer.memory_bound_percent > 90)
    local report, code = run:finish(15)
    assert.equal(143, code)
    assert.matches("_PyEval_EvalFrameDefault", table.concat(named(report.bottlenecks, "python3"), " "), 1, true)
  end)
end)
