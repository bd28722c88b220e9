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

  it("documents every setting in the help of run and of serve, each what it takes", function()
    local ONLY = {
      run = { "--report", "--output", "--duration", "--record", "--allocator", "--sample-bytes", "--require" },
      serve = { "--socket", "--users", "--reports-keep", "--reports-max-mb", "--reports-min-secs" },
    }
    local both = {}
    for command, others in pairs({ run = ONLY.serve, serve = ONLY.run }) do
      local help = cli.parse({ command, "--help" }, function() return nil end)
      assert.equal("help", help.command)
      assert.same(help, cli.parse({ "help", command }, function() return nil end))
      for _, flag in ipairs(others) do assert.is_nil(help.text:find("\n  " .. flag .. "%f[ %[]")) end
      both[#both + 1] = help.text
    end
    local text = table.concat(both)
    for _, spec in ipairs(settings) do
      assert.truthy(text:find(spec.flag or spec.name, 1, true), spec.name)
      assert.truthy(text:find(spec.env or spec.doc:sub(1, 20), 1, true), spec.name)
    end
  end)

  it("takes no words after serve and preload-env, and no flag of run's", function()
    for _, command in ipairs({ "serve", "preload-env" }) do
      assert.truthy(select(2, parse(command, "redis-server")):find("too many words", 1, true))
      assert.truthy(select(2, parse(command, "--record", "x")):find("--record is not for lupe " .. command, 1, true))
    end
  end)

  it("finds the daemon's socket where its user may make one", function()
    local uid = require("lupe.ffi").effective_uid()
    local function socket(env) return cli.parse({ "serve" }, function(name) return env[name] end).config.socket end
    local by_default = { "/tmp/lupe-" .. uid .. "/agents", "/run/user/7/lupe/agents", "/run/x/agents" }
    if uid == 0 then by_default = { "/run/lupe/agents", "/run/lupe/agents", "/run/lupe/agents" } end
    assert.equal(by_default[1], socket({}))
    assert.equal(by_default[2], socket({ XDG_RUNTIME_DIR = "/run/user/7" }))
    assert.equal(by_default[3], socket({ XDG_RUNTIME_DIR = "/run/user/7", RUNTIME_DIRECTORY = "/run/x:/run/y" }))
    assert.equal("/a/b", socket({ LUPE_SERVE_SOCKET = "/a/b" }))
  end)

  it("knows help and version in their usual spellings", function()
    assert.equal("version", parse("--version").command)
    assert.equal("help", parse("--help").command)
    assert.equal("help", parse("help").command)
  end)

  it("takes flags and words of the other commands in any order", function()
    for _, words in ipairs({
      { "rules", "replay", "run.lupe", "--at", "1m", "--rules", "mine" },
      { "rules", "replay", "--at=60", "--rules", "mine", "--", "run.lupe" },
    }) do
      local replay = parse(unpack(words))
      assert.equal("rules replay", replay.command)
      assert.same({ "run.lupe" }, replay.words)
      assert.same({ at = 60 }, replay.options)
      assert.equal("mine", replay.config.rules)
    end
    local with = parse("rules", "replay", "run.lupe", "--param.share=0.5", "--param.a.b.share=")
    assert.same({ share = "0.5", ["a.b.share"] = "" }, with.options.params)
    assert.same({ "a.lua", "b.lua" }, parse("rules", "check", "a.lua", "b.lua").words)
    assert.same({}, parse("rules", "list").words)
    assert.equal("json", parse("report", "run.lupe", "--report", "json").config.report)
  end)

  it("answers what is wrong with the other commands with exit code 2", function()
    for message, words in pairs({
      ["unknown command rules rpelay, did you mean rules replay?"] = { "rules", "rpelay", "x" },
      ["unknown command rules nonsense; known: list, check, test, replay"] = { "rules", "nonsense" },
      ["unknown command ruels, did you mean rules?"] = { "ruels" },
      ["unknown command reprot, did you mean report?"] = { "reprot", "run.lupe" },
      ["rules needs one of: list, check, test, replay"] = { "rules" },
      ["a recording is missing. Usage: lupe rules replay RECORDING [flags]"] = { "rules", "replay" },
      ["a recording is missing. Usage: lupe report RECORDING [flags]"] = { "report", "--at", "5" },
      ["a rule's file is missing. Usage: lupe rules test FILE [RECORDING...]"] = { "rules", "test" },
      ["too many words, beginning with b. Usage: lupe report RECORDING [flags]"] = { "report", "a", "b" },
      ["too many words, beginning with x. Usage: lupe rules list [flags]"] = { "rules", "list", "x" },
      ["--listen is not for lupe report"] = { "report", "a", "--listen", "1" },
      ["unknown flag --rul, did you mean --rule?"] = { "rules", "replay", "a", "--rul", "x" },
      ["unknown flag --nonsense; see lupe help rules replay"] = { "rules", "replay", "a", "--nonsense", "x" },
      ["--param.share: expected --param.NAME=VALUE or --param.RULE.NAME=VALUE"] =
        { "rules", "replay", "a", "--param.share", "5" },
      ["unknown flag --param.x; see lupe help report"] = { "report", "a", "--param.x=1" },
      ["--at needs a value: a time in seconds from 0 to 31536000, such as 5, 500ms, 2m or 1h"] =
        { "report", "a", "--at" },
      ['--at: cannot understand "noon", expected a time in seconds from 0 to 31536000, such as 5, 500ms, 2m or 1h'] =
        { "report", "a", "--at", "noon" },
    }) do
      local result, said, code = parse(unpack(words))
      assert.same({ nil, message, 2 }, { result, said, code })
    end
  end)

  it("helps with every command", function()
    local overview = parse("help").text
    for _, command in ipairs(require("lupe.commands")) do
      assert.truthy(overview:find(command.usage, 1, true), command.usage)
      local topic = { "help" }
      for word in command.name:gmatch("%S+") do topic[#topic + 1] = word end
      local help = parse(unpack(topic)).text
      assert.equal("Usage: " .. command.usage, help:match("^[^\n]+"))
      for _, flag in ipairs(command.flags or {}) do assert.truthy(help:find(flag.flag, 1, true), flag.flag) end
      for line in help:gmatch("[^\n]+") do assert.is_true(#line <= 120, line) end
    end
    assert.truthy(parse("rules", "--help").text:find("lupe rules replay RECORDING", 1, true))
    assert.equal(parse("rules", "--help").text, parse("help", "rules").text)
    assert.equal(parse("report", "-h").text, parse("help", "report").text)
    assert.same({ nil, "unknown command nothing; see lupe help", 2 }, { parse("help", "nothing") })
  end)
end)
