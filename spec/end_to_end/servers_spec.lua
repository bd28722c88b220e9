--- Servers that export nothing or that fork, and a program that lives on exceptions.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

describe("memcached under lupe run", function()
  teardown(support.cleanup)

  it("names the functions of a stripped program by offset, the same in every run", function()
    local function sites_of_a_run()
      local port = support.free_port()
      local run = lupe_run.start({ "memcached", "-u", "nobody", "-p", port, "-l", "127.0.0.1", "-m", "64" },
        { flags = { "--sample-bytes", "16K" } })
      support.eventually(function() return support.exchange(port, "version\r\nquit\r\n") end, 20, "memcached to answer")
      local parts = {}
      for i = 1, 2000 do
        parts[#parts + 1] = ("set key%d 0 0 1000 noreply\r\n%s\r\n"):format(i, ("v"):rep(1000))
      end
      parts[#parts + 1] = "get key7\r\nquit\r\n"
      assert.matches("VALUE key7 0 1000", support.exchange(port, table.concat(parts), 20))
      local answer = run:await("/api/profiling/allocations", function(a) return #a.allocators > 0 end)
      local names = {}
      for _, site in ipairs(answer.allocators) do names[site.name] = site.inuse_space end
      local _, code = run:finish(15)
      assert.equal(0, code)
      return names
    end
    local first, second = sites_of_a_run(), sites_of_a_run()
    local shared = 0
    for name in pairs(first) do
      if name:match("^memcached%+0x%x+$") and second[name] then shared = shared + 1 end
    end
    assert.is_true(shared > 0)
  end)
end)

describe("nginx with two workers under lupe run", function()
  teardown(support.cleanup)

  it("is one report for the whole tree", function()
    local dir, port = support.temp_dir(), support.free_port()
    os.execute("mkdir -p " .. dir .. "/html && chmod 755 " .. dir .. " " .. dir .. "/html")
    support.write_file(dir .. "/html/index.html", "hello")
    os.execute("chmod 644 " .. dir .. "/html/index.html")
    support.write_file(dir .. "/nginx.conf", ([[
      worker_processes 2; daemon off; pid %s/pid; error_log %s/error.log;
      events { worker_connections 64; }
      http { access_log off; client_body_temp_path %s/a; proxy_temp_path %s/b; fastcgi_temp_path %s/c;
             uwsgi_temp_path %s/d; scgi_temp_path %s/e;
             server { listen 127.0.0.1:%d; root %s/html; } }
    ]]):format(dir, dir, dir, dir, dir, dir, dir, port, dir))
    local run = lupe_run.start({ "nginx", "-e", dir .. "/error.log", "-c", dir .. "/nginx.conf" },
      { flags = { "--sample-bytes", "4K" } })
    local targets = run:await("/api/targets", function(t)
      local live = 0
      for _, target in ipairs(t.targets) do if target.live then live = live + 1 end end
      return live == 3
    end)
    assert.equal(3, #targets.targets)
    support.eventually(function()
      local answer = support.http(port, "/index.html")
      return answer and answer.body == "hello"
    end, 10, "nginx to serve a page")
    for _, target in ipairs(targets.targets) do
      assert.equal("nginx", target.name)
      run:await("/api/profiling/allocations?target=" .. target.pid, function(a) return #a.allocators > 0 end)
    end
    local whole = run:get("/api/profiling/memory")
    local one = run:get("/api/profiling/memory?target=" .. targets.targets[1].pid)
    assert.is_true(whole.rss_mb > one.rss_mb)
    local report, code = run:finish(3) -- SIGQUIT: nginx ends in order
    assert.equal(0, code)
    assert.equal(3, #report.targets)
  end)
end)

describe("a program that throws 100,000 exceptions a second under lupe run", function()
  teardown(support.cleanup)

  it("catches every one and prints what it prints without", function()
    local done = support.run({ support.built("lupe"), "run", "--report", "none", "--sample-bytes", "16K", "--",
      support.fixture("thrower"), 50000 }, { seconds = 60 })
    assert.equal(0, done.code, done.err)
    assert.equal("caught 200000\n", done.out)
  end)
end)

-- Neither the program nor the agent in it is sanitized: it is lupe, beside them, that is looked at there.
local STORM_SECONDS = support.sanitized and 8 or 20

describe("a storm of allocations, exceptions, libraries, forks and threads", function()
  teardown(support.cleanup)

  it("ends with every child reaped, at one sample per 4 KiB", function()
    local done = support.run({ support.built("lupe"), "run", "--report", "none", "--sample-bytes", "4K",
      "--heap-interval", "0.5", "--", support.fixture("storm"), STORM_SECONDS, 8,
      support.built("spec/unwind_plugin.so") }, { seconds = 90 })
    assert.equal(0, done.code, done.out .. done.err)
    assert.matches("failures 0", done.out)
  end)
end)
