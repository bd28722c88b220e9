require("spec.support")
local config = require("lupe.config")
local launch = require("lupe.launch")

local PATHS = { agent = "/opt/liblupe-agent.so", jemalloc = "/lib/libjemalloc.so.2", socket = "/run/lupe/1.sock" }

local function environment(env, fields, paths)
  local values = config.defaults()
  for name, value in pairs(fields or {}) do
    values[name] = value
    values.sources[name] = "flag"
  end
  return launch.environment(values, env or {}, paths or PATHS)
end

local function warned(plan, text)
  for _, warning in ipairs(plan.warnings) do
    if warning:find(text, 1, true) then return true end
  end
  return false
end

describe("the program's environment", function()
  it("holds what profiling needs, and warns of nothing where nothing was set", function()
    local plan = environment()
    assert.same({
      LD_PRELOAD = "/lib/libjemalloc.so.2:/opt/liblupe-agent.so",
      MALLOC_CONF = "prof:true,prof_active:false,lg_prof_sample:19",
      LUPE_SOCKET = "/run/lupe/1.sock",
      LUPE_ALLOCATOR = "jemalloc",
      LUPE_SAMPLE_BYTES = "524288",
    }, plan.set)
    assert.same({}, plan.warnings)
    assert.equal(524288, plan.sample_bytes)
  end)

  it("keeps the user's own options first, where jemalloc lets the later ones win", function()
    local plan = environment({ MALLOC_CONF = "background_thread:true,narenas:4,dirty_decay_ms:10000" })
    assert.equal("background_thread:true,narenas:4,dirty_decay_ms:10000,prof:true,prof_active:false,lg_prof_sample:19",
      plan.set.MALLOC_CONF)
    assert.same({}, plan.warnings)
  end)

  it("keeps the user's preloaded libraries, in front", function()
    local plan = environment({ LD_PRELOAD = "/a.so /b.so" })
    assert.equal("/a.so:/b.so:/lib/libjemalloc.so.2:/opt/liblupe-agent.so", plan.set.LD_PRELOAD)
  end)

  it("does not preload a second jemalloc", function()
    local plan = environment({ LD_PRELOAD = "/opt/libjemalloc.so.2" })
    assert.equal("/opt/libjemalloc.so.2:/opt/liblupe-agent.so", plan.set.LD_PRELOAD)
  end)

  for option, value in pairs({
    prof = "false", prof_active = "true", prof_accum = "true", prof_unbias = "false", prof_thread_active_init = "false",
  }) do
    it(("overrules %s:%s and says so"):format(option, value), function()
      local plan = environment({ MALLOC_CONF = ("narenas:2,%s:%s"):format(option, value) })
      local needed = value == "true" and "false" or "true"
      assert.truthy(plan.set.MALLOC_CONF:match("^narenas:2,"))
      assert.truthy(plan.set.MALLOC_CONF:find((",%s:%s,"):format(option, needed), 1, true), plan.set.MALLOC_CONF)
      assert.is_true(warned(plan, ("%s:%s"):format(option, value)))
    end)
  end

  it("keeps the user's sampling rate, unless lupe was given one", function()
    local plan = environment({ MALLOC_CONF = "lg_prof_sample:12" })
    assert.equal(4096, plan.sample_bytes)
    assert.is_true(warned(plan, "4 KiB"))
    plan = environment({ MALLOC_CONF = "lg_prof_sample:12" }, { sample_bytes = 65536 })
    assert.equal(65536, plan.sample_bytes)
    assert.truthy(plan.set.MALLOC_CONF:match(",lg_prof_sample:16$"))
    assert.is_true(warned(plan, "the sample size given to lupe wins"))
  end)

  it("rounds the sample size to a power of two, and says so", function()
    local plan = environment({}, { sample_bytes = 100000 })
    assert.equal(131072, plan.sample_bytes)
    assert.is_true(warned(plan, "becomes 128 KiB"))
  end)

  it("leaves out what jemalloc would stop at, since ours would be lost with it", function()
    local plan = environment({ MALLOC_CONF = "narenas:4,nonsense,tcache:false" })
    assert.equal("narenas:4,prof:true,prof_active:false,lg_prof_sample:19", plan.set.MALLOC_CONF)
    assert.is_true(warned(plan, "malformed"))
  end)

  it("bears a comma at the end", function()
    local plan = environment({ MALLOC_CONF = "narenas:4," })
    assert.equal("narenas:4,prof:true,prof_active:false,lg_prof_sample:19", plan.set.MALLOC_CONF)
  end)

  it("touches neither the allocator nor MALLOC_CONF where the system's was asked for", function()
    local plan = environment({ MALLOC_CONF = "narenas:4" }, { allocator = "system" })
    assert.is_nil(plan.set.MALLOC_CONF)
    assert.equal("/opt/liblupe-agent.so", plan.set.LD_PRELOAD)
    assert.equal("system", plan.set.LUPE_ALLOCATOR)
  end)

  it("changes nothing where profiling is disabled", function()
    assert.same({}, environment({}, { enable_profiling = false }).set)
  end)

  it("warns of another allocator that is preloaded, and of a jemalloc that is missing", function()
    assert.is_true(warned(environment({ LD_PRELOAD = "/usr/lib/libtcmalloc.so.4" }), "libtcmalloc"))
    assert.is_true(warned(environment({}, {}, { agent = "/a.so", socket = "/s" }), "libjemalloc2"))
  end)

  it("refuses a path that the loader would split", function()
    local plan, message = environment({}, {}, { agent = "/my agent.so", socket = "/s" })
    assert.is_nil(plan)
    assert.truthy(message:find("/my agent.so", 1, true))
  end)
end)
