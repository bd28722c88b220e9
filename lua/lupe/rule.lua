--- One rule: its contract, checked field by field, and what its check may return.
-- The registry on the loop and the worker process both use this file, so that a rule that one of them
-- takes, the other takes too. Nothing here runs a rule unprotected: the caller brings the environment, the
-- limits and the protected call.
-- @module lupe.rule

local action_kinds = require("lupe.action_kinds")
local nearest = require("lupe.nearest")

local rule = {}

rule.KINDS = { "leak", "bottleneck", "pattern", "recommendation", "alert", "action" }
rule.NEEDS = {
  "heap", "heap.history", "memory", "allocator", "classes", "targets", "findings", "cpu", "wall", "threads", "spans",
}
rule.VERDICTS = { "leak", "growing", "saturating", "bounded", "info" }
rule.SEVERITIES = { "critical", "high", "medium", "low", "info" }

local FIELDS = { "api", "id", "kind", "title", "version", "needs", "params", "check" }
local PARAM_FIELDS = { "default", "min", "max", "unit", "doc" }
local FINDING_FIELDS = {
  "site", "hotspot", "score", "verdict", "severity", "confidence", "summary", "evidence", "reasons", "advice",
  "action",
}
local MOST_FINDINGS = 1000
local LONGEST_TEXT = 4096

local function contains(list, value)
  for _, known in ipairs(list) do
    if known == value then return true end
  end
  return false
end

local function got(value) return value == nil and "nothing" or type(value) end

local function shown(value)
  return type(value) == "string" and "'" .. value:sub(1, 100) .. "'" or tostring(value)
end

-- Messages are thrown as strings without a position, caught once at the edge of this file.
local function fail(where, field, expected, value)
  error(("%s: field '%s': expected %s, got %s"):format(where, field, expected, value), 0)
end

local function want(where, field, value, kind)
  if type(value) ~= kind then fail(where, field, kind, got(value)) end
  if kind == "number" and (value ~= value or math.abs(value) == math.huge) then
    fail(where, field, "a finite number", tostring(value))
  end
  return value
end

local function want_one_of(where, field, value, list)
  want(where, field, value, "string")
  if contains(list, value) then return value end
  local near = nearest(value, list)
  fail(where, field, "one of " .. table.concat(list, ", "),
    shown(value) .. (near and (" (did you mean '%s'?)"):format(near) or ""))
end

