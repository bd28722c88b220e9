local fake = require("spec.fake_host")
local support = require("spec.support")
local watcher = require("lupe.watcher")

describe("a watcher", function()
  local base, host, watched, timers, changes

  before_each(function()
    base, watched, timers, changes = support.temp_dir(), {}, {}, 0
    host = fake.new()
    local last = 0
    host.watch = function(directory, name, callback)
      last = last + 1
      watched[last] = { directory = directory, name = name, callback = callback }
      return last
    end
    host.unwatch = function(id)
      watched[id] = nil
      return true
    end
    host.after = function(ms, callback) timers[#timers + 1] = { ms = ms, callback = callback } end
  end)
  after_each(support.cleanup)

  local function places()
    local list = {}
    for _, watch in pairs(watched) do
      list[#list + 1] = watch.directory:sub(#base + 1) .. ":" .. (watch.name or "*")
    end
    table.sort(list)
    return list
  end

  --- As the host does it: a watch is over once it has called back.
  local function fire(directory, name)
    for id, watch in pairs(watched) do
      if watch.directory == directory and watch.name == name then
        watched[id] = nil
        return watch.callback()
      end
    end
    error("nobody watches " .. directory)
  end

  local function new(path)
    local self = watcher.new(host, { path }, function() changes = changes + 1 end)
    self:tick()
    changes = 0
    return self
  end

  local function run_timers()
    local now = timers
    timers = {}
    for _, timer in ipairs(now) do timer.callback() end
    return #now
  end

  it("watches a directory and, in its parent, its name", function()
    os.execute("mkdir " .. base .. "/rules")
    new(base .. "/rules/")
    assert.same({ "/rules:*", ":rules" }, places())
  end)

  it("makes one change of a burst, and is not put off by a stream of events", function()
    new(base)
    fire(base)
    assert.equal(1, #timers)
    assert.is_true(timers[1].ms <= 100)
    assert.is_false(pcall(fire, base)) -- until then the system's events cost nothing
    assert.equal(0, changes)
    run_timers()
    assert.equal(1, changes)
    fire(base)
    assert.equal(1, run_timers())
    assert.equal(2, changes)
  end)

  it("watches again before it tells of a change, so that nothing falls between", function()
    local seen
    local self = watcher.new(host, { base }, function() seen = #places() end)
    self:tick()
    fire(base)
    run_timers()
    assert.equal(2, seen)
  end)

  it("follows a directory that comes, goes, and comes again as another", function()
    local path = base .. "/rules"
    local self = new(path)
    assert.same({ ":rules" }, places())
    os.execute("mkdir " .. path)
    fire(base, "rules")
    run_timers()
    assert.same({ "/rules:*", ":rules" }, places())
    local before = {}
    for id, watch in pairs(watched) do before[watch.directory] = id end
    os.execute(("mkdir %s/new && mv %s %s/old && mv %s/new %s"):format(base, path, base, base, path))
    fire(base, "rules")
    run_timers()
    for id, watch in pairs(watched) do
      if watch.directory == path then assert.not_equal(before[path], id) end
    end
    os.execute("rmdir " .. path)
    host.clock_ms = host.clock_ms + 2000
    self:tick()
    assert.same({ ":rules" }, places())
  end)

  it("follows a link that leads elsewhere from now on", function()
    os.execute(("cd %s && mkdir one two && ln -s one rules"):format(base))
    new(base .. "/rules")
    local first
    for id, watch in pairs(watched) do first = not watch.name and id or first end
    os.execute(("cd %s && ln -s two next && mv -T next rules"):format(base))
    fire(base, "rules")
    run_timers()
    assert.is_nil(watched[first])
    assert.same({ "/rules:*", ":rules" }, places())
  end)

  it("looks every two seconds in any case, and says once that it is not told of changes", function()
    host.watch = function(directory) return nil, directory .. ": no space left on device", "ENOSPC" end
    local self = new(base)
    for _ = 1, 3 do
      host.clock_ms = host.clock_ms + 1000
      self:tick()
    end
    assert.equal(1, changes)
    local said = 0
    for _, line in ipairs(host.logged) do said = said + (line:find(base .. ": no space", 1, true) and 1 or 0) end
    assert.equal(1, said)
    assert.truthy(host.logged[1]:find("looking there every 2 s instead", 1, true))
  end)
end)
