--- Leak proofs of real programs, while they serve.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

local PROVE = "/api/profiling/leak-detection?proof=true"
local FAST = { "--sample-bytes", "8K", "--proof-interval-ms", "100" }

local function proved(run)
  local answer = run:post(PROVE)
  assert.equal("complete", answer.proof.status, tostring(answer.proof.reason))
  return answer
end

--- Whether any site of an answer is called proven.
local function accused(answer)
  local names = {}
  for _, site in ipairs(answer.proof.sites) do
    if site.state == "proven" then names[#names + 1] = site.component end
  end
  return table.concat(names, " ")
end

describe("a leak proof", function()
  teardown(support.cleanup)

  it("of a program that loses memory names the function and nobody else, as it exits", function()
    local run = lupe_run.start({ support.built("bench/zoo/lost"), "linear", "--seed", "1", "--seconds", "60", "--clock",
      "ticks" }, { flags = { "--sample-bytes", "4K", "--proof", "exit" } })
    local report, code = run:finish()
    assert.equal(0, code)
    assert.equal("complete", report.proof.status)
    assert.equal("read_record", accused(report))
    local site = report.proof.sites[1]
    assert.is_true(site.unreachable >= 0.95 * site.sampled_objects)
    assert.is_true(report.proof.unreachable_bytes > 0)
  end)

  it("of redis under load accuses nothing, and redis goes on", function()
    local port = support.free_port()
    local run = lupe_run.start({ "redis-server", "--port", port, "--save", "", "--enable-debug-command", "yes" },
      { flags = FAST })
    support.eventually(function() return support.exchange(port, "PING\r\nQUIT\r\n") end, 20, "redis to answer")
    assert.matches("OK", support.exchange(port, "DEBUG POPULATE 20000 key 200\r\nQUIT\r\n", 20))
    local clients = support.spawn({ "redis-benchmark", "-p", port, "-t", "set,get,lpush,lpop", "-n", "100000000", "-r",
      "10000", "-c", "4", "-q" })
    run:await("/api/profiling/allocations", function(a) return #a.allocators > 0 end)
    for _ = 1, 3 do assert.equal("", accused(proved(run))) end
    assert.is_true(clients:alive())
    clients:kill()
    clients:wait()
    assert.matches("PONG", support.exchange(port, "PING\r\nQUIT\r\n"))
    support.exchange(port, "SHUTDOWN NOSAVE\r\n")
    local _, code = run:finish()
    assert.equal(0, code)
  end)

  it("of nginx's master and workers leaves them as they are", function()
    local dir, port = support.temp_dir(), support.free_port()
    support.write_file(dir .. "/nginx.conf", ([[
      worker_processes 2; daemon off; pid %s/pid; error_log %s/error.log notice;
      events { worker_connections 64; }
      http { access_log off; server { listen 127.0.0.1:%d; location / { return 200 "hello"; } } }
    ]]):format(dir, dir, port))
    local run = lupe_run.start({ "nginx", "-e", dir .. "/error.log", "-c", dir .. "/nginx.conf" }, { flags = FAST })
    local targets = run:await("/api/targets", function(t)
      local live = 0
      for _, target in ipairs(t.targets) do if target.live then live = live + 1 end end
      return live == 3
    end)
    for _, target in ipairs(targets.targets) do
      run:await("/api/profiling/allocations?target=" .. target.pid, function(a) return #a.allocators > 0 end)
    end
    for _ = 1, 3 do
      local answer = proved(run)
      assert.equal(3, #answer.proof.targets)
      assert.equal("", accused(answer))
      assert.equal("hello", support.http(port, "/").body)
    end
    local log = support.read_file(dir .. "/error.log")
    -- A master that is told of a child's end says so, and starts another worker.
    assert.is_nil(log:match("exited"), log)
    assert.is_nil(log:match("SIGCHLD"), log)
    local _, code = run:finish(3) -- SIGQUIT: nginx ends in order
    assert.equal(0, code)
  end)

  it("of a shell changes nothing that it does", function()
    local script = "for i in 1 2 3 4 5 6 7 8; do sleep 0.4 & wait $!; echo $i $?; done; false & wait $!; echo end $?"
    local expected = support.run({ "sh", "-c", script })
    local done = support.run({ support.built("lupe"), "run", "--listen", "127.0.0.1:" .. support.free_port(), "--proof",
      "1", "--proof-interval-ms", "50", "--report", "none", "--", "sh", "-c", script }, { seconds = 60 })
    assert.equal(expected.out, done.out)
    assert.equal(expected.code, done.code)
    assert.matches("leak proof of process %d+ %(d?a?sh%)", done.err)
  end)
end)
