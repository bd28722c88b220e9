local async = require("lupe.async")
local fake = require("spec.fake_host")
local live_scripts = require("lupe.live_scripts")
local rules = require("lupe.rules")
local support = require("spec.support")

describe("scripts that are live", function()
  local folder, host, registry, live, verdicts, tried, waiting

  local function write(name, text) return support.write_file(folder .. "/" .. name, text) end

  --- Tries end when the spec says so.
  local function finish_tries()
    while waiting[1] do table.remove(waiting, 1)() end
  end

  before_each(function()
    folder, verdicts, tried, waiting = support.temp_dir(), {}, {}, {}
    host = fake.new()
    registry = rules.new({ { path = folder } }, host.log)
    local function try(entry)
      tried[#tried + 1] = entry.path:match("[^/]*$") .. " " .. entry.text
      async.await(function(done) waiting[#waiting + 1] = done end)
      local verdict = verdicts[entry.text]
      if verdict then return unpack(verdict) end
      return { loaded = { id = "x." .. entry.text, kind = "pattern", title = "t" }, findings = 2 }
    end
    live = live_scripts.new(host, registry, try, { folder })
    live.ready = true
  end)
  after_each(support.cleanup)

  local function ids()
    local list = {}
    for i, entry in ipairs(registry:in_force()) do list[i] = entry.rule.id end
    return list
  end

  local function pass()
    live:stir()
    finish_tries()
  end

  local function reload()
    local results
    async.spawn(function() return live:reload() end, function(ok, list) results = ok and list end)
    finish_tries()
    local told = {}
    for i, result in ipairs(results) do told[i] = result.path:match("[^/]*$") .. " " .. result.result end
    return told, results
  end

  it("are in force once they were tried, not before", function()
    write("a.lua", "one")
    live:stir()
    assert.same({ "a.lua one" }, tried)
    assert.same({}, ids())
    finish_tries()
    assert.same({ "x.one" }, ids())
    pass()
    assert.equal(1, #tried)
  end)

  it("keep the last good version where the new one fails, and say so", function()
    write("a.lua", "one")
    pass()
    verdicts.two = { nil, folder .. "/a.lua:2: oops", "error" }
    write("a.lua", "two")
    pass()
    assert.same({ "x.one" }, ids())
    local entry = registry:entries()[1]
    assert.truthy(entry.error:find("a.lua:2: oops (kept: the last good version, of 20", 1, true), entry.error)
    pass()
    assert.equal(2, #tried) -- not again as long as the file is as it is
    write("a.lua", "three")
    pass()
    assert.same({ "x.three" }, ids())
    assert.is_nil(registry:entries()[1].error)
  end)

  it("are tried again where it was not their fault", function()
    verdicts.one = { nil, folder .. "/a.lua: the worker cannot be started", "unavailable" }
    write("a.lua", "one")
    pass()
    assert.same({}, ids())
    verdicts.one = nil
    pass()
    assert.same({ "x.one" }, ids())
    assert.equal(1, #host.logged)
  end)

  it("are tried three times where they had to be stopped, as a busy machine is slow", function()
    verdicts.one = { nil, folder .. "/a.lua:2: not done within 500 ms", "deadline" }
    write("a.lua", "one")
    for _ = 1, 5 do pass() end
    assert.equal(3, #tried)
    write("a.lua", "two")
    verdicts.two = verdicts.one
    pass()
    verdicts.two = nil
    pass()
    assert.same({ "x.two" }, ids())
  end)

  it("have one more pass, not several, for what changed during one", function()
    write("a.lua", "one")
    live:stir()
    for i = 1, 20 do
      write("a.lua", "edit " .. i)
      live:stir()
    end
    finish_tries()
    assert.same({ "a.lua one", "a.lua edit 20" }, tried)
    assert.same({ "x.edit 20" }, ids())
  end)

  it("survive a moment without their file, as when an editor renames", function()
    write("a.lua", "one")
    pass()
    os.rename(folder .. "/a.lua", folder .. "/a.lua~")
    host.after = function() end
    pass()
    assert.same({ "x.one" }, ids())
    write("a.lua", "two")
    pass()
    assert.same({ "x.two" }, ids())
    os.remove(folder .. "/a.lua")
    pass()
    pass()
    assert.same({}, ids())
  end)

  it("look a second time by themselves where a file was missing", function()
    write("a.lua", "one")
    pass()
    os.remove(folder .. "/a.lua")
    host.after = function(_, callback) waiting[#waiting + 1] = callback end
    pass()
    assert.same({}, ids())
  end)

  it("tell what became of each file when asked to reload", function()
    write("a.lua", "one")
    write("b.lua", "bad")
    verdicts.bad = { nil, folder .. "/b.lua:1: bad", "error" }
    local told, results = reload()
    assert.same({ "a.lua loaded", "b.lua error" }, told)
    assert.equal(2, results[1].findings)
    assert.equal(folder .. "/b.lua:1: bad", results[2].error)
    write("a.lua", "bad")
    os.remove(folder .. "/b.lua")
    assert.same({ "a.lua kept", "b.lua gone" }, (reload()))
    assert.same({ "a.lua unchanged" }, (reload()))
  end)

  it("say what went wrong in trying them, and go on", function()
    live.try = function() error("the queue is full", 0) end
    write("a.lua", "one")
    pass()
    assert.truthy(registry:entries()[1].error:find("a.lua: the queue is full", 1, true))
  end)
end)