local function refuse_unknown(where, prefix, given, known)
  local unknown = {}
  for name in pairs(given) do
    if not contains(known, name) then unknown[#unknown + 1] = tostring(name) end
  end
  if #unknown == 0 then return end
  table.sort(unknown)
  local near = nearest(unknown[1], known)
  error(("%s: unknown field '%s%s'%s"):format(where, prefix, unknown[1],
    near and (", did you mean '%s%s'?"):format(prefix, near) or "; known: " .. table.concat(known, ", ")), 0)
end

local function want_strings(where, field, list)
  want(where, field, list, "table")
  local count = 0
  for _ in pairs(list) do count = count + 1 end
  if count ~= #list then fail(where, field, "an array", "a table with other keys") end
  for i, text in ipairs(list) do want(where, ("%s[%d]"):format(field, i), text, "string") end
  return list
end

-- Params ------------------------------------------------------------------------------------

local function check_range(where, field, value, spec)
  if type(value) ~= "number" then return end
  if spec.min and value < spec.min then fail(where, field, ("at least %.14g"):format(spec.min), tostring(value)) end
  if spec.max and value > spec.max then fail(where, field, ("at most %.14g"):format(spec.max), tostring(value)) end
end

local function check_param(where, name, spec)
  local prefix = "params." .. name
  want(where, prefix, spec, "table")
  refuse_unknown(where, prefix .. ".", spec, PARAM_FIELDS)
  local kind = type(spec.default)
  if not contains({ "number", "string", "boolean" }, kind) then
    fail(where, prefix .. ".default", "number, string or boolean", got(spec.default))
  end
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
    if spec[field] ~= nil then want(where, ("%s.%s"):format(prefix, field), spec[field], "string") end
  end
  check_range(where, prefix .. ".default", spec.default, spec)
end

local function param_names(given)
  local names = {}
  for name in pairs(given.params or {}) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- The values a check gets: the defaults, and over them what the operator set.
-- @return the table; or nil and a message
function rule.params(given, overrides)
  local ok, result = pcall(function()
    local values = {}
    for name, spec in pairs(given.params or {}) do values[name] = spec.default end
    refuse_unknown(given.id, "params.", overrides or {}, param_names(given))
    for name, value in pairs(overrides or {}) do
      local spec = given.params[name]
      want(given.id, "params." .. name, value, type(spec.default))
      check_range(given.id, "params." .. name, value, spec)
      values[name] = value
    end
    return values
  end)
  if ok then return result end
  return nil, result
end

-- The file ----------------------------------------------------------------------------------

local function check_rule(where, given)
  if type(given) ~= "table" then
    error(("%s: expected the file to return a table, got %s"):format(where, got(given)), 0)
  end
  refuse_unknown(where, "", given, FIELDS)
  want(where, "api", given.api, "number")
  if given.api ~= 1 then fail(where, "api", "1", tostring(given.api)) end
  want(where, "id", given.id, "string")
  if not given.id:match("^[%l%d][%l%d-]*%.[%l%d.-]*[%l%d]$") or #given.id > 64 then
    fail(where, "id", "a name such as 'leak.steady-growth' (lower case, a dot, at most 64 characters)",
      shown(given.id))
  end
  want_one_of(where, "kind", given.kind, rule.KINDS)
  want(where, "title", given.title, "string")
  if given.version ~= nil then want(where, "version", given.version, "string") end
  if given.needs ~= nil then
    want_strings(where, "needs", given.needs)
    for i, need in ipairs(given.needs) do want_one_of(where, ("needs[%d]"):format(i), need, rule.NEEDS) end
  end
  if given.params ~= nil then
    want(where, "params", given.params, "table")
    for name in pairs(given.params) do
      if type(name) ~= "string" then fail(where, "params", "names as keys", "a " .. type(name)) end
    end
    for _, name in ipairs(param_names(given)) do check_param(where, name, given.params[name]) end
  end
  want(where, "check", given.check, "function")
  return given
end

--- Checks what a rule's file returned.
-- @string path for messages
-- @param given whatever it returned
-- @return the same table; or nil and "FILE: field 'x': expected number, got string"
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
  local label = rule.label(path)
  if source:byte(1) == 27 then return nil, label .. ": bytecode is not read, only Lua text" end
  local chunk, message = loadstring(source, "=" .. label)
  if not chunk then return nil, message end
  setfenv(chunk, env)
  jit.off(chunk, true)
  return chunk
end

--- Compiles, runs and checks the text of a rule's file.
-- @tparam[opt=pcall] function call runs the chunk: true and its result, or false and a message
-- @return the rule; or nil and a message
function rule.load(path, source, env, call)
  local chunk, message = rule.compile(path, source, env)
  if not chunk then return nil, message end
  local ok, given = (call or pcall)(chunk)
  if not ok then
    given = tostring(given)
    local label = rule.label(path)
    return nil, given:find(label, 1, true) and given or ("%s: %s"):format(label, given)
  end
  return rule.validate(path, given)
end

-- Findings ----------------------------------------------------------------------------------

local SITE_FIELDS = {
  "name", "module", "inuse_space", "inuse_objects", "alloc_space", "alloc_objects", "average_size", "survival",
  "share", "sampling_error_bytes", "first_seen_ms", "last_grown_ms", "file", "line",
}

local function plain_site(where, site)
  want(where, "site", site, "table")
  want(where, "site.name", site.name, "string")
  local plain = {}
  for _, field in ipairs(SITE_FIELDS) do plain[field] = site[field] end
  if site.stack then
    plain.stack = {}
    for i, name in ipairs(want_strings(where, "site.stack", site.stack)) do plain.stack[i] = name end
  end
  return plain
end

local function copy_strings(where, field, list)
  local copy = {}
  for i, text in ipairs(want_strings(where, field, list)) do copy[i] = text:sub(1, LONGEST_TEXT) end
  return copy
end

-- Numbers but the first three.
local HOTSPOT_FIELDS = {
  "name", "module", "file", "line", "definition_line", "cpu_percent", "wall_percent", "cum_cpu_percent",
  "cum_wall_percent", "cpu_ns", "wall_ns", "cum_cpu_ns", "cum_wall_ns", "kernel_ns", "memory_ns", "io_ns", "lock_ns",
  "idle_ns", "allocator_ns", "samples", "threads",
}

--- A function's figures: one of view.profile's functions, or a table with the fields of one.
local function plain_hotspot(where, hotspot)
  want(where, "hotspot", hotspot, "table")
  want(where, "hotspot.name", hotspot.name, "string")
  local plain = {}
  for i, field in ipairs(HOTSPOT_FIELDS) do
    local value = hotspot[field]
    if value ~= nil then want(where, "hotspot." .. field, value, i <= 3 and "string" or "number") end
    plain[field] = value
  end
  if hotspot.stack then plain.stack = copy_strings(where, "hotspot.stack", hotspot.stack) end
  return plain
end

local function plain_evidence(where, evidence)
  want(where, "evidence", evidence, "table")
  local plain = {}
  for name, value in pairs(evidence) do
    if type(name) ~= "string" then fail(where, "evidence", "names as keys", "a " .. type(name)) end
    if not contains({ "number", "string", "boolean" }, type(value)) then
      fail(where, "evidence." .. name, "number, string or boolean", got(value))
    end
    plain[name] = want(where, "evidence." .. name, value, type(value))
  end
  return plain
end

local function plain_argument(where, field, value, spec)
  want(where, field, value, spec.type)
  check_range(where, field, value, spec)
  if spec.whole and value % 1 ~= 0 then fail(where, field, "a whole number", tostring(value)) end
  return spec.type == "string" and value:sub(1, LONGEST_TEXT) or value
end

--- What a finding of an action rule asks for: see lupe.action_kinds.
local function plain_action(where, action)
  want(where, "action", action, "table")
  local name = want_one_of(where, "action.name", action.name, action_kinds.NAMES)
  local specs, known = action_kinds.ARGUMENTS[name], {}
  local plain, one_of = { name = name }, action_kinds.ONE_OF[name]
  for argument in pairs(specs) do known[#known + 1] = argument end
  table.sort(known)
  for _, argument in ipairs(known) do
    if action[argument] ~= nil then
      plain[argument] = plain_argument(where, "action." .. argument, action[argument], specs[argument])
    end
  end
  if action.cooldown_secs ~= nil then
    plain.cooldown_secs = plain_argument(where, "action.cooldown_secs", action.cooldown_secs, action_kinds.COOLDOWN)
  end
  table.insert(known, 1, "name")
  known[#known + 1] = "cooldown_secs"
  refuse_unknown(where, "action.", action, known)
  if one_of and plain[one_of[1]] == nil and plain[one_of[2]] == nil then
    fail(where, "action", ("%s or %s in an action '%s'"):format(one_of[1], one_of[2], name), "neither")
  end
  return plain
end

local function plain_finding(where, found, kind)
  if type(found) ~= "table" then error(("%s: expected a table, got %s"):format(where, got(found)), 0) end
  refuse_unknown(where, "", found, FINDING_FIELDS)
  local plain = { summary = want(where, "summary", found.summary, "string"):sub(1, LONGEST_TEXT) }
  if found.site ~= nil then plain.site = plain_site(where, found.site) end
  if found.hotspot ~= nil then plain.hotspot = plain_hotspot(where, found.hotspot) end
  if found.score ~= nil then plain.score = want(where, "score", found.score, "number") end
  if found.verdict ~= nil then plain.verdict = want_one_of(where, "verdict", found.verdict, rule.VERDICTS) end
  if found.severity ~= nil then plain.severity = want_one_of(where, "severity", found.severity, rule.SEVERITIES) end
  if found.confidence ~= nil then
    want(where, "confidence", found.confidence, "number")
    check_range(where, "confidence", found.confidence, { min = 0, max = 1 })
    plain.confidence = found.confidence
  end
  if found.evidence ~= nil then plain.evidence = plain_evidence(where, found.evidence) end
  for _, field in ipairs({ "reasons", "advice" }) do
    if found[field] ~= nil then plain[field] = copy_strings(where, field, found[field]) end
  end
  if kind == "action" then
    plain.action = plain_action(where, found.action)
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
  local answer = { findings = {}, status = "ok" }
  for i = 1, #found do answer.findings[i] = plain_finding(("%s: finding %d"):format(path, i), found[i], given.kind) end
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
