--- What `lupe preload-env` prints can be used as it is: by eval, in a unit, by docker run.
local config = require("lupe.config")
local preload_env = require("lupe.preload_env")
local support = require("spec.support")

local PATHS = { agent = "/usr/lib/lupe/liblupe-agent.so", jemalloc = "/usr/lib/libjemalloc.so.2" }

local function settings(given)
  local values = config.defaults()
  values.socket = "/run/lupe/agents"
  for name, value in pairs(given or {}) do values[name], values.sources[name] = value, "flag" end
  return values
end

local function nothing() return nil end

local function text_of(format, given, env)
  return preload_env.text(settings(given), format, PATHS, env or nothing)
end

describe("lupe preload-env", function()
  teardown(support.cleanup)

  it("prints lines that a shell evaluates to what lupe run would set", function()
    local script = text_of("shell", { socket = "/tmp/it's a 'folder'/$HOME/agents" })
      .. 'printf "%s\\n" "$LD_PRELOAD" "$MALLOC_CONF" "$LUPE_SOCKET" "$LUPE_ALLOCATOR" "$LUPE_SAMPLE_BYTES"'
    -- The loader of what sh runs would look for the libraries, so nothing is run after it.
    assert.equal(table.concat({
      PATHS.jemalloc .. ":" .. PATHS.agent, "prof:true,prof_active:false,lg_prof_sample:19",
      "/tmp/it's a 'folder'/$HOME/agents", "jemalloc", "524288", "",
    }, "\n"), support.run({ "sh", "-c", script }).out)
  end)

  it("keeps what the shell has preloaded, and is the same when it is evaluated again", function()
    local env = { LD_PRELOAD = "/usr/lib/libmine.so", MALLOC_CONF = "dirty_decay_ms:10" }
    local first = text_of("shell", nil, function(name) return env[name] end)
    local list = "/usr/lib/libmine.so:" .. PATHS.jemalloc .. ":" .. PATHS.agent
    assert.truthy(first:find("LD_PRELOAD='" .. list .. "'", 1, true))
    assert.truthy(first:find("dirty_decay_ms:10,prof:true", 1, true))
    env.LD_PRELOAD = first:match("LD_PRELOAD='([^']*)'")
    local second = text_of("shell", nil, function(name) return env[name] end)
    assert.equal(env.LD_PRELOAD, second:match("LD_PRELOAD='([^']*)'"))
  end)

  it("prints lines of a unit, without what the caller's shell has preloaded", function()
    local text = text_of("systemd", { socket = '/run/50% "x"\\y/agents' }, function() return "/usr/lib/libmine.so" end)
    assert.falsy(text:find("libmine", 1, true))
    assert.truthy(text:find('Environment="LUPE_SOCKET=/run/50%% \\"x\\"\\\\y/agents"\n', 1, true))
    for line in text:gmatch("[^\n]+") do assert.matches('^Environment="[%u_]+=.*"$', line) end
  end)

  it("prints words of docker run, with the folders that the container needs", function()
    local text = text_of("docker")
    local words = {}
    for word in text:gmatch("%S+") do words[#words + 1] = word end
    for i = 1, #words, 2 do assert.truthy(words[i] == "--env" or words[i] == "--volume", words[i]) end
    assert.truthy(text:find("--volume /run/lupe:/run/lupe\n", 1, true))
    assert.truthy(text:find(("--volume %s:%s:ro\n"):format(PATHS.agent, PATHS.agent), 1, true))
    local refused, message = text_of("docker", { socket = "/run/my lupe/agents" })
    assert.is_nil(refused)
    assert.truthy(message:find("a blank or a wildcard cannot be in a word", 1, true))
  end)

  it("leaves the allocator alone where it is told to, and says what contradicts it", function()
    local text = text_of("shell", { allocator = "system" })
    assert.falsy(text:find("jemalloc.so", 1, true))
    assert.falsy(text:find("MALLOC_CONF", 1, true))
    assert.truthy(text:find("LUPE_ALLOCATOR='system'", 1, true))
    local _, warnings = text_of("shell", nil, function(name) return name == "MALLOC_CONF" and "prof:false" or nil end)
    assert.truthy(table.concat(warnings):find("lupe needs prof:true", 1, true))
  end)

  it("refuses a socket that depends on the working directory", function()
    local refused, message = text_of("shell", { socket = "run/agents" })
    assert.is_nil(refused)
    assert.truthy(message:find("expected an absolute path", 1, true))
  end)
end)
