--- deploy/lupe.service: what systemd would make of it, and lupe of what it is given.
local cli = require("lupe.cli")
local support = require("spec.support")

local UNIT = support.root .. "/deploy/lupe.service"

--- Sections of a unit: section -> name -> values, in order.
local function read_unit()
  local sections, current = {}, nil
  for line in io.lines(UNIT) do
    local section = line:match("^%[(%u%l+)%]$")
    local name, value = line:match("^(%u[%w]+)=(.*)$")
    if section then
      current = {}
      sections[section] = current
    elseif name then
      current[name] = current[name] or {}
      table.insert(current[name], value)
    else
      assert(line == "" or line:match("^#"), "not a unit's line: " .. line)
    end
  end
  return sections
end

describe("the systemd unit", function()
  local service = read_unit().Service

  teardown(support.cleanup)

  it("starts lupe serve, with settings that it understands", function()
    local words, env = {}, { RUNTIME_DIRECTORY = "/run/lupe", STATE_DIRECTORY = "/var/lib/lupe" }
    for word in service.ExecStart[1]:gmatch("%S+") do words[#words + 1] = word end
    for _, pair in ipairs(service.Environment) do
      local name, value = pair:match("^([%u_]+)=(.*)$")
      env[name] = value
    end
    assert.equal("lupe", table.remove(words, 1)) -- wherever it is installed
    local command, message = cli.parse(words, function(name) return env[name] end)
    assert.truthy(command, message)
    assert.equal("serve", command.command)
    assert.equal("/var/lib/" .. service.StateDirectory[1], command.config.state_dir)
    assert.equal("/run/" .. service.RuntimeDirectory[1] .. "/agents", command.config.socket)
    assert.equal("127.0.0.1:7077", command.config.listen)
    assert.is_true(command.config.listen_given) -- so no other port is tried
  end)

  it("is not started again and again with a setting that cannot be understood", function()
    local done = support.run({ support.built("lupe"), "serve", "--memory-interval", "soon" })
    assert.equal(service.RestartPreventExitStatus[1], tostring(done.code))
  end)

  it("leaves root two capabilities, and nothing of the system to write to", function()
    assert.same({ "CAP_SYS_PTRACE CAP_DAC_READ_SEARCH" }, service.CapabilityBoundingSet)
    assert.same({ "strict" }, service.ProtectSystem)
    assert.same({ "yes" }, service.NoNewPrivileges)
    assert.is_nil(service.User)
    for _, name in ipairs({ "MemoryDenyWriteExecute", "ProtectProc", "ProcSubset", "PrivateUsers" }) do
      assert.is_nil(service[name], name .. " would break it")
    end
  end)

  it("is found right by systemd-analyze", function()
    if support.run({ "sh", "-c", "command -v systemd-analyze" }).code ~= 0 then
      return pending("systemd-analyze is not installed")
    end
    -- It looks for the program, which need not be installed.
    local text = support.read_file(UNIT):gsub("ExecStart=%S+", "ExecStart=/bin/true")
    local path = support.write_file(support.temp_dir() .. "/lupe.service", text)
    local done = support.run({ "systemd-analyze", "verify", path })
    assert.equal(0, done.code, done.err)
    assert.equal("", done.err)
  end)
end)

describe("a daemon with what the unit leaves it", function()
  teardown(support.cleanup)

  it("takes in another user's program, and names its functions", function()
    if tonumber(support.run({ "id", "-u" }).out) ~= 0 then return pending("needs root") end
    local lupe_serve = require("spec.lupe_serve")
    local capabilities = read_unit().Service.CapabilityBoundingSet[1]:lower():gsub("cap_", "+"):gsub(" ", ",")
    local daemon = lupe_serve.start({
      before = { "setpriv", "--no-new-privs", "--bounding-set=-all," .. capabilities, "--inh-caps=-all" },
      flags = { "--users", "65534" },
    })
    daemon:await_ready()
    os.execute(("chmod 755 %s"):format(daemon.dir))
    local program = support.spawn({ "setpriv", "--reuid", "65534", "--clear-groups", "sh", "-c", daemon:preload_env()
      .. ("exec %s keep=640,65536 wait=%s/go"):format(support.fixture("agent_host"), daemon.dir) })
    daemon:await_target(program.pid)
    local path = "/api/profiling/allocations?target=" .. program.pid
    local answer = daemon:await(path, function(json) return json.top_allocators[1] end)
    assert.equal("spec_leaf", answer.top_allocators[1][1])
    support.write_file(daemon.dir .. "/go", "")
    assert.equal(0, (program:wait(20)))
    assert.equal(0, (daemon:stop()))
  end)
end)
