--- What the operator says about rules: values of their params, and which of them do not run. From lupe.conf.lua:
--
--     rule_params = { ["leak.steady-growth"] = { min_growth = 10 } },
--     rules_disabled = { "bottleneck.*", "pattern.polling" },
--
-- and, for one answer, from a request's `param.NAME` and `param.RULE.NAME`. What in the file does not fit the rules
-- that there are is a complaint, not an end: rules come and go while lupe runs. The default stays in force then.
-- @module lupe.rule_settings

local expect = require("lupe.expect")
local glob = require("lupe.glob")
local nearest = require("lupe.nearest")
local rule = require("lupe.rule")

local rule_settings = {}
rule_settings.__index = rule_settings

local VALUES = { number = true, string = true, boolean = true }

--- Settings with a flag of their own that are params of a rule: rule -> param -> setting.
local ELSEWHERE = { ["alert.memory-threshold"] = { warning = "memory_warning_mb", critical = "memory_alert_mb" } }

--- How routes that run rules declare it (lupe.query).
rule_settings.PARAMETER = {
  name = "param.NAME", prefix = "param.", type = "text",
  doc = "another value for the param NAME of each rule that has it, in this answer only; param.RULE.NAME: of one rule",
}

local function sorted_keys(values)
  local keys = {}
  for key in pairs(values) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

local function protected(body, ...)
  local ok, result = pcall(body, ...)
  if not ok then return nil, result end
  return result
end

--- Checks the setting rule_params by itself: a table of tables of values. Names are looked at when the rules are known.
-- @string where the setting, as messages call it
-- @return the same; or nil and a message
function rule_settings.check_params(where, given)
  return protected(function()
    if type(given) ~= "table" then
      error(("%s: expected a table of rules' ids, got %s"):format(where, expect.got(given)), 0)
    end
    for id, values in pairs(given) do
      if type(id) ~= "string" then
        error(("%s: expected rules' ids as keys, got a %s"):format(where, type(id)), 0)
      end
      local of = ("%s[%q]"):format(where, id)
      if type(values) ~= "table" then
        error(("%s: expected a table of params, got %s"):format(of, expect.got(values)), 0)
      end
      for name, value in pairs(values) do
        if type(name) ~= "string" then error(("%s: expected names as keys, got a %s"):format(of, type(name)), 0) end
        if not VALUES[type(value)] then
          expect.fail(of, name, "number, string or boolean", expect.got(value))
        end
      end
    end
    return given
  end)
end

--- Checks the setting rules_disabled by itself: an array of ids, in which `*` is any text.
function rule_settings.check_disabled(where, given)
  return protected(function()
    if type(given) ~= "table" then
      error(("%s: expected an array of rules' ids, got %s"):format(where, expect.got(given)), 0)
    end
    for key, id in pairs(given) do
      if type(key) ~= "number" or key > #given then
        error(("%s: expected an array of rules' ids, got a table with other keys"):format(where), 0)
      end
      if type(id) ~= "string" then
        error(("%s[%d]: expected a rule's id, got %s"):format(where, key, expect.got(id)), 0)
      end
    end
    return given
  end)
end

--- @param config of it rule_params, rules_disabled, and the settings that are params elsewhere
-- @tparam function log function(level, message)
function rule_settings.new(config, log)
  return setmetatable({ config = config, log = log, told = {} }, rule_settings)
end

--- Whether this rule is not to run.
function rule_settings:disabled(id)
  for _, pattern in ipairs(self.config.rules_disabled or {}) do
    if glob(pattern, id) then return true end
  end
  return false
end

