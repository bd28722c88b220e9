--- Runs one rule on one snapshot in the worker process, within the limits of a live run, and keeps nothing of it.
-- @module lupe.rule_trial

local async = require("lupe.async")
local json = require("lupe.json")

local DEADLINE_MS = 500
local SYSTEM_DEADLINE_MS = 2000

--- One request; what fails, fails with the worker's words.
-- @return the answer; or nil and a message
local function ask(host, request, attachment, deadline_ms)
  local failure, text = async.await(host.worker, json.encode(request), attachment, deadline_ms)
  if failure then return nil, failure.message end
  local answer = assert(json.decode(text))
  if not answer.ok then return nil, answer.error end
  return answer
end

--- Inside a task.
-- @param host what C offers
-- @param entry the rule: `path`, `source` and `rule`
-- @param view with its keepalive
-- @param given `base` (another such view), `params`, `findings`, `config`, `allocator`; all optional
-- @return what lupe.rule.run answers; or nil and a message
return function(host, entry, view, given)
  local answer, message = ask(host, { op = "load", rules = { { path = entry.path, source = entry.source } } }, nil,
    SYSTEM_DEADLINE_MS + DEADLINE_MS)
  if answer and not answer.rules[1].ok then answer, message = nil, answer.rules[1].error end
  if answer and given.base then
    answer, message = ask(host, { op = "base" }, given.base.keepalive, SYSTEM_DEADLINE_MS)
  end
  if answer then answer, message = ask(host, { op = "snapshot" }, view.keepalive, SYSTEM_DEADLINE_MS) end
  if not answer then return nil, message end
  return ask(host, {
    op = "check", id = entry.rule.id, params = given.params, findings = json.array(given.findings),
    config = given.config, allocator = given.allocator, deadline_ms = DEADLINE_MS,
  }, nil, DEADLINE_MS)
end
