--- What a rule is known to find: the cases of a file NAME.test.lua beside a rule's NAME.lua.
-- The file returns an array of cases, in the environment of a rule's file:
--
-- * `name` a sentence
-- * `view` a literal snapshot (lupe.view_literal; as in lupe.view also `findings`, `config`, `base`, `allocator`,
--   `cgroup`, `cores`), or the path of a recording, from the file's folder: then its last frame, or the one nearest to
--   `at` seconds
-- * `base` likewise, what the rule may compare it with: see `view.base`
-- * `params` that the rule is given
-- * `expect` an array, one entry for each finding, in any order: `component`, `module`, `verdict` and `severity` are to
--   be equal, `summary` is a Lua pattern found in it (`%%` is a percent sign), `confidence` is the least; what is not
--   named may be anything
-- * `insufficient` true where the rule is to ask for more history, false where it is not
-- * or instead of both `error`: a Lua pattern found in the message that the check fails with
-- @module lupe.rule_tests

local budgets = require("lupe.budgets")
local files = require("lupe.ffi")
local format = require("lupe.format")
local nearest = require("lupe.nearest")
local rule = require("lupe.rule")
local sandbox = require("lupe.sandbox")

local rule_tests = {}

local CASE = {
  name = "string", view = "table or string", at = "number", base = "table or string", params = "table",
  expect = "table", insufficient = "boolean", error = "string",
}
local EXPECTED = {
  component = "string", module = "string", verdict = "string", severity = "string", summary = "string",
  confidence = "number",
}
-- A file of cases may do as much as a check until it has made them: histories are made by loops.
local INSTRUCTIONS, LOOK_EVERY = budgets.instructions, 10000
local EQUAL = { "component", "module", "verdict", "severity" }

local function names_of(fields)
  local names = {}
  for name in pairs(fields) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function check_fields(where, given, fields)
  if type(given) ~= "table" then error(("%s: expected a table, got %s"):format(where, type(given)), 0) end
  for name, value in pairs(given) do
    local kinds = fields[name]
    if not kinds then
      local known = names_of(fields)
      local near = nearest(tostring(name), known)
      error(("%s: unknown field '%s'%s"):format(where, tostring(name),
        near and (", did you mean '%s'?"):format(near) or "; known: " .. table.concat(known, ", ")), 0)
    end
    if not kinds:find(type(value), 1, true) then
      error(("%s: field '%s': expected %s, got %s"):format(where, name, kinds, type(value)), 0)
    end
  end
end

local function check_case(where, case)
  check_fields(where, case, CASE)
  if not case.name then error(where .. ": field 'name': expected string, got nothing", 0) end
  if not case.view then
    error(where .. ": field 'view': expected a literal snapshot or the path of a recording, got nothing", 0)
  end
  if not case.error and not case.expect and case.insufficient == nil then
    error(where .. ": field 'expect': expected an array of findings ({} for none), got nothing", 0)
  end
  for i, expected in ipairs(case.expect or {}) do
    check_fields(("%s: expect[%d]"):format(where, i), expected, EXPECTED)
  end
end

--- Calls `body`, and ends it after INSTRUCTIONS, whatever it catches. In a coroutine of its own, as the hook is one for
-- all of them: what runs in the caller's is left alone.
-- @tparam table tripped gets the `reason` then
-- @return what it returns; raises what it raises
local function bounded(tripped, label, body)
  local caller, executed = coroutine.running(), 0
  local function look()
    if coroutine.running() == caller then return end
    executed = executed + LOOK_EVERY
    if executed < INSTRUCTIONS then return end
    tripped.reason = ("%s: its cases are not made within %d million instructions"):format(label, INSTRUCTIONS / 1e6)
    error(tripped.reason, 0)
  end
  local run = coroutine.create(body)
  local old_hook, old_mask, old_count = debug.gethook()
  debug.sethook(look, "", LOOK_EVERY)
  local ok, result = coroutine.resume(run)
  debug.sethook(old_hook, old_mask, old_count)
  if not ok then error(result, 0) end
  if coroutine.status(run) ~= "dead" then error(label .. ": yields while it is loaded", 0) end
  return result
end