--- What is set for one rule.
-- @return name -> value, and an array of what is wrong with the others
local function set_for(config, given)
  local values, wrong = {}, {}
  for name, setting in pairs(ELSEWHERE[given.id] or {}) do
    if (given.params or {})[name] then
      local value, message = rule.param(setting, given, name, config[setting])
      values[name] = value
      wrong[#wrong + 1] = message
    end
  end
  local from_file = (config.rule_params or {})[given.id] or {}
  for _, name in ipairs(sorted_keys(from_file)) do
    local value, message = rule.param(("rule_params[%q]"):format(given.id), given, name, from_file[name])
    if value ~= nil then values[name] = value end
    wrong[#wrong + 1] = message and message .. "; the default stays"
  end
  return values, wrong
end

--- The params that a check of this rule is given over its defaults.
-- @param given the rule, or what is known of it: `id`, `params`
-- @tparam[opt] table for_now id -> name -> value: those of one request
function rule_settings:params(given, for_now)
  local values = set_for(self.config, given)
  for name, value in pairs(for_now and for_now[given.id] or {}) do values[name] = value end
  return values
end

local function no_such_rule(id, ids)
  local near = nearest(id, ids)
  return ("no rule '%s' is in force%s"):format(id, near and (", did you mean '%s'?"):format(near) or "")
end

--- What does not fit the rules that there are: array of texts, each logged once.
-- @param entries of lupe.rules, in force
function rule_settings:complaints(entries)
  local by_id, texts = {}, {}
  for _, entry in ipairs(entries) do by_id[entry.rule.id] = entry.rule end
  local ids = sorted_keys(by_id)
  for _, id in ipairs(ids) do
    local _, wrong = set_for(self.config, by_id[id])
    for _, text in ipairs(wrong) do texts[#texts + 1] = text end
  end
  for _, id in ipairs(sorted_keys(self.config.rule_params or {})) do
    if not by_id[id] then texts[#texts + 1] = "rule_params: " .. no_such_rule(id, ids) end
  end
  for _, pattern in ipairs(self.config.rules_disabled or {}) do
    local found = false
    for _, id in ipairs(ids) do found = found or glob(pattern, id) end
    if not found then texts[#texts + 1] = "rules_disabled: " .. no_such_rule(pattern, ids) end
  end
  for _, text in ipairs(texts) do
    if not self.told[text] then self.log("warning", text) end
    self.told[text] = true
  end
  return texts
end

local function no_such_param(name, entries)
  local names = {}
  for _, entry in ipairs(entries) do
    for known in pairs(entry.rule.params or {}) do names[known] = true end
  end
  names = sorted_keys(names)
  local near = nearest(name, names)
  return ("no rule that runs has a param '%s'%s"):format(name,
    near and (", did you mean '%s'?"):format(near) or "; known: " .. table.concat(names, ", "))
end

--- A request's params: `NAME` sets it in each rule that has it, `RULE.NAME` in one rule.
-- @param given name -> text of a query, or value of a JSON body
-- @param entries of lupe.rules: those that run
-- @return id -> name -> value, as `params` takes it; nil where nothing is given; or nil and a message
function rule_settings.for_request(given, entries)
  if not given or next(given) == nil then return nil end
  local by_id, values = {}, {}
  for _, entry in ipairs(entries) do by_id[entry.rule.id] = entry.rule end
  for _, full in ipairs(sorted_keys(given)) do
    local id, name = full:match("^(.*)%.([^.]*)$")
    name = name or full
    local where, found = ("parameter \"param.%s\""):format(full), false
    if id and not by_id[id] then return nil, ("%s: %s"):format(where, no_such_rule(id, sorted_keys(by_id))) end
    for _, entry in ipairs(id and { { rule = by_id[id] } } or entries) do
      local one = entry.rule
      if id or one.params and one.params[name] then
        local value, message = rule.param(("%s of %s"):format(where, one.id), one, name, given[full],
          type(given[full]) == "string")
        if value == nil then return nil, message end
        values[one.id] = values[one.id] or {}
        -- A name with its rule says more than one without, whichever comes first.
        if id or values[one.id][name] == nil then values[one.id][name] = value end
        found = true
      end
    end
    if not found then return nil, ("%s: %s"):format(where, no_such_param(name, entries)) end
  end
  return values
end

return rule_settings
