require("spec.support")
local cli = require("lupe.cli")
local settings = require("lupe.settings")

local function parse(...)
  return cli.parse({ ... }, function() return nil end)
end

describe("the command line", function()
  it("leaves the command's own flags alone", function()
    local run = parse("run", "--report", "json", "--", "redis-server", "--port", "1", "--report", "none")
    assert.equal("run", run.command)
    assert.equal("json", run.config.report)
    assert.same({ "redis-server", "--port", "1", "--report", "none" }, run.argv)
  end)

  it("takes the first word that is no flag as the command, also without --", function()
    local run = parse("run", "--duration=2s", "sleep", "--help")
    assert.equal(2, run.config.duration_secs)
    assert.same({ "sleep", "--help" }, run.argv)
  end)

  it("takes a boolean flag without a value", function()
    assert.is_true(parse("run", "--require", "--", "true").config.require)
    assert.is_false(parse("run", "--enable-profiling=false", "true").config.enable_profiling)
  end)

  it("answers an unknown flag with the nearest one and exit code 2", function()
    local result, message, code = parse("run", "--sampel-bytes", "1", "--", "true")
    assert.is_nil(result)
    assert.equal("unknown flag --sampel-bytes, did you mean --sample-bytes?", message)
    assert.equal(2, code)
  end)

  it("answers an unknown command with the nearest one and exit code 2", function()
    local result, message, code = parse("rnu", "--", "true")
    assert.is_nil(result)
    assert.equal("unknown command rnu, did you mean run?", message)
    assert.equal(2, code)
  end)

  it("names flag, value and expectation where a value cannot be understood", function()
    local _, message, code = parse("run", "--duration", "soon", "--", "true")
    assert.equal('--duration: cannot understand "soon", expected a time in seconds from 0.1 to 31536000, '
      .. "such as 5, 500ms, 2m or 1h", message)
    assert.equal(2, code)
  end)

  it("misses a value, a command, or everything with exit code 2", function()
    local incomplete = { { "run", "--output" }, { "run", "--output", "--", "true" }, { "run" }, { "run", "--" }, {} }
    for _, words in ipairs(incomplete) do
      local result, message, code = cli.parse(words, function() return nil end)
      assert.is_nil(result)
      assert.equal("string", type(message))
      assert.equal(2, code)
    end
  end)

  it("says where a flag belongs that stands before the command", function()
    local _, message = parse("--listen", "127.0.0.1:1", "run")
    assert.truthy(message:find("belongs after a command", 1, true))
  end)

  it("documents every setting in the help of run", function()
    for _, words in ipairs({ { "run", "--help" }, { "help", "run" } }) do
      local help = cli.parse(words, function() return nil end)
      assert.equal("help", help.command)
      for _, spec in ipairs(settings) do
        assert.truthy(help.text:find(spec.flag or spec.name, 1, true), spec.name)
        assert.truthy(help.text:find(spec.env or spec.doc:sub(1, 20), 1, true), spec.name)
      end
    end
  end)

  it("knows help and version in their usual spellings", function()
    assert.equal("version", parse("--version").command)
    assert.equal("help", parse("--help").command)
    assert.equal("help", parse("help").command)
  end)
end)
