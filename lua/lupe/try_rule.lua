--- Tries the new text of a rule before it is in force: in the worker process it is loaded aside, checked against the
-- contract, and, where it takes the place of a rule that works, run once on the newest snapshot. Inside a task.
-- @module lupe.try_rule

local ask_worker = require("lupe.ask_worker")
local budgets = require("lupe.budgets")

local try_rule = {}

--- Loads a text aside: until the next one, a `check` with `candidate` = its path runs it.
-- @return what there is to know of the rule (`id`, `kind`, ... `params`); or nil, a message and a kind
function try_rule.load(host, path, source)
  local deadline_ms = budgets.call_ms
  local reply, message, _, kind = ask_worker.once(host,
    { op = "try", path = path, source = source, modules = host.modules, deadline_ms = deadline_ms }, nil, deadline_ms)
  if reply then return reply.rule end
  return nil, message, kind
end

--- The message of a failure that names no file does so now.
local function about(entry, message)
  local name = entry.path:match("[^/]*$")
  return message:find(name, 1, true) and message or ("%s: %s"):format(entry.path, message)
end

--- @param analysis whose worker it is (`host`, `registry`), and who knows what a rule is given: `views`, `runner` and
--   `findings`, where there are any
-- @return function(entry) for lupe.live_scripts
function try_rule.of(analysis)
  return function(entry)
    local loaded, message, kind = try_rule.load(analysis.host, entry.path, entry.text)
    if not loaded then return nil, about(entry, message), kind end
    local replaced = entry.loaded or analysis.registry.active[loaded.id]
    local view = replaced and analysis.views and analysis.views:merged()
    if not view then return { loaded = loaded, untried = true } end
    local request = analysis.runner:check_request(view, loaded, nil, analysis:findings())
    request.candidate = entry.path
    local answer, _
    answer, message, _, kind = ask_worker.about(analysis.host, view, request, nil, request.deadline_ms)
    if not answer then return nil, about(entry, message), kind end
    return { loaded = loaded, findings = #(answer.findings or {}) }
  end
end

return try_rule
