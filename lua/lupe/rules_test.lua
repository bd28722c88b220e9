--- `lupe rules check` and `lupe rules test`.
-- @module lupe.rules_test

local analysis = require("lupe.analysis")
local format = require("lupe.format")
local literal = require("lupe.view_literal")
local recorded_host = require("lupe.recorded_host")
local recording = require("lupe.recording")
local rule_file = require("lupe.rule_file")
local rule_tests = require("lupe.rule_tests")
local sample = require("lupe.sample_view")
local snapshot_bytes = require("lupe.ffi").bytes
local trial = require("lupe.rule_trial")
local view_of = require("lupe.view").from_snapshot

local rules_test = {}

local SEES_FINDINGS = { recommendation = true, action = true }

--- Has each file loaded, and its cases. Inside a task.
-- @return the text, and the exit code: 1 where one is broken
function rules_test.check(host, paths)
  local lines, code = {}, 0
  for i, path in ipairs(paths) do
    local entry, message = rule_file.load(host, path)
    if entry then message = select(2, rule_tests.load(path)) end
    if message then code = 1 end
    lines[i] = message or path .. ": ok"
  end
  return table.concat(lines, "\n") .. "\n", code
end

--- A view with a keepalive: what the worker process is sent.
local function made(host, described)
  local address, size = literal(described)
  local own, bytes, keepalive = host.snapshot_of(snapshot_bytes(address, size))
  if not own then error(bytes, 0) end
  return assert(view_of(own, bytes, {
    allocator = described.allocator, cgroup = described.cgroup, cores = described.cores,
    off_because = described.off_because, keepalive = keepalive,
  }))
end

local function recorded_view(host, path, at)
  local recorded, message = recording.open(host, path)
  if not recorded then error(message, 0) end
  local index = at and recorded:nearest(at) or #recorded.frames
  local one
  if index > 0 then one, message = recorded:read(index) end
  if not one or not one.view then error(message or path .. ": it holds no snapshot", 0) end
  return one.view
end

--- What a case names: a literal, or a recording's path from the folder of its file.
local function named(host, given, folder, at)
  if type(given) == "table" then return made(host, given) end
  return recorded_view(host, given:sub(1, 1) == "/" and given or folder .. "/" .. given, at)
end

local function run_case(host, entry, case, folder)
  local described = type(case.view) == "table" and case.view or {}
  local other = case.base or described.base
  local ok, view, base = pcall(function()
    return named(host, case.view, folder, case.at), other and named(host, other, folder)
  end)
  if not ok then return { "its view cannot be made: " .. tostring(view) } end
  -- What the operator has set is not the case's business.
  local as_described = setmetatable({ config = described.config or {} }, { __index = host })
  local answer, failure = trial(as_described, entry, view, {
    base = base, params = case.params, findings = described.findings, limits = described.config,
  })
  return rule_tests.compare(case, answer, failure)
end

local function add_findings(lines, answer)
  for _, found in ipairs(answer.findings) do lines[#lines + 1] = "        " .. rule_tests.told(found) end
end

--- What a rule of this kind sees of others' findings.
local function earlier(findings, kind)
  local list = {}
  for _, found in ipairs(findings) do
    if found.kind ~= kind and found.kind ~= "action" then list[#list + 1] = found end
  end
  return list
end

--- The rule on every frame, as it would have run then: an error is a failure, and what it finds at last is told.
local function run_recording(host, entry, path, lines)
  local recorded, message = recording.open(host, path)
  if not recorded then
    lines[#lines + 1] = "  FAIL  " .. message
    return false
  end
  local last
  local as_then, move = recorded_host.new(host, recorded.about)
  local others = SEES_FINDINGS[entry.rule.kind] and analysis.new(as_then)
  for index in ipairs(recorded.frames) do
    local one, failure = recorded:read(index)
    if one then move(one.notes) end
    if one and one.view then
      local findings = others and earlier(others:run(one.view).findings, entry.rule.kind)
      last, failure = trial(as_then, entry, one.view, { findings = findings })
    end
    if failure then
      lines[#lines + 1] = ("  FAIL  %s, at %.1f s: %s"):format(path, recorded.frames[index].seconds, failure)
      return false
    end
  end
  lines[#lines + 1] = ("  ok    %s: %s, %s at the last"):format(path, format.plural(#recorded.frames, "frame"),
    format.plural(last and #last.findings or 0, "finding"))
  if last then add_findings(lines, last) end
  return true
end

--- A rule, its cases, and the recordings given; without either it is run on a snapshot made for that. Inside a task.
-- @param host what C offers where no program runs
-- @return the text, and the exit code: 1 where something failed; or nil and what is wrong with a file
function rules_test.test(host, path, recordings)
  local entry, message = rule_file.load(host, path)
  if not entry then return nil, message end
  local cases
  cases, message = rule_tests.load(path)
  if message then return nil, message end
  local lines, failed, count = {}, 0, 0
  for _, case in ipairs(cases or {}) do
    local wrong = run_case(host, entry, case, rule_file.place(path))
    count = count + 1
    lines[#lines + 1] = ("  %s  %s"):format(wrong[1] and "FAIL" or "ok  ", case.name)
    for _, line in ipairs(wrong) do lines[#lines + 1] = "        " .. line end
    if wrong[1] then failed = failed + 1 end
  end
  for _, each in ipairs(recordings) do
    count = count + 1
    if not run_recording(host, entry, each, lines) then failed = failed + 1 end
  end
  if count == 0 then
    local answer, failure = trial(host, entry, made(host, sample), {})
    count, failed = 1, answer and 0 or 1
    lines[1] = answer and ("  ok    ran on a made-up program: %s"):format(format.plural(#answer.findings, "finding"))
      or "  FAIL  " .. failure
    if answer then add_findings(lines, answer) end
  end
  table.insert(lines, 1, ("%s: %s %s"):format(path, entry.rule.id, failed == 0 and "ok" or "FAILED"))
  lines[#lines + 1] = ("%s, %d failed"):format(format.plural(count, "case"), failed)
  return table.concat(lines, "\n") .. "\n", failed > 0 and 1 or 0
end

return rules_test
