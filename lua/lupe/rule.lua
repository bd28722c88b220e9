--- One rule: its contract, checked field by field, and what its check may return.
-- The worker process loads and runs rules by it; the loop checks with it what is set for their params. Nothing here
-- runs a rule unprotected: the caller brings the environment, the limits and the protected call.
-- @module lupe.rule

local action_kinds = require("lupe.action_kinds")
local expect = require("lupe.expect")
local sandbox = require("lupe.sandbox")

local fail, got, shown = expect.fail, expect.got, expect.shown
local contains, check_range, refuse_unknown = expect.contains, expect.range, expect.known
local want, want_text, want_plain = expect.kind, expect.text, expect.plain
local want_one_of, want_strings = expect.one_of, expect.strings

local rule = {}

rule.KINDS = { "leak", "bottleneck", "pattern", "recommendation", "alert", "action" }
rule.NEEDS = { "heap", "heap.history", "memory", "allocator", "classes", "targets", "findings", "cpu", "wall",
  "threads", "spans", "proof" }
rule.VERDICTS = { "leak", "growing", "saturating", "bounded", "info" }
rule.SEVERITIES = { "critical", "high", "medium", "low", "info" }

local URGENCY = {}
for i, severity in ipairs(rule.SEVERITIES) do URGENCY[severity] = i end

local FIELDS = { "api", "id", "kind", "title", "version", "needs", "params", "check" }
local PARAM_FIELDS = { "default", "min", "max", "unit", "doc" }
local FINDING_FIELDS = {
  "site", "hotspot", "score", "verdict", "severity", "confidence", "summary", "evidence", "reasons", "advice",
  "action",
}
local MOST_FINDINGS, MOST_TEXT = 1000, 2 ^ 20 -- of one check; bytes of all its texts together
local MOST_EVIDENCE, MOST_LINES, MOST_FRAMES = 64, 64, 256
local MOST_PARAMS, LONGEST_NAME = 100, 64
local LONGEST_TEXT = expect.LONGEST_TEXT

--- How urgent a finding is, to be compared: the smaller the number the more, last those without a severity.
function rule.urgency(finding) return URGENCY[finding.severity] or #rule.SEVERITIES + 1 end

-- Params ------------------------------------------------------------------------------------

local function check_param(where, name, spec)
  local prefix = "params." .. name
  want_plain(where, prefix, spec)
  refuse_unknown(where, prefix .. ".", spec, PARAM_FIELDS)
  local kind = type(spec.default)
  if not contains({ "number", "string", "boolean" }, kind) then
    fail(where, prefix .. ".default", "number, string or boolean", got(spec.default))
  end
  if kind == "string" then want_text(where, prefix .. ".default", spec.default) end
  want(where, prefix .. ".default", spec.default, kind)
  for _, bound in ipairs({ "min", "max" }) do
    if spec[bound] ~= nil then
      if kind ~= "number" then
        fail(where, ("%s.%s"):format(prefix, bound), "nothing where the default is a " .. kind, got(spec[bound]))
      end
      want(where, ("%s.%s"):format(prefix, bound), spec[bound], "number")
    end
  end
  for _, field in ipairs({ "unit", "doc" }) do
    if spec[field] ~= nil then want_text(where, ("%s.%s"):format(prefix, field), spec[field]) end
  end
  if spec.min and spec.max then check_range(where, prefix .. ".max", spec.max, { min = spec.min }) end
  check_range(where, prefix .. ".default", spec.default, spec)
  return {
    default = spec.default, min = spec.min, max = spec.max, unit = spec.unit, doc = spec.doc,
  }
end

local function param_names(given)
  local names = {}
  for name in pairs(given.params or {}) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local TRUTH = { ["true"] = true, ["false"] = false }

--- One value that somebody set in place of a default.
-- @string where for the message: who set it
-- @param value of the default's type; where `from_text`, a text such as a query has, which is read as that type
-- @return the value; or nil and "WHERE: field 'params.x': expected ..."
function rule.param(where, given, name, value, from_text)
  local ok, result = pcall(function()
    local spec = (given.params or {})[name]
    if not spec then refuse_unknown(where, "params.", { [name] = true }, param_names(given)) end
    local field, kind = "params." .. name, type(spec.default)
    if from_text and kind == "number" then value = tonumber(value) or value end
    if from_text and TRUTH[value] ~= nil and kind == "boolean" then value = TRUTH[value] end
    if from_text and type(value) ~= kind then
      fail(where, field, kind == "boolean" and "true or false" or kind, shown(value))
    end
    want(where, field, value, kind)
    check_range(where, field, value, spec)
    return { kind == "string" and want_text(where, field, value) or value }
  end)
  if not ok then return nil, result end
  return result[1]
