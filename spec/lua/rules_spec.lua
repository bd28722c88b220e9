local async = require("lupe.async")
local fake = require("spec.fake_host")
local live_scripts = require("lupe.live_scripts")
local rules = require("lupe.rules")
local support = require("spec.support")
local try_rule = require("lupe.try_rule")

local function rule_text(id, extra)
  return ("return { api = 1, id = %q, kind = 'leak', title = 'x', check = function() return {} end %s}"):format(id,
    extra or "")
end

describe("the registry of rules", function()
  local folder, mine, logged

  local function registry()
    return rules.new({ { path = folder, shipped = true }, { path = mine } },
      function(level, message) logged[#logged + 1] = level .. ": " .. message end)
  end

  --- Has the directories looked at, and what is new there tried and taken.
  -- @return whether something is in force that was not before
  local function refresh(registered)
    local before = registered.revision
    local try = try_rule.of({ host = fake.new(), registry = registered })
    local files = live_scripts.new(fake.new(), registered, try, {})
    async.spawn(function() return files:reload() end, function(ok, failure) assert(ok, failure) end)
    return registered.revision ~= before
  end

  local function ids(registered)
    local list = {}
    for i, entry in ipairs(registered:in_force()) do list[i] = entry.rule.id end
    return list
  end

  -- A file's time has a resolution; what a spec writes twice in it must differ in length.
  local function write(path, text) return support.write_file(path, text) end

  before_each(function()
    folder, mine, logged = support.temp_dir(), support.temp_dir(), {}
    write(folder .. "/a.lua", rule_text("leak.a"))
    write(folder .. "/b.lua", rule_text("leak.b"))
  end)
  after_each(support.cleanup)

  it("loads what is there", function()
    local r = registry()
    assert.is_true(refresh(r))
    assert.same({ "leak.a", "leak.b" }, ids(r))
    assert.same({}, logged)
  end)

  it("sees no change where there is none", function()
    local r = registry()
    refresh(r)
    assert.is_false(refresh(r))
    assert.equal(1, r.revision)
  end)

  it("names a broken file with its line, and loads the others", function()
    write(folder .. "/broken.lua", "return {\n  id =\n}")
    local r = registry()
    refresh(r)
    assert.same({ "leak.a", "leak.b" }, ids(r))
    assert.equal(1, #logged)
    assert.is_truthy(logged[1]:find("broken.lua:3: ", 1, true))
  end)

  it("lets a user's rule shadow a shipped one by its id", function()
    write(mine .. "/other_name.lua", rule_text("leak.a", ", version = 'mine'"))
    local r = registry()
    refresh(r)
    assert.same({ "leak.a", "leak.b" }, ids(r))
    assert.equal("mine", r.active["leak.a"].rule.version)
    assert.equal(mine .. "/other_name.lua", r.by_path[folder .. "/a.lua"].shadowed_by)
  end)

  it("keeps to the shipped one where the user's is broken", function()
    write(mine .. "/a.lua", rule_text("leak.a", ", titel = 5"))
    local r = registry()
    refresh(r)
    assert.equal(folder .. "/a.lua", r.active["leak.a"].path)
    assert.is_truthy(logged[1]:find("unknown field 'titel', did you mean 'title'?", 1, true))
  end)

  it("refuses a second file with the same id in one directory", function()
    write(folder .. "/c.lua", rule_text("leak.a"))
    local r = registry()
    refresh(r)
    assert.equal(folder .. "/a.lua", r.active["leak.a"].path)
    assert.is_truthy(logged[1]:find("'leak.a' is also the id of " .. folder .. "/a.lua", 1, true))
  end)

  it("refuses a file that others may write", function()
    write(mine .. "/open.lua", rule_text("leak.open"))
    os.execute("chmod o+w " .. mine .. "/open.lua")
    local r = registry()
    refresh(r)
    assert.same({ "leak.a", "leak.b" }, ids(r))
    assert.is_truthy(logged[1]:find("others may write it", 1, true))
  end)

  it("refuses a directory that others may write into", function()
    write(mine .. "/fine.lua", rule_text("leak.fine"))
    os.execute("chmod o+w " .. mine)
    local r = registry()
    refresh(r)
    assert.same({ "leak.a", "leak.b" }, ids(r))
    assert.is_truthy(logged[1]:find("others may write into it", 1, true))
  end)

  it("tells that a directory is missing", function()
    local r = rules.new({ { path = folder, shipped = true }, { path = mine .. "/nowhere" } },
      function(_, message) logged[#logged + 1] = message end)
    refresh(r)
    assert.same({ "leak.a", "leak.b" }, ids(r))
    assert.same({ "rules: " .. mine .. "/nowhere: No such file or directory" }, logged)
    refresh(r)
    assert.equal(1, #logged)
  end)

  it("takes an edit, and keeps the old rule where the edit is broken", function()
    local r = registry()
    refresh(r)
    write(folder .. "/a.lua", rule_text("leak.a", ", version = '2'"))
    assert.is_true(refresh(r))
    assert.equal("2", r.active["leak.a"].rule.version)
    write(folder .. "/a.lua", "return")
    refresh(r)
    assert.equal("2", r.active["leak.a"].rule.version)
    assert.is_truthy(r.by_path[folder .. "/a.lua"].error:find("expected the file to return a table", 1, true))
    write(folder .. "/a.lua", rule_text("leak.a", ", version = 'three'"))
    refresh(r)
    assert.equal("three", r.active["leak.a"].rule.version)
    assert.is_nil(r.by_path[folder .. "/a.lua"].error)
  end)

  it("forgets a file that is gone", function()
    local r = registry()
    refresh(r)
    os.remove(folder .. "/a.lua")
    assert.is_true(refresh(r))
    assert.same({ "leak.b" }, ids(r))
  end)

  it("says where it stops reading a directory of too many files", function()
    for i = 1, 501 do write(("%s/r%03d.lua"):format(mine, i), rule_text("leak.r" .. i)) end
    local r = registry()
    refresh(r)
    refresh(r)
    assert.equal(502, #ids(r))
    assert.equal(1, #logged)
    assert.is_truthy(logged[1]:find("more than 500 files, so r501.lua and what follows it are not loaded", 1, true))
    assert.is_truthy(r.complaints[mine]:find("more than 500 files", 1, true))
  end)

  it("gives a file nothing of the system", function()
    write(mine .. "/reach.lua", "os.exit(1)")
    write(mine .. "/set.lua", "shared = 1")
    local r = registry()
    refresh(r)
    assert.equal(2, #logged)
    assert.is_truthy(logged[1]:find("reach.lua:1: ", 1, true))
    assert.is_truthy(logged[2]:find("set.lua:1: ", 1, true))
  end)

  it("sees an edit of the same length within the same tick of the clock", function()
    local r = registry()
    refresh(r)
    for i = 1, 9 do
      write(folder .. "/a.lua", rule_text("leak.a", (", version = '%d'"):format(i)))
      refresh(r)
      assert.equal(tostring(i), r.active["leak.a"].rule.version)
    end
  end)

  it("leaves alone what editors leave beside a file, and tests of rules", function()
    for _, name in ipairs({ ".#a.lua", "#a.lua#", "a.lua~", ".a.lua.swp", "4913", "a.lua.bak", ".hidden.lua",
      "a.test.lua" }) do
      write(mine .. "/" .. name, "not Lua at all")
    end
    local r = registry()
    refresh(r)
    assert.same({ "leak.a", "leak.b" }, ids(r))
    assert.same({}, logged)
  end)

  it("takes files that are links, and sees where they lead after a change", function()
    os.execute(("cd %s && mkdir v1 v2 && ln -s v1 data && ln -s data/c.lua c.lua"):format(mine))
    write(mine .. "/v1/c.lua", rule_text("leak.c", ", version = '1'"))
    write(mine .. "/v2/c.lua", rule_text("leak.c", ", version = '2'"))
    local r = registry()
    refresh(r)
    assert.equal("1", r.active["leak.c"].rule.version)
    os.execute(("cd %s && ln -s v2 next && mv -T next data"):format(mine))
    refresh(r)
    assert.equal("2", r.active["leak.c"].rule.version)
  end)

  it("gives a shipped rule back when the one that shadowed it is gone", function()
    write(mine .. "/a.lua", rule_text("leak.a"))
    local r = registry()
    refresh(r)
    assert.equal(mine .. "/a.lua", r.active["leak.a"].path)
    os.remove(mine .. "/a.lua")
    refresh(r)
    assert.equal(folder .. "/a.lua", r.active["leak.a"].path)
  end)

  it("forgets that two files had one id once one of them is gone", function()
    write(folder .. "/c.lua", rule_text("leak.a"))
    local r = registry()
    refresh(r)
    assert.is_truthy(r.by_path[folder .. "/c.lua"].clash)
    os.remove(folder .. "/a.lua")
    refresh(r)
    assert.is_nil(r.by_path[folder .. "/c.lua"].clash)
    assert.equal(folder .. "/c.lua", r.active["leak.a"].path)
  end)

  it("takes a file that was renamed for no second one of its id, whichever name comes first", function()
    for _, names in ipairs({ { "a.lua", "c.lua" }, { "c.lua", "a.lua" } }) do
      local r = registry()
      refresh(r)
      local from, to = folder .. "/" .. names[1], folder .. "/" .. names[2]
      assert.equal(from, r.active["leak.a"].path)
      assert(os.rename(from, to))
      for _, entry in ipairs(r:look().changed) do
        r:adopt(entry, { id = "leak.a", kind = "leak", title = "x" }, entry.text, 1000)
      end
      r:settle()
      assert.equal(to, r.active["leak.a"].path)
      r:look()
      r:settle()
      assert.same({ to, 2 }, { r.active["leak.a"].path, #r:in_force() })
      assert.is_nil(r.active["leak.a"].clash)
      assert.same({}, logged)
    end
  end)

  it("falls back to the version before one that was never tried and fails", function()
    local r = registry()
    refresh(r)
    local entry = r.active["leak.a"]
    local text = entry.source
    r:adopt(entry, { id = "leak.a", kind = "leak", title = "new" }, "new text", 1000, true)
    assert.equal("new", entry.rule.title)
    assert.is_true(r:fall_back(entry, "a.lua:1: it failed"))
    assert.same({ "x", text }, { entry.rule.title, entry.source })
    assert.is_truthy(entry.error:find("^a.lua:1: it failed %(kept: the last good version, of "))
    assert.is_false(r:fall_back(entry, "again"))
    r:adopt(entry, { id = "leak.a", kind = "leak", title = "new" }, "new text", 1000, true)
    r:proved(entry)
    assert.is_false(r:fall_back(entry, "later"))
    assert.equal("new", entry.rule.title)
  end)
end)
