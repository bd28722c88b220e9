--- Asks the worker process. Inside a task.
-- @module lupe.ask_worker

local async = require("lupe.async")
local json = require("lupe.json")

local ask_worker = {}

--- One request.
-- @tparam table request of lupe.worker; @param attachment of the host's `worker`, or nil
-- @treturn table the answer; or nil, a message, a code such as "ENOSPC" or nil, and the kind: that of the answer, or
--   "deadline", "starved", "died", "closed" or "file" where there is none
function ask_worker.once(host, request, attachment, deadline_ms)
  local failure, text = async.await(host.worker, json.encode(request), attachment, deadline_ms)
  if failure then return nil, failure.message, failure.code, failure.kind end
  local answer = assert(json.decode(text))
  if not answer.ok then return nil, answer.error, answer.code, answer.kind end
  return answer
end

--- One request about a snapshot: two calls, in a row so that no other snapshot gets between.
-- @param view whose snapshot it is; the others as above
-- @return as above
function ask_worker.about(host, view, request, attachment, deadline_ms)
  local sent -- before the second call answers: the worker does one after the other
  host.worker(json.encode({ op = "snapshot" }), view.keepalive, deadline_ms, function(...) sent = { ... } end)
  local answer, message, code, kind = ask_worker.once(host, request, attachment, deadline_ms)
  if not sent then return nil, message, code, kind end -- the second one was never sent: its file cannot be made
  local failure = sent[1]
  if failure then return nil, failure.message, failure.code, failure.kind end
  local mapped = assert(json.decode(sent[2]))
  if not mapped.ok then return nil, mapped.error, mapped.code, mapped.kind end
  return answer, message, code, kind
end

return ask_worker