end

--- The values a check gets: the defaults, and over them what the operator set.
-- @return the table; or nil and a message
function rule.params(given, overrides)
  local values = {}
  for name, spec in pairs(given.params or {}) do values[name] = spec.default end
  for name, value in pairs(overrides or {}) do
    local set, message = rule.param(given.id, given, name, value)
    if set == nil then return nil, message end
    values[name] = set
  end
  return values
end

-- The file ----------------------------------------------------------------------------------

local function check_needs(where, needs)
  want_plain(where, "needs", needs)
  want_strings(where, "needs", needs)
  local copy = {}
  for i, need in ipairs(needs) do copy[i] = want_one_of(where, ("needs[%d]"):format(i), need, rule.NEEDS) end
  return copy
end

local function check_params(where, given)
  want_plain(where, "params", given.params)
  for name in pairs(given.params) do
    if type(name) ~= "string" then fail(where, "params", "names as keys", "a " .. type(name)) end
    if not name:match("^[%a_][%w_]*$") or #name > LONGEST_NAME then
      fail(where, "params", "names such as 'min_growth' as keys", shown(name))
    end
  end
  local names, copy = param_names(given), {}
  if #names > MOST_PARAMS then fail(where, "params", ("at most %d"):format(MOST_PARAMS), ("%d"):format(#names)) end
  for _, name in ipairs(names) do copy[name] = check_param(where, name, given.params[name]) end
  return copy
end

local function check_rule(where, given)
  if type(given) ~= "table" then
    error(("%s: expected the file to return a table, got %s"):format(where, got(given)), 0)
  end
  if debug.getmetatable(given) ~= nil then
    error(("%s: expected the file to return a plain table, got one with a metatable"):format(where), 0)
  end
  refuse_unknown(where, "", given, FIELDS)
  want(where, "api", given.api, "number")
  if given.api ~= 1 then fail(where, "api", "1", tostring(given.api)) end
  want(where, "id", given.id, "string")
  if not given.id:match("^[%l%d][%l%d-]*%.[%l%d.-]*[%l%d]$") or #given.id > LONGEST_NAME then
    fail(where, "id", "a name such as 'leak.steady-growth' (lower case, a dot, at most 64 characters)",
      shown(given.id))
  end
  return {
    api = given.api, id = given.id,
    kind = want_one_of(where, "kind", given.kind, rule.KINDS),
    title = want_text(where, "title", given.title),
    version = given.version ~= nil and want_text(where, "version", given.version) or nil,
    needs = given.needs ~= nil and check_needs(where, given.needs) or nil,
    params = given.params ~= nil and check_params(where, given) or nil,
    check = want(where, "check", given.check, "function"),
  }
end

--- Checks what a rule's file returned.
-- @string path for messages
-- @param given whatever it returned
-- @return a table of its own, plain throughout: what the file's code does to its tables later is not seen in it; or
--   nil and "FILE: field 'x': expected number, got string"
function rule.validate(path, given)
  local ok, result = pcall(check_rule, rule.label(path), given)
  if ok then return result end
  return nil, result
end

--- What a file is called in messages. Lua cuts the name of a chunk after 59 characters, so a longer path gives way
-- to the file's name.
function rule.label(path)
  return #path <= 59 and path or path:match("[^/]*$"):sub(-59)
end

--- Compiles the text of a rule's file, without running it.
-- @tparam table env its globals
-- @return the chunk, with its JIT off (a compiled loop never meets the hook that stops it);
--   or nil and "FILE:LINE: message"
function rule.compile(path, source, env)
  return sandbox.compile(rule.label(path), source, env)
end