--- @string path of the rule's file
-- @return its cases; nil where there is no such file; or nil and what is wrong with it
function rule_tests.load(path)
  local test_path = path:gsub("%.lua$", ".test.lua")
  if not files.stat(test_path) then return nil end
  local file = io.open(test_path, "rb")
  if not file then return nil, test_path .. ": cannot be opened" end
  local source = file:read("*a")
  file:close()
  local tripped, label = {}, rule.label(test_path)
  local chunk, message = rule.compile(test_path, source or "", sandbox.new(function() return tripped.reason end))
  if not chunk then return nil, message end
  local ok, cases = pcall(function()
    local given = bounded(tripped, label, chunk)
    if type(given) ~= "table" then
      error(("%s: expected the file to return an array of cases, got %s"):format(label, type(given)), 0)
    end
    for i, case in ipairs(given) do check_case(("%s: case %d"):format(label, i), case) end
    if #given == 0 then error(label .. ": expected an array of cases, and it has none", 0) end
    return given
  end)
  if not ok then return nil, tostring(cases) end
  return cases
end

-- Comparing -----------------------------------------------------------------------------------

local function place_of(found) return found.site or found.hotspot or {} end

--- Whether a case's pattern is in a text. Raises where it is none.
local function has(text, field, pattern)
  local ok, at = pcall(string.find, text, pattern)
  if not ok then error(("field '%s': '%s' is no Lua pattern: %s"):format(field, pattern, at), 0) end
  return at ~= nil
end

local function matches(found, expected)
  local place = place_of(found)
  local got = { component = place.name, module = place.module, verdict = found.verdict, severity = found.severity }
  for _, field in ipairs(EQUAL) do
    if expected[field] ~= nil and expected[field] ~= got[field] then return false end
  end
  if expected.summary and not has(found.summary, "summary", expected.summary) then return false end
  return not expected.confidence or (found.confidence or 0) >= expected.confidence
end

local function told_expected(expected)
  local words = {}
  for _, name in ipairs(names_of(EXPECTED)) do
    local value = expected[name]
    if value ~= nil then
      words[#words + 1] = ("%s %s%s"):format(name, name == "confidence" and ">= " or "", tostring(value))
    end
  end
  return words[1] and table.concat(words, ", ") or "a finding"
end

--- A finding in a line.
function rule_tests.told(found)
  local words = { found.verdict, found.severity }
  if found.verdict == nil then words = { found.severity } end
  if found.confidence then words[#words + 1] = format.percent(100 * found.confidence) .. " sure" end
  local name = place_of(found).name
  if name then table.insert(words, 1, name) end
  return table.concat(words, ", ") .. (words[1] and ": " or "") .. found.summary
end

local function differences(case, answer, failure)
  if case.error then
    if answer then return { "expected an error with " .. case.error, "got      an answer" } end
    if has(failure, "error", case.error) then return {} end
    return { "expected an error with " .. case.error, "got      " .. failure }
  end
  if not answer then return { "got      an error: " .. failure } end
  local lines, left = {}, {}
  if case.insufficient ~= nil and case.insufficient ~= (answer.status == "insufficient_data") then
    lines[1] = case.insufficient and "expected it to ask for more history" or "expected no call for more history"
  end
  if not case.expect then return lines end
  for i, found in ipairs(answer.findings) do left[i] = found end
  for _, expected in ipairs(case.expect) do
    local at
    for i, found in ipairs(left) do
      if matches(found, expected) then
        at = i
        break
      end
    end
    if at then table.remove(left, at) else lines[#lines + 1] = "expected " .. told_expected(expected) end
  end
  if #case.expect == 0 and #left > 0 then lines[#lines + 1] = "expected nothing" end
  for _, found in ipairs(left) do lines[#lines + 1] = "got      " .. rule_tests.told(found) end
  return lines
end

--- @param case of `load`
-- @param answer what the check answered, or nil; then @param failure is its message
-- @return array of lines about what differs, or of one about a pattern that is none; empty: nothing does
function rule_tests.compare(case, answer, failure)
  local ok, lines = pcall(differences, case, answer, failure)
  return ok and lines or { lines }
end

return rule_tests
