require("spec.support")
local sandbox = require("lupe.sandbox")

local function never() return nil end

--- Runs text in a fresh sandbox: what pcall gives.
local function run(source, tripped)
  local chunk = assert(loadstring(source, "=rule.lua"))
  return pcall(setfenv(chunk, sandbox.new(tripped or never)))
end

local function refused(source)
  local ok, message = run(source)
  assert.is_false(ok, source)
  return message
end

describe("the sandbox of rules", function()
  it("computes", function()
    local _, a, b, c, d = run("return ('%d'):format(7), math.floor(2.5), bit.band(6, 3), table.concat({ 1, 2 }, ',')")
    assert.are.same({ "7", 2, 2, "1,2" }, { a, b, c, d })
  end)

  it("writes figures in words as the rest of lupe does", function()
    assert.are.same({ true, "1.50 MiB" }, { run("return words.bytes(1.5 * 2 ^ 20)") })
    assert.are.equal("rule.lua:1: words is read-only (field 'bytes')", refused("words.bytes = nil"))
  end)

  it("has nothing of the system, no clock and no chance", function()
    for _, name in ipairs({
      "_G", "collectgarbage", "debug", "dofile", "ffi", "getfenv", "io", "jit", "load", "loadfile", "loadstring",
      "module", "newproxy", "os", "package", "print", "rawset", "require", "setfenv",
    }) do
      assert.are.equal("rule.lua:1: no global '" .. name .. "'", refused("return " .. name):match("^[^']*'[^']*'"))
    end
    for _, field in ipairs({ "math.random", "math.randomseed", "string.dump" }) do
      assert.are.same({ true, nil }, { run("return " .. field) })
    end
  end)

  it("says why something is missing", function()
    assert.are.equal("rule.lua:2: no global 'os': a rule has no clock and no processes: time is view.time_ms",
      refused("local x = 1\nreturn os.time()"))
  end)

  it("makes setting a global an error that names it", function()
    assert.are.equal("rule.lua:3: sets the global 'count': write 'local count'", refused("\n\ncount = 1"))
    assert.are.equal("rule.lua:1: sets the global 'string': write 'local string'", refused("string = nil"))
    assert.truthy(refused("function helper() end"):find("sets the global 'helper'", 1, true))
  end)

  it("keeps its libraries as they are", function()
    assert.are.equal("rule.lua:1: string is read-only (field 'format')", refused("string.format = nil"))
    assert.truthy(refused("setmetatable(math, {})"):find("protected metatable", 1, true))
    assert.truthy(refused("setmetatable(table, nil)"):find("protected metatable", 1, true))
    run("table.insert(math, 1)")
    assert.are.same({ true, nil }, { run("return math[1]") })
    assert.are.equal("function", type(string.format))
  end)

  it("catches errors like Lua does", function()
    assert.are.same({ true, false, "rule.lua:1: x" }, { run("return pcall(error, 'rule.lua:1: x', 0)") })
    assert.are.same({ true, true, 1, 2 }, { run("return pcall(function(...) return ... end, 1, 2)") })
    assert.are.same({ true, false, "handled x" },
      { run("return xpcall(function() error('x', 0) end, function(e) return 'handled ' .. e end)") })
    assert.are.same({ true, true, 5 }, { run("return xpcall(function(n) return n end, error, 5)") })
    assert.are.same({ true, true, 1, false }, {
      run("local c = coroutine.create(function() coroutine.yield(1) error('y') end)"
        .. " local ok, v = coroutine.resume(c) return ok, v, (coroutine.resume(c))"),
    })
    assert.are.same({ true, 1, 2 }, {
      run("local f = coroutine.wrap(function() coroutine.yield(1) coroutine.yield(2) end) return f(), f()"),
    })
    assert.are.equal("z", refused("coroutine.wrap(function() error('z', 0) end)()"))
  end)

  it("lets nothing that catches errors swallow the guard's", function()
    for _, source in ipairs({
      "return pcall(error, 'x')",
      "return xpcall(error, function() return 1 end)",
      "return coroutine.resume(coroutine.create(function() error('x') end))",
      "return coroutine.wrap(function() error('x') end)()",
      "pcall(function() pcall(error) end)",
    }) do
      local ok, message = run(source, function() return "rule.lua:9: not done" end)
      assert.are.same({ false, "rule.lua:9: not done" }, { ok, message }, source)
    end
  end)

  it("refuses a text that could never fit, with the line", function()
    assert.are.equal("rule.lua:2: string.rep: a text of 10737418240 bytes is too long",
      refused("\nlocal s = string.rep('x', 10 * 2 ^ 30)\nreturn s"))
    assert.are.same({ true, "ab,ab" }, { run("return string.rep('ab', 2, ',')") })
    assert.are.same({ true, "" }, { run("return string.rep('', 1e15)") })
  end)

  it("gives nothing away, in the environment and in a view, by which one could get at more", function()
    local allowed = { string = true, number = true, boolean = true, table = true, ["function"] = true }
    local seen = {}
    for _, library in ipairs({ io, os, debug, package, jit, require("ffi") }) do
      for name, value in pairs(library) do seen[value] = type(value) == "function" and name or nil end
    end
    for _, name in ipairs({
      "load", "loadstring", "loadfile", "dofile", "require", "setfenv", "getfenv", "rawset", "newproxy", "module",
      "collectgarbage", "print",
    }) do
      seen[_G[name]] = name
    end
    local visited = {}
    local function walk(path, value)
      if value == nil then return end
      assert.is_true(allowed[type(value)] or false, path .. " is a " .. type(value))
      assert.is_nil(seen[value], path)
      if type(value) ~= "table" or visited[value] then return end
      visited[value] = true
      assert.is_false(value == _G or value == string or value == package.loaded, path)
      -- What __index hides is walked by the names that are known.
      for key, inner in pairs(value) do walk(path .. "." .. tostring(key), inner) end
      for _, field in ipairs({
        "assert", "bit", "coroutine", "math", "string", "table", "words", "getmetatable", "setmetatable", "pcall",
        "allocator", "classes", "config", "findings", "heap", "keepalive", "memory", "modules", "profile", "targets",
        "ticks", "latest", "rows", "sites", "trend", "history", "stacks", "frames", "stack", "functions", "threads",
        "cpu", "wall", "bound", "create", "wrap", "rep", "format", "concat", "unpack", "bytes", "columns", "shared",
        "group", "groups", "list", "base", "spans", "changes", "state", "kept", "sums", "of", "index",
      }) do
        local ok, inner = pcall(function() return value[field] end)
        if ok then walk(path .. "." .. field, inner) end
      end
      assert.is_true(getmetatable(value) == nil or getmetatable(value) == "read-only", path .. " shows its metatable")
    end
    local view = require("lupe.view").from_table({
      sites = { { name = "leak", history = { 1, 2, 3 }, stack = { "leak", "main" } } },
      profile = { samples = { { stack = { "work", "main" } } } }, memory = { { time_ms = 0, rss_bytes = 1 } },
    })
    walk("environment", sandbox.new(never))
    walk("site", view.heap:sites()())
    walk("function", view.profile:functions()())
    for _, field in ipairs({
      "heap", "memory", "profile", "targets", "modules", "classes", "allocator", "findings", "threads", "spans",
      "history",
    }) do
      walk("view." .. field, view[field])
    end
  end)

  it("has views in which nothing can be written", function()
    local view = require("lupe.view").from_table({
      sites = { { name = "leak", history = { 1, 2, 3 } } }, profile = { samples = { { stack = { "work" } } } },
    })
    for _, object in ipairs({ view, view.heap, view.memory, view.profile, view.heap:sites()() }) do
      local ok, message = pcall(function() object.name = "x" end)
      assert.is_false(ok)
      assert.truthy(message:find("read-only (field 'name')", 1, true), message)
      assert.is_false((pcall(setmetatable, object, {})))
    end
  end)

  it("requires the modules that it was given, once in each, and no others", function()
    local modules = {
      counter = "local n = 0 return { up = function() n = n + 1 return n end }",
      clock = "return os.time()",
    }
    local env = sandbox.new(never, nil, modules)
    local function in_env(source) return pcall(setfenv(assert(loadstring(source, "=rule.lua")), env)) end
    assert.are.same({ true, 1 }, { in_env("return require('counter').up()") })
    assert.are.same({ true, 2 }, { in_env("return require('counter').up()") })
    local _, message = in_env("require('os')")
    assert.are.equal("rule.lua:1: require: no module 'os' was added by the program (lupe_add_module)", message)
    _, message = in_env("require('clock')")
    assert.truthy(message:find("clock.lua:1: no global 'os'", 1, true), message)
    assert.truthy(refused("require('counter')"):find("no global 'require'", 1, true))
  end)

  it("has no module that requires itself", function()
    local env = sandbox.new(never, nil, { a = "return require('b')", b = "return require('a')" })
    local _, message = pcall(setfenv(assert(loadstring("require('a')", "=rule.lua")), env))
    assert.truthy(message:find("module 'a' requires itself", 1, true), message)
  end)
end)
