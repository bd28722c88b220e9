--- redis-server under lupe: figures that agree with redis's own, and a redis that notices nothing.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

describe("redis-server under lupe run", function()
  local run, port

  local function redis(...)
    local done = support.run({ "redis-cli", "-p", port, ... }, { seconds = 60 })
    assert.equal(0, done.code, done.err)
    return done.out
  end

  local function info(section, field)
    return tonumber(redis("info", section):match(field .. ":(%d+)"))
  end

  setup(function()
    port = support.free_port()
    run = lupe_run.start({ "redis-server", "--port", port, "--save", "", "--dir", support.temp_dir() },
      { flags = { "--sample-bytes", "16K" } })
    support.eventually(function()
      return support.run({ "redis-cli", "-p", port, "ping" }).out:match("PONG")
    end, 20, "redis to answer")
    local filled = support.run(
      { "redis-benchmark", "-p", port, "-q", "-t", "set,lpush", "-n", "60000", "-r", "60000", "-d", "400", "-P", "16" },
      { seconds = 60 })
    assert.equal(0, filled.code, filled.err)
  end)

  teardown(support.cleanup)

  it("reports the heap that redis itself reports", function()
    local told, own
    support.eventually(function()
      own = info("memory", "allocator_allocated")
      told = run:get("/api/profiling/memory").heap_mb * 2 ^ 20
      return math.abs(told - own) <= 0.01 * own
    end, 10, "heap_mb to be within 1 % of allocator_allocated")
  end)

  it("names redis's own functions as allocators, not zmalloc", function()
    local answer = run:await("/api/profiling/allocations", function(a) return #a.top_allocators > 2 end)
    local names = {}
    for _, pair in ipairs(answer.top_allocators) do
      names[#names + 1] = pair[1]
      assert.is_nil(pair[1]:match("^z[tm]?[rcm]alloc") or pair[1]:match("^zmalloc"), pair[1])
      assert.is_true(pair[2] > 0)
    end
    assert.matches("sds", table.concat(names, " "))
  end)

  it("accounts for what the allocator holds, within the error of sampling", function()
    -- redis counts usable sizes as jemalloc does; only what its libraries allocate is missing there.
    local sum, held
    support.eventually(function()
      sum, held = 0, info("memory", "used_memory")
      local answer = run:get("/api/profiling/allocations?limit=1000")
      for _, site in ipairs(answer.allocators) do sum = sum + site.inuse_space end
      return math.abs(sum - held) < 4 * math.sqrt(16384 * held) + 2 ^ 21
    end, 10, "the sites to sum up to what redis holds, within the error of sampling")
  end)

  it("leaves redis's own Lua and its background save alone", function()
    assert.matches("^42", redis("eval", "return 6 * 7", "0"))
    redis("bgsave")
    support.eventually(function() return redis("info", "persistence"):match("rdb_bgsave_in_progress:0") end, 30,
      "the background save")
    assert.matches("rdb_last_bgsave_status:ok", redis("info", "persistence"))
    assert.matches("PONG", redis("ping"))
  end)

  it("ends with redis and says how it ended", function()
    support.run({ "redis-cli", "-p", port, "shutdown", "nosave" })
    local report, code = run:finish()
    assert.equal(0, code)
    assert.is_table(report)
    assert.equal("redis-server", report.targets[1].name)
  end)
end)
