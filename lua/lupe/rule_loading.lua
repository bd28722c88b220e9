--- Runs a rule's file where it is, to know what it declares: its own code only makes a table, its check is not run.
-- This happens on the loop, which answers HTTP too. So what the code may take is small: instructions, memory, time, and
-- in what one call of a library may do, for no hook stops a call once it runs. All of it has an error with the file's
-- line. The check, in the worker, is not bound by any of this.
-- @module lupe.rule_loading

local rule = require("lupe.rule")
local sandbox = require("lupe.sandbox")

local gsub = string.gsub -- not as a method: these are replaced below

local LONGEST_TEXT = 65536 -- that a library makes
local MEMORY_KIB = 8192
local CPU_SECONDS = 0.1
local MOST_STEPS = 2e7 -- of one search for a pattern, in the worst case
local LOOK_EVERY, CLOCK_EVERY = 4, 64 -- instructions

local function too_much(name, level) error(name .. " takes too much while the file is loaded", level + 1) end

--- Each repeat of a pattern may be tried at every place, for every way of the one before it.
local function bounded_search(name)
  local search = string[name]
  return function(text, pattern, ...)
    if type(text) == "string" and type(pattern) == "string" then
      local _, repeats = gsub(pattern, "[*+?-]", "")
      local _, others = gsub(pattern, "%%[b%d]", "")
      if (#text) ^ (1 + repeats + others) > MOST_STEPS then too_much("string." .. name, 2) end
      local replacement = ...
      if type(replacement) == "string" and #replacement * #text > LONGEST_TEXT then too_much("string." .. name, 2) end
    end
    return search(text, pattern, ...)
  end
end

local function bounded_rep(text, count, separator)
  if type(text) == "string" and type(count) == "number" and (#text + #(separator or "")) * count > LONGEST_TEXT then
    too_much("string.rep", 2)
  end
  return string.rep(text, count, separator)
end

local function bounded_concat(list, ...)
  if type(list) == "table" then
    local separator, bytes = ..., 0
    for _, text in ipairs(list) do
      bytes = bytes + (type(text) == "string" and #text or 0) + (type(separator) == "string" and #separator or 0)
    end
    if bytes > LONGEST_TEXT then too_much("table.concat", 2) end
  end
  return table.concat(list, ...)
end

local BOUNDED = {
  string = {
    rep = bounded_rep, find = bounded_search("find"), match = bounded_search("match"),
    gmatch = bounded_search("gmatch"), gsub = bounded_search("gsub"),
  },
  table = { concat = bounded_concat },
}

--- What is left of the methods of strings meanwhile: `("x"):rep(n)` is string.rep as well.
local methods = setmetatable(BOUNDED.string, { __index = string })

--- "FILE:LINE: " of the file's innermost line, seen from a hook.
local function place_in(label)
  local level = 3
  while true do
    local info = debug.getinfo(level, "Sl")
    if not info then return label .. ": " end
    if info.source == "=" .. label then return ("%s:%d: "):format(label, info.currentline) end
    level = level + 1
  end
end

--- Calls `body` in a coroutine of its own, since the hook is one for all of them: what runs in the caller's is left
-- alone. Past a limit every further instruction raises again, so that catching the error does not help.
-- @return true and the results; or false and a message
local function limited(tripped, label, body)
  local caller, executed = coroutine.running(), 0
  local memory_kib, cpu = collectgarbage("count") + MEMORY_KIB, os.clock() + CPU_SECONDS
  local old_hook, old_mask, old_count = debug.gethook()
  local function look()
    if coroutine.running() == caller then return end
    executed = executed + LOOK_EVERY
    local look_at_clock = executed % CLOCK_EVERY == 0 -- a system call
    if not tripped.reason and (executed > rule.LOAD_INSTRUCTIONS or collectgarbage("count") > memory_kib
      or look_at_clock and os.clock() > cpu) then
      tripped.reason = place_in(label) .. "takes too long to load: only its check may work"
      debug.sethook(look, "", 1)
    end
    if tripped.reason then error(tripped.reason, 0) end
  end
  local run = coroutine.create(body)
  local strings = debug.getmetatable("")
  local old_methods = strings.__index
  strings.__index = methods
  debug.sethook(look, "", LOOK_EVERY)
  local ok, result, message = coroutine.resume(run)
  debug.sethook(old_hook, old_mask, old_count)
  strings.__index = old_methods
  if ok and coroutine.status(run) ~= "dead" then return false, "yields while it is loaded" end
  return ok, result, message
end

return {
  --- @string path for messages
  -- @return the rule, as lupe.rule.validate gives it; or nil and a message
  load = function(path, source)
    local tripped = {}
    local env = sandbox.new(function() return tripped.reason end, BOUNDED)
    return rule.load(path, source, env, function(chunk) return limited(tripped, rule.label(path), chunk) end)
  end,
}
