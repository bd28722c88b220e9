--- Tries the new text of a rule before it is in force: in the worker process it is loaded aside, checked against the
-- contract, and, where it takes the place of a rule that works, run once on the newest snapshot.
-- @module lupe.try_rule

local ask_worker = require("lupe.ask_worker")
local async = require("lupe.async")
local json = require("lupe.json")

local LOAD_DEADLINE_MS = 500

--- @param analysis whose worker it is, and who knows what a rule is given
-- @return function(entry) for lupe.live_scripts
return function(analysis)
  local host = analysis.host

  --- The message of a failure that names no file does so now.
  local function about(entry, message)
    local name = entry.path:match("[^/]*$")
    return message:find(name, 1, true) and message or ("%s: %s"):format(entry.path, message)
  end

  local function load(entry)
    local request = json.encode({ op = "try", path = entry.path, source = entry.text, deadline_ms = LOAD_DEADLINE_MS })
    local failure, text = async.await(host.worker, request, nil, LOAD_DEADLINE_MS)
    if failure then return nil, failure.message, failure.kind end
    local reply = assert(json.decode(text))
    if not reply.ok then return nil, reply.error, reply.kind end
    return reply.rule
  end

  return function(entry)
    local loaded, message, kind = load(entry)
    if not loaded then return nil, about(entry, message), kind end
    local replaced = entry.loaded or analysis.registry.active[loaded.id]
    local view = replaced and analysis.views and analysis.views:merged()
    if not view then return { loaded = loaded, untried = true } end
    local request = analysis.runner:check_request(view, loaded, nil, analysis:findings())
    request.candidate = entry.path
    local answer, _
    answer, message, _, kind = ask_worker(host, view, request, nil, request.deadline_ms)
    if not answer then return nil, about(entry, message), kind end
    return { loaded = loaded, findings = #(answer.findings or {}) }
  end
end
