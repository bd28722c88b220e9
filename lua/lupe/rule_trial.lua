--- Runs one rule on one snapshot in the worker process, as a live run would, and keeps nothing of it.
-- @module lupe.rule_trial

local ask_worker = require("lupe.ask_worker")
local budgets = require("lupe.budgets")
local rule_runner = require("lupe.rule_runner")
local rule_settings = require("lupe.rule_settings")
local try_rule = require("lupe.try_rule")

--- The worker process may have forgotten, or be another one, since the call before: then all is sent once more.
local FORGOTTEN = { no_rule = true, no_snapshot = true }

--- @return the answer; or nil, a message and a kind
local function try(host, entry, view, given)
  local loaded, message, kind = try_rule.load(host, entry.path, entry.source)
  if not loaded then return nil, message, kind end
  if given.base then
    local mapped, why, _, failed = ask_worker.once(host, { op = "base" }, given.base.keepalive, budgets.system_ms)
    if not mapped then return nil, why, failed end
  end
  local runner = rule_runner.new(host, { settings = rule_settings.new(host.config, host.log) })
  local request = runner:check_request(view, loaded, { [loaded.id] = given.params }, given.findings)
  request.candidate, request.base = entry.path, given.base ~= nil
  request.config = given.limits or request.config
  local answer, _
  answer, message, _, kind = ask_worker.about(host, view, request, nil, request.deadline_ms)
  return answer, message, kind
end

--- Inside a task.
-- @param host what C offers; its `config` says what is set for the rule
-- @param entry the rule: `path`, `source` and `rule`
-- @param view with its keepalive
-- @param given `base` (another such view), `params` (over what is set: name -> value), `findings` of other rules,
--   `limits` (in place of the operator's, as `view.config`); all optional
-- @return what lupe.rule.run answers; or nil and a message
return function(host, entry, view, given)
  local answer, message, kind = try(host, entry, view, given)
  if FORGOTTEN[kind] then answer, message = try(host, entry, view, given) end
  if not answer then return nil, message end
  return answer
end
