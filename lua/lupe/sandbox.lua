--- The environment that a rule's file runs in: pure computation, nothing of the system, no clock, no chance.
-- It guards against accidents. What a rule does with too much time or memory is the business of whoever calls
-- it (core/script/guard.h); here it is made sure that no `pcall` of the rule's swallows that.
-- @module lupe.sandbox

local format = require("lupe.format")

local sandbox = {}

local BASE = {
  "assert", "error", "getmetatable", "ipairs", "next", "pairs", "rawequal", "rawget", "select", "setmetatable",
  "tonumber", "tostring", "type", "unpack",
}

local LIBRARIES = {
  bit = { "arshift", "band", "bnot", "bor", "bswap", "bxor", "lshift", "rol", "ror", "rshift", "tobit", "tohex" },
  coroutine = { "create", "isyieldable", "running", "status", "yield" },
  math = {
    "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor", "fmod", "frexp", "huge",
    "ldexp", "log", "log10", "max", "min", "modf", "pi", "pow", "rad", "sin", "sinh", "sqrt", "tan", "tanh",
  },
  string = {
    "byte", "char", "find", "format", "gmatch", "gsub", "len", "lower", "match", "reverse", "sub", "upper",
  },
  table = { "concat", "insert", "maxn", "remove", "sort" },
}

local WHY_NOT = {
  _G = "there is no table of globals", collectgarbage = "memory is lupe's business",
  debug = "a rule can't look behind Lua", dofile = "a rule is one file", ffi = "a rule can't reach the system",
  getfenv = "a rule can't change environments", io = "a rule has no files", load = "a rule can't make code",
  loadfile = "a rule is one file", loadstring = "a rule can't make code", module = "a rule is one file",
  os = "a rule has no clock and no processes: time is view.time_ms", package = "a rule is one file",
  print = "what a rule has to say is a finding", rawset = "what is read-only stays so",
  require = "a rule is one file, unless a program adds modules", setfenv = "a rule can't change environments",
}

local IN_THE_MAKING = {}

local LONGEST_STRING = 64 * 2 ^ 20

--- Compiles the text of a file, without running it.
-- @string label what the file is called in messages
-- @tparam table env its globals
-- @return the chunk, with its JIT off (a compiled loop never meets the hook that stops it);
--   or nil and "FILE:LINE: message"
function sandbox.compile(label, source, env)
  if source:byte(1) == 27 then return nil, label .. ": bytecode is not read, only Lua text" end
  local chunk, message = loadstring(source, "=" .. label)
  if not chunk then return nil, message end
  setfenv(chunk, env)
  jit.off(chunk, true)
  return chunk
end

local function pick(from, names)
  local picked = {}
  for _, name in ipairs(names) do picked[name] = from[name] end
  return picked
end

--- Of one call of pcall or the like: `tripped` is raised again, whatever the rule would do with it.
local function passed_on(tripped, ok, ...)
  local reason = not ok and tripped()
  if reason then error(reason, 0) end
  return ok, ...
end

--- string.rep, with an error that has a line where the result could never fit.
local function bounded_rep(text, count, separator)
  if type(text) == "string" and type(count) == "number" then
    local bytes = (#text + #(separator or "")) * count
    if bytes > LONGEST_STRING then error(("string.rep: a text of %.0f bytes is too long"):format(bytes), 2) end
  end
  return string.rep(text, count, separator)
end

--- Calls that catch errors. The handler of xpcall runs after the call has been left (natively it would run inside
-- the hook, where nothing stops it); a rule has no use for the stack there anyway.
local function catchers(tripped)
  local function protected(f, ...) return passed_on(tripped, pcall(f, ...)) end
  local function handled(handler, ok, ...)
    if ok then return ok, ... end
    return false, select(2, protected(handler, (...)))
  end
  local function with_handler(f, handler, ...) return handled(handler, protected(f, ...)) end
  local function resume(...) return passed_on(tripped, coroutine.resume(...)) end
  local function wrap(body)
    local thread = coroutine.create(body)
    local function values(ok, ...)
      if not ok then error((...), 0) end
      return ...
    end
    return function(...) return values(resume(thread, ...)) end
  end
  for _, f in ipairs({ passed_on, protected, handled, with_handler, resume, wrap, bounded_rep }) do jit.off(f, true) end
  return protected, with_handler, resume, wrap
end

local function read_only(name, content)
  return setmetatable({}, {
    __index = content,
    __newindex = function(_, field) error(("%s is read-only (field '%s')"):format(name, tostring(field)), 2) end,
    __metatable = "read-only",
  })
end

--- `require` for one environment: each module runs in it, once.
local function requirer(modules, env)
  local loaded = {}
  return function(name)
    local text = type(name) == "string" and modules[name]
    if not text then
      error(("require: no module '%s' was added by the program (lupe_add_module)"):format(tostring(name)), 2)
    end
    local known = loaded[name]
    if known == IN_THE_MAKING then error(("require: module '%s' requires itself"):format(name), 2) end
    if known ~= nil then return known end
    loaded[name] = IN_THE_MAKING
    local chunk, message = sandbox.compile(name .. ".lua", text, env)
    if not chunk then error(message, 0) end
    local value = chunk()
    if value == nil then value = true end
    loaded[name] = value
    return value
  end
end

--- A fresh environment: nothing that one rule does to its own is seen by another.
-- @tparam function tripped gives the message with which the running rule must stop, else nil
-- @tparam[opt] table instead library -> name -> function in place of the usual one, or of a further library
-- @tparam[opt] table modules name -> text of those that may be required
function sandbox.new(tripped, instead, modules)
  local known, env = pick(_G, BASE), {}
  if modules and next(modules) then known.require = requirer(modules, env) end
  local libraries = {}
  for name, functions in pairs(LIBRARIES) do libraries[name] = pick(_G[name], functions) end
  libraries.string.rep = bounded_rep
  libraries.table.unpack = unpack
  libraries.words = format -- figures as all of lupe writes them
  for name, functions in pairs(instead or {}) do
    libraries[name] = libraries[name] or {}
    for field, f in pairs(functions) do libraries[name][field] = f end
  end
  known.pcall, known.xpcall, libraries.coroutine.resume, libraries.coroutine.wrap = catchers(tripped)
  for name, functions in pairs(libraries) do known[name] = read_only(name, functions) end
  return setmetatable(env, {
    __index = function(_, name)
      local value = known[name]
      if value == nil then
        local why = WHY_NOT[name]
        error(("no global '%s'%s"):format(tostring(name), why and (": " .. why) or ""), 2)
      end
      return value
    end,
    __newindex = function(_, name)
      error(("sets the global '%s': write 'local %s'"):format(tostring(name), tostring(name)), 2)
    end,
    __metatable = "read-only",
  })
end

--- Gives the methods of strings (`("x"):rep(3)`) to rules in the same bounds, for the whole state. Once, in the worker.
function sandbox.guard_strings()
  local meta = getmetatable("")
  meta.__index, meta.__metatable = pick(string, LIBRARIES.string), "read-only"
  meta.__index.rep = bounded_rep
end

return sandbox
