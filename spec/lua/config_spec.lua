local support = require("spec.support")
local config = require("lupe.config")

local function env_of(values)
  return function(name) return values[name] end
end

local function with_file(text)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  return path
end

describe("the configuration", function()
  it("has the defaults of the API's documentation", function()
    local values = config.resolve({}, env_of({ HOME = "/home/u" }))
    assert.equal("127.0.0.1:7077", values.listen)
    assert.equal("127.0.0.1", values.listen_host)
    assert.equal(7077, values.listen_port)
    assert.is_false(values.listen_given)
    assert.equal(5, values.memory_interval_secs)
    assert.equal(300, values.leak_check_interval_secs)
    assert.equal(650, values.memory_warning_mb)
    assert.equal(700, values.memory_alert_mb)
    assert.equal(524288, values.sample_bytes)
    assert.equal(1, values.heap_interval_secs)
    assert.same({ 99, 20 }, { values.cpu_hz, values.wall_hz })
    assert.equal(20, values.snapshot_keep)
    assert.equal(512, values.snapshot_max_mb)
    assert.is_true(values.enable_profiling)
    assert.equal("/home/u/.local/state/lupe", values.state_dir)
    assert.same({ 100, 10, 5 }, { values.rate_reads, values.rate_leak, values.rate_snapshots })
  end)

  it("takes the flag before the environment, the environment before the file, the file before the default", function()
    local path = with_file("return { snapshot_keep = 3, memory_warning_mb = 10, rate_reads = 7 }")
    local values = assert(config.resolve({ snapshot_keep = 1 }, env_of({
      LUPE_CONFIG = path, LUPE_SNAPSHOT_KEEP = "2", PROFILING_MEMORY_WARNING_MB = "20",
    })))
    os.remove(path)
    assert.equal(1, values.snapshot_keep)
    assert.equal("flag", values.sources.snapshot_keep)
    assert.equal(20, values.memory_warning_mb)
    assert.equal("environment", values.sources.memory_warning_mb)
    assert.equal(7, values.rate_reads)
    assert.equal("file", values.sources.rate_reads)
    assert.equal("default", values.sources.report)
  end)

  it("understands a list of words, as text or as an array in the file", function()
    local function actions(file) return assert(config.resolve({}, env_of({ LUPE_CONFIG = file }))).actions end
    local path = with_file("return { actions = { 'decay', 'purge', 'decay' } }")
    finally(function() os.remove(path) end)
    assert.same({}, actions(nil))
    assert.same({ "decay", "purge" }, actions(path))
    local spec = config.by_name.actions
    assert.same({ "purge", "snapshot" }, config.value(spec, "purge, snapshot", "x"))
    assert.same({}, config.value(spec, "none", "x"))
    local expected = ", expected none, or some of purge,decay,snapshot,sampling"
    assert.same({ nil, 'x: cannot understand "purge,kill"' .. expected }, { config.value(spec, "purge,kill", "x") })
    assert.same({ nil, "x: cannot understand true" .. expected }, { config.value(spec, true, "x") })
    assert.is_nil((config.value(spec, { name = "purge" }, "x")))
  end)

  it("understands sizes and times with a unit", function()
    local values = assert(config.resolve({}, env_of({
      LUPE_SAMPLE_BYTES = "64K", LUPE_HEAP_INTERVAL_SECS = "250ms", PROFILING_LEAK_CHECK_INTERVAL_SECS = "2m",
    })))
    assert.equal(65536, values.sample_bytes)
    assert.equal(0.25, values.heap_interval_secs)
    assert.equal(120, values.leak_check_interval_secs)
  end)

  for _, case in ipairs({
    { "LUPE_SAMPLE_BYTES", "a lot", "size in bytes" },
    { "LUPE_SAMPLE_BYTES", "0.5", "size in bytes" },
    { "LUPE_SNAPSHOT_KEEP", "0", "whole number from 1" },
    { "LUPE_SNAPSHOT_KEEP", "2.5", "whole number" },
    { "ENABLE_PROFILING", "maybe", "true or false" },
    { "PROFILING_MEMORY_INTERVAL_SECS", "-1", "time in seconds" },
    { "LUPE_LISTEN", "localhost", "an address such as" },
    { "LUPE_LISTEN", "127.0.0.1:99999", "an address such as" },
    { "LUPE_REPORT", "xml", "one of text, json, none" },
    { "PROFILING_MEMORY_WARNING_MB", "nan", "a number" },
  }) do
    it(("refuses %s=%s, naming it, the value, and what was expected"):format(case[1], case[2]), function()
      local values, message = config.resolve({}, env_of({ [case[1]] = case[2] }))
      assert.is_nil(values)
      assert.truthy(message:find(case[1], 1, true), message)
      assert.truthy(message:find(case[2], 1, true), message)
      assert.truthy(message:find(case[3], 1, true), message)
    end)
  end

  it("refuses an address that is not loopback, and says why and what to do", function()
    for _, address in ipairs({ "0.0.0.0:7077", "10.0.0.1:80", "[::]:7077", "example.org:7077" }) do
      local values, message = config.resolve({}, env_of({ LUPE_LISTEN = address }))
      assert.is_nil(values)
      assert.truthy(message:find("not a loopback address", 1, true), message)
      assert.truthy(message:find("ssh -L", 1, true), message)
    end
    assert.equal("::1", config.resolve({}, env_of({ LUPE_LISTEN = "[::1]:7077" })).listen_host)
    assert.equal("127.0.0.1", config.resolve({}, env_of({ LUPE_LISTEN = "localhost:0" })).listen_host)
  end)

  it("refuses an alert limit below the warning limit", function()
    local values, message = config.resolve({ memory_warning_mb = 800 }, env_of({}))
    assert.is_nil(values)
    assert.truthy(message:find("memory_alert_mb", 1, true), message)
  end)

  it("takes words or a time for when leak proofs are run", function()
    local function proof(text)
      local values, message = config.resolve({}, env_of({ LUPE_PROOF = text }))
      return values and values.proof or message
    end
    assert.equal("request", config.defaults().proof)
    assert.same({ "never", "exit", 300, 7200 }, { proof("never"), proof("exit"), proof("300"), proof("2h") })
    assert.equal('LUPE_PROOF: cannot understand "0", expected one of request, never, exit, or a time in seconds from 1 '
      .. "to 31536000, such as 5, 500ms, 2m or 1h", proof("0"))
    assert.truthy(proof("always"):find('cannot understand "always"', 1, true))
  end)

  describe("file", function()
    local function message_for(text)
      local path = with_file(text)
      local values, message = config.resolve({ config = path }, env_of({}))
      os.remove(path)
      assert.is_nil(values)
      assert.truthy(message:find(path, 1, true), message)
      return message
    end

    it("names an unknown setting and the nearest known one", function()
      assert.truthy(message_for("return { snapshot_kep = 1 }"):find('did you mean "snapshot_keep"?', 1, true))
    end)

    it("must return a table", function()
      assert.truthy(message_for("return 5"):find("must return a table", 1, true))
    end)

    it("is told with its line where it does not compile", function()
      assert.truthy(message_for("return {\n  oops oops\n}"):find(":2:", 1, true))
    end)

    it("reaches no library", function()
      assert.truthy(message_for("os.exit(1)"):find("global 'os'", 1, true))
    end)

    it("is stopped where it never ends", function()
      assert.truthy(message_for("while true do end"):find("takes too long", 1, true))
    end)

    it("that was asked for must be there", function()
      local values, message = config.resolve({ config = "/nowhere/lupe.conf.lua" }, env_of({}))
      assert.is_nil(values)
      assert.truthy(message:find("cannot be opened", 1, true))
    end)
  end)

  it("takes tables about rules from the file, and checks them", function()
    local function resolve(text)
      local path = with_file(text)
      local values, message = config.resolve({ config = path }, env_of({}))
      os.remove(path)
      return values, message and message:gsub("^.-: ", "")
    end
    local values = assert(resolve([[return {
      rule_params = { ["leak.steady-growth"] = { min_growth = 10 } }, rules_disabled = { "pattern.*" },
      suppressions = { { site = "f", reason = "known", until_date = "2027-01-31" } },
    }]]))
    assert.same({ ["leak.steady-growth"] = { min_growth = 10 } }, values.rule_params)
    assert.same({ "pattern.*" }, values.rules_disabled)
    assert.equal("known", values.suppressions[1].reason)
    assert.equal("file", values.sources.suppressions)
    local _, message = resolve("return { suppressions = { { site = 'f', until_date = '2027-01-31' } } }")
    assert.equal("suppressions[1]: field 'reason': expected string, got nothing", message)
    _, message = resolve("return { rule_params = { 5 } }")
    assert.equal("rule_params: expected rules' ids as keys, got a number", message)
    _, message = resolve("return { rules_disabled = 'pattern.*' }")
    assert.equal("rules_disabled: expected an array of rules' ids, got string", message)
    _, message = resolve("return { supressions = {} }")
    assert.truthy(message:find('did you mean "suppressions"?', 1, true), message)
  end)

  it("reads the working folder's file where nobody asked for that only on the command line", function()
    local folder = support.temp_dir()
    finally(support.cleanup)
    support.write_file(folder .. "/named.lua", "return { cpu_hz = 7 }")
    local options = { only_named_file = true }
    local values = assert(config.resolve({ config = folder .. "/named.lua" }, function() end, options))
    assert.equal(7, values.cpu_hz)
    assert.equal("default", assert(config.resolve({}, function() end, options)).sources.cpu_hz)
  end)
end)
