local support = require("spec.support")
local rule_loading = require("lupe.rule_loading")

local RULE = 'return { api = 1, id = "leak.mine", kind = "leak", title = "x", check = function() return {} end }'
local MUCH = "takes too long to load: only its check may work"

local function load(source) return rule_loading.load("rules/mine.lua", source) end

describe("a rule's file, on the loop,", function()
  it("may make tables out of texts", function()
    local loaded, message = load("local t = {} for word in ('a b c'):gmatch('%a+') do t[word] = word:rep(3) end\n"
      .. "assert(table.concat({ t.a, t.b }, ',') == 'aaa,bbb' and ('a-b'):gsub('-', '+') == 'a+b')\n"
      .. "assert(t.a:find('^a+$') == 1 and t.c:match('c') == 'c' and ('%d'):format(7) == '7')\n" .. RULE)
    assert.is_nil(message)
    assert.equal("leak.mine", loaded.id)
  end)

  for name, case in pairs({
    ["loops without end"] = { "\nwhile true do end", ":2: " .. MUCH },
    ["loops in a caught error"] = { "while true do pcall(function() while true do end end) end", ":1: " .. MUCH },
    ["loops in a handler"] = { "xpcall(error, function() while true do end end)", ":1: " .. MUCH },
    ["calls itself, caught"] = { "local function f() while true do pcall(f) end end\nf()", ":1: " .. MUCH },
    ["loops in a coroutine"] = { "coroutine.wrap(function()\nwhile true do end end)()", ":2: " .. MUCH },
    ["doubles a text"] = { "local s = 'x'\nwhile true do s = s .. s end", ":2: " .. MUCH },
    ["fills a table"] = { "local t = {} for i = 1, 1e9 do t[i] = {} end", ":1: " .. MUCH },
    ["copies large texts"] = { "local s = ('x'):rep(60000) while true do local _ = s:upper() end", ":1: " .. MUCH },
    ["searches with a pattern that backtracks"] = {
      "\nlocal _ = ('a'):rep(30000):find(('.-'):rep(8) .. 'b')",
      ":2: string.find takes too much while the file is loaded",
    },
    ["does so by the library's name"] = {
      "string.match(string.rep('a', 30000), '.-.-b')", ":1: string.match takes too much while the file is loaded",
    },
    ["replaces by a long text"] = {
      "local _ = ('x'):rep(60000):gsub('x', ('y'):rep(60000))",
      ":1: string.gsub takes too much while the file is loaded",
    },
    ["repeats a text"] = { "local s = ('x'):rep(2 ^ 40)", ":1: string.rep takes too much while the file is loaded" },
    ["joins a long list"] = {
      "local t, s = {}, ('x'):rep(60000) for i = 1, 1000 do t[i] = s end\nlocal _ = table.concat(t)",
      ":2: table.concat takes too much while the file is loaded",
    },
    ["joins with a long separator"] = {
      "local t = {} for i = 1, 1000 do t[i] = 'x' end local _ = table.concat(t, ('x'):rep(60000))",
      ":1: table.concat takes too much while the file is loaded",
    },
    ["returns a table that loops when it is asked"] = {
      "return setmetatable({}, { __index = function() while true do end end })",
      ": expected the file to return a plain table, got one with a metatable",
    },
    ["has params that loop when they are asked"] = {
      (RULE:gsub("title", "params = setmetatable({}, { __index = function() while true do end end }), title")),
      ": field 'params': expected a plain table, got one with a metatable",
    },
    ["has a key that loops when it is shown"] = {
      "local k = setmetatable({}, { __tostring = function() while true do end end }) "
        .. RULE:gsub("api", "[k] = 1, api"),
      ": unknown field '[a table]'; known: api, id, kind, title, version, needs, params, check",
    },
    ["raises what loops when it is shown"] = {
      "error(setmetatable({}, { __tostring = function() while true do end end }))",
      ": (error object is a table value)",
    },
    ["yields"] = { "coroutine.yield()", ": yields while it is loaded" },
  }) do
    it("that " .. name .. " is stopped soon, and reported", function()
      local began = support.now()
      local loaded, message = load(case[1])
      assert.is_nil(loaded)
      assert.equal("rules/mine.lua" .. case[2], message)
      assert.is_true(support.now() - began < 5)
    end)
  end

  it("changes nothing for the code around it", function()
    load("while true do end")
    assert.is_nil((debug.gethook()))
    assert.equal(100000, #("x"):rep(100000))
    assert.equal(rawget(string, "find"), ("x").find)
  end)

  it("cannot change what was read of it afterwards", function()
    local loaded = load("local t = " .. RULE:gsub("^return", "") .. "\nt.check = function() t.id = 'evil' end return t")
    loaded.check()
    assert.equal("leak.mine", loaded.id)
  end)
end)
