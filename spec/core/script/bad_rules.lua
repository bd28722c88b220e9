--- Rules that run away, one of each kind known to defeat a naive limit. `stops`: what is expected to stop it:
-- "hook" (the worker goes on), "killed" (only its end helps), "error" (Lua itself), "ok" (harmless after all).
-- `line`: where it is reported, nil where Lua is not running any more.
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
}