--- Compiles, runs and checks the text of a rule's file.
-- @tparam[opt=pcall] function call runs the chunk: true and its result, or false and a message
-- @tparam[opt=rule.validate] function validate
-- @return the rule; or nil and a message
function rule.load(path, source, env, call, validate)
  local chunk, message = rule.compile(path, source, env)
  if not chunk then return nil, message end
  local ok, given = (call or pcall)(chunk)
  if not ok then
    given = type(given) == "string" and given or ("(error object is a %s value)"):format(type(given))
    local label = rule.label(path)
    return nil, given:find(label, 1, true) and given or ("%s: %s"):format(label, given)
  end
  return (validate or rule.validate)(path, given)
end

-- Findings ----------------------------------------------------------------------------------

local function copy_strings(where, field, list, most)
  local copy = {}
  for i, text in ipairs(want_strings(where, field, list)) do
    if i > most then break end
    copy[i] = text:sub(1, LONGEST_TEXT)
  end
  return copy
end

--- Fields of a table or an object, of which the first `texts` are texts and the others numbers.
local function plain_fields(where, prefix, given, fields, texts)
  want(where, prefix .. ".name", given.name, "string")
  local plain = {}
  for i, field in ipairs(fields) do
    local value = given[field]
    if value ~= nil then want(where, prefix .. "." .. field, value, i <= texts and "string" or "number") end
    plain[field] = i <= texts and value and value:sub(1, LONGEST_TEXT) or value
  end
  if given.stack then plain.stack = copy_strings(where, prefix .. ".stack", given.stack, MOST_FRAMES) end
  return plain
end

local SITE_FIELDS = { -- six texts, then numbers
  "name", "called", "module", "file", "group", "tag", "inuse_space", "inuse_objects", "alloc_space", "alloc_objects",
  "average_size", "survival", "share", "sampling_error_bytes", "first_seen_ms", "last_grown_ms", "line",
}
local PROOF_NUMBERS = {
  "sampled_objects", "unreachable", "reachable", "interior", "stack_only", "unsettled", "proven_objects",
  "proven_bytes", "proven_bytes_error", "share", "total_objects", "total_bytes", "groups", "largest_behind",
  "held_share", "time_ms", "lost_objects", "lost_bytes", "lost_bytes_error",
}
local PROOF_STATES = { "proven", "unreferenced", "reachable", "unknown" }
local HOTSPOT_FIELDS = { -- three texts, then numbers
  "name", "module", "file", "line", "definition_line", "cpu_percent", "wall_percent", "cum_cpu_percent",
  "cum_wall_percent", "cpu_ns", "wall_ns", "cum_cpu_ns", "cum_wall_ns", "kernel_ns", "memory_ns", "io_ns", "lock_ns",
  "idle_ns", "allocator_ns", "samples", "threads",
}

--- What a leak proof says of a finding's site (lupe.site_proof), with names in place of other sites.
local function plain_proof(where, proof)
  local prefix = "site.proof"
  want(where, prefix, proof, "table")
  local plain = {
    state = want_one_of(where, prefix .. ".state", proof.state, PROOF_STATES),
    reasons = copy_strings(where, prefix .. ".reasons", proof.reasons, MOST_LINES),
  }
  for _, field in ipairs(PROOF_NUMBERS) do
    if proof[field] ~= nil then plain[field] = want(where, prefix .. "." .. field, proof[field], "number") end
  end
  for _, field in ipairs({ "holder", "head" }) do
    local site = proof[field]
    if site ~= nil then
      local name = type(site) == "table" and site.name or site
      plain[field] = want(where, prefix .. "." .. field, name, "string"):sub(1, LONGEST_TEXT)
    end
  end
  return plain
end

local function plain_evidence(where, evidence)
  want(where, "evidence", evidence, "table")
  local plain, count = {}, 0
  for name, value in pairs(evidence) do
    if type(name) ~= "string" then fail(where, "evidence", "names as keys", "a " .. type(name)) end
    if not contains({ "number", "string", "boolean" }, type(value)) then
      fail(where, "evidence." .. name, "number, string or boolean", got(value))
    end
    want_text(where, "evidence", name, LONGEST_NAME)
    count = count + 1
    if count > MOST_EVIDENCE then fail(where, "evidence", ("at most %d entries"):format(MOST_EVIDENCE), "more") end
    want(where, "evidence." .. name, value, type(value))
    plain[name] = type(value) == "string" and value:sub(1, LONGEST_TEXT) or value
  end
  return plain
end

--- Bytes of all texts in a plain finding.
local function text_bytes(value)
  if type(value) == "string" then return #value end
  local sum = 0
  if type(value) == "table" then
    for _, inner in pairs(value) do sum = sum + text_bytes(inner) end
  end
  return sum
