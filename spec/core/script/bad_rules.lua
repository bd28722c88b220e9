--- Rules that run away, one of each kind known to defeat a naive limit. `stops`: what is expected to stop it:
-- "hook" (the worker goes on), "killed" (only its end helps), "error" (Lua itself, or the contract). `kind`: as the
-- worker tells it. `line`: where it is reported, nil where Lua is not running any more.
local HEAD = 'return { api = 1, id = "bad.%s", kind = "pattern", title = "bad", check = function(view, params)\n'

local function bad(name, stops, kind, line, body, before)
  return {
    name = name, stops = stops, kind = kind, line = line, id = "bad." .. name, path = "rules/bad_" .. name .. ".lua",
    source = (before or "") .. HEAD:format(name) .. "do " .. body .. " end\nreturn {}\nend }\n",
  }
end

return {
  bad("endless-loop", "hook", "deadline", 2, "while true do end"),
  bad("huge-string", "error", "error", 2, 'return { { summary = string.rep("x", 10 * 2 ^ 30) } }'),
  bad("huge-string-method", "error", "error", 2, 'return { { summary = ("x"):rep(10 * 2 ^ 30) } }'),
  bad("doubled-string", "hook", "memory", 2, 'local s = "x" while true do s = s .. s end'),
  bad("deep-recursion", "error", "error", 2, "local function f(n) return 1 + f(n + 1) end f(1)"),
  bad("error-in-error", "error", "error", nil,
    'error(setmetatable({}, { __tostring = function() error("again") end, __index = function() error("more") end }))'),
  bad("yield", "error", "error", nil, "coroutine.yield(1)"),
  bad("poisoned-metatable", "hook", "deadline", 2,
    "return { setmetatable({}, { __index = function() while true do end end }) }"),
  bad("poisoned-string-metatable", "error", "error", 2, 'getmetatable("").__index = function() while true do end end'),
  bad("pathological-find", "killed", "deadline", nil, 'return ("a"):rep(30000):find((".-"):rep(8) .. "b")'),
  bad("xpcall-handler", "hook", "deadline", 2,
    'xpcall(function() error("x") end, function() while true do end end)'),
  bad("xpcall-handler-at-deadline", "hook", "deadline", 2,
    "xpcall(function() while true do end end, function() while true do end end)"),
  bad("endless-pcall", "hook", "deadline", 2, "while true do pcall(function() while true do end end) end"),
  bad("pcall-recursion", "hook", "deadline", 2, "local function f() while true do pcall(f) end end f()"),
  bad("coroutines", "hook", "deadline", 2,
    "while true do coroutine.resume(coroutine.create(function() while true do end end)) end"),
  bad("table-growth", "hook", "memory", 2, "local t = {} for i = 1, 1e9 do t[i] = i end"),
  bad("table-of-tables", "hook", "memory", 2, "local t = {} for i = 1, 1e9 do t[i] = { i, {} } end"),
  bad("hoarding-closures", "hook", "memory", 2,
    "local t for _ = 1, 1e9 do local u = t t = function() return u end end"),
  bad("sort-without-end", "hook", "deadline", 2,
    "local t = {} for i = 1, 1000 do t[i] = i end while true do table.sort(t, function(a, b) return a > b end) end"),
  bad("gsub-with-loop", "hook", "deadline", 2, '("x"):gsub("x", function() while true do end end)'),
  bad("top-level-global", "error", "error", 1, "", "leaked = 1 "),
  bad("table-concat", "error", "memory", nil,
    'local s, t = ("x"):rep(2 ^ 20), {} for i = 1, 1e5 do t[i] = s end return { { summary = table.concat(t) } }'),
  bad("gsub-bomb", "error", "memory", nil, 'return { { summary = ("x"):rep(1e5):gsub("x", ("y"):rep(1e5)) } }'),
  bad("format-bomb", "hook", "memory", 2,
    'local s = ("x"):rep(2 ^ 20) while true do s = string.format("%s%s", s, s) end'),
  bad("sorts-without-end", "hook", "deadline", 2,
    "local t, x = {}, 1 for i = 1, 1e5 do x = x * 16807 % 2147483647 t[i] = x end while true do table.sort(t) end"),
  bad("sort-inconsistent", "error", "error", 2,
    "local t = {} for i = 1, 1e4 do t[i] = i end table.sort(t, function() return true end)"),
  bad("sort-with-looping-comparator", "hook", "deadline", 2,
    "table.sort({ 3, 2, 1 }, function() while true do end end)"),
  bad("wrap-loop", "hook", "deadline", 2,
    "local f = coroutine.wrap(function() while true do coroutine.yield() end end) while true do f() end"),
  bad("wrap-in-wrap", "hook", "deadline", 2,
    "local function f() while true do pcall(coroutine.wrap(f)) end end f()"),
  bad("tostring-loop", "hook", "deadline", 2,
    "tostring(setmetatable({}, { __tostring = function() while true do end end }))"),
  bad("error-object-that-loops", "error", "error", 2,
    "error(setmetatable({}, { __tostring = function() while true do end end }))"),
  bad("handler-that-loops-in-tostring", "hook", "deadline", 2,
    "local loops = { __tostring = function() while true do end end } xpcall(error, tostring, setmetatable({}, loops))"),
  bad("finding-that-loops", "hook", "deadline", 2,
    'return { setmetatable({ summary = "x" }, { __index = function() while true do end end }) }'),
  bad("site-that-loops", "hook", "deadline", 2,
    'return { { summary = "x", site = setmetatable({}, { __index = function() while true do end end }) } }'),
  bad("site-that-changes", "error", "error", nil, [[local asked = 0
    return { { summary = "x", site = setmetatable({}, { __index = function(_, name)
      asked = asked + 1
      return name == "name" and (asked < 2 and "x" or {}) or nil
    end }) } }]]),
  bad("cyclic-evidence", "error", "error", nil,
    'local e = {} e.e = e return { { summary = "x", evidence = e } }'),
  bad("cyclic-site", "error", "error", nil,
    'local s = { name = "x" } s.line = s return { { summary = "x", site = s } }'),
  bad("enormous-evidence", "error", "error", nil,
    'local e = {} for i = 1, 1e5 do e["k" .. i] = i end return { { summary = "x", evidence = e } }'),
  bad("text-without-end", "error", "error", nil, [[local s, lines, found = ("x"):rep(4096), {}, {}
    for i = 1, 64 do lines[i] = s end
    for i = 1, 1000 do found[i] = { summary = s, advice = lines, reasons = lines } end
    return found]]),
  bad("thousands-of-findings", "error", "error", nil,
    'local f = {} for i = 1, 5000 do f[i] = { summary = "x" } end return f'),
  bad("not-a-number", "error", "error", nil, 'return { { summary = "x", evidence = { slope = 0 / 0 } } }'),
  bad("infinite-score", "error", "error", nil, 'return { { summary = "x", score = 1 / 0 } }'),
  bad("string-dump", "error", "error", 2, "return string.dump(function() end)"),
  bad("bytecode", "error", "error", 2, 'return loadstring("\\27LJ")()'),
  bad("newproxy", "error", "error", 2, "newproxy(true)"),
  bad("own-environment", "error", "error", 2, "setfenv(1, {})"),
  bad("collector", "hook", "memory", 2,
    "local t = {} for i = 1, 1e9 do t[i] = setmetatable({}, { __gc = function() while true do end end }) end"),
  bad("unpacked", "error", "error", 2, "local t = {} for i = 1, 1e5 do t[i] = i end return { unpack(t) }"),
  bad("writes-the-view", "error", "error", 2, "view.findings = {}"),
  bad("writes-a-site", "error", "error", 2, 'view.heap:sites {}().name = "x"'),
  bad("top-level-loop", "hook", "instructions", 1, "", "while true do end "),
  bad("top-level-pattern", "killed", "deadline", nil, "", 'local _ = ("a"):rep(30000):find((".-"):rep(8) .. "b") '),
}