end

local function plain_finding(where, found, kind)
  if type(found) ~= "table" then error(("%s: expected a table, got %s"):format(where, got(found)), 0) end
  refuse_unknown(where, "", found, FINDING_FIELDS)
  local plain = { summary = want(where, "summary", found.summary, "string"):sub(1, LONGEST_TEXT) }
  if found.site ~= nil then
    plain.site = plain_fields(where, "site", want(where, "site", found.site, "table"), SITE_FIELDS, 6)
    if found.site.proof ~= nil then plain.site.proof = plain_proof(where, found.site.proof) end
  end
  if found.hotspot ~= nil then
    plain.hotspot = plain_fields(where, "hotspot", want(where, "hotspot", found.hotspot, "table"), HOTSPOT_FIELDS, 3)
  end
  if found.score ~= nil then plain.score = want(where, "score", found.score, "number") end
  if found.verdict ~= nil then plain.verdict = want_one_of(where, "verdict", found.verdict, rule.VERDICTS) end
  if found.severity ~= nil then plain.severity = want_one_of(where, "severity", found.severity, rule.SEVERITIES) end
  if found.confidence ~= nil then
    plain.confidence = want(where, "confidence", found.confidence, "number")
    check_range(where, "confidence", plain.confidence, { min = 0, max = 1 })
  end
  if found.evidence ~= nil then plain.evidence = plain_evidence(where, found.evidence) end
  for _, field in ipairs({ "reasons", "advice" }) do
    if found[field] ~= nil then plain[field] = copy_strings(where, field, found[field], MOST_LINES) end
  end
  if kind == "action" then
    plain.action = action_kinds.plain(where, found.action)
  elseif found.action ~= nil then
    fail(where, "action", ("nothing in a rule of kind '%s' (only those of kind 'action' ask for one)"):format(kind),
      got(found.action))
  end
  return plain
end

--- Runs a rule's check and makes its answer plain: no sites, no functions, no metatables, ready for JSON.
-- A check returns an array of findings: `summary`, and where they apply `site` (a site of view.heap, or its figures),
-- `hotspot` (a function of view.profile, or its figures: see lupe.profile_function), `score`, `verdict`, `severity`,
-- `confidence` (0..1), `evidence` (a flat table), `reasons` and `advice` (texts); in a rule of kind "action" also
-- `action`, a table with a `name` and arguments (lupe.action_kinds). Where it had too little to say
-- anything, it adds a second value, { needed_seconds = n }: so much history it would need in all.
-- Throws what the check throws, and "FILE: finding 1: field 'x': expected ..." for an answer against the
-- contract: call it protected.
-- @string path for messages
-- @param given the rule, as `load` returned it
-- @param view lupe.view
-- @param[opt] overrides params the operator set
-- @treturn table { findings = array, status = "ok" | "insufficient_data", needed_seconds = number or nil }
function rule.run(path, given, view, overrides)
  path = rule.label(path)
  local values, message = rule.params(given, overrides)
  if not values then error(("%s: %s"):format(path, message), 0) end
  local found, lack = given.check(view, values)
  if type(found) ~= "table" then
    error(("%s: check: expected it to return an array of findings, got %s"):format(path, got(found)), 0)
  end
  if #found > MOST_FINDINGS then
    error(("%s: check: returned %d findings, at most %d are taken"):format(path, #found, MOST_FINDINGS), 0)
  end
  local answer, bytes = { findings = {}, status = "ok" }, 0
  for i = 1, #found do
    answer.findings[i] = plain_finding(("%s: finding %d"):format(path, i), found[i], given.kind)
    bytes = bytes + text_bytes(answer.findings[i])
    if bytes > MOST_TEXT then
      error(("%s: check: more than %d bytes of text in its findings"):format(path, MOST_TEXT), 0)
    end
  end
  if next(found) ~= nil and #found == 0 then
    error(("%s: check: expected an array of findings, got a table with other keys"):format(path), 0)
  end
  if lack ~= nil then
    local where = path .. ": check: second value"
    want(where, "(itself)", lack, "table")
    answer.status = "insufficient_data"
    answer.needed_seconds = want(where, "needed_seconds", lack.needed_seconds, "number")
  end
  return answer
end

return rule
