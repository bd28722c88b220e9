--- Asks the worker process about one snapshot. Inside a task.
-- @module lupe.ask_worker

local async = require("lupe.async")
local json = require("lupe.json")

--- Two calls, in a row so that no other snapshot gets between.
-- @param view whose snapshot it is
-- @tparam table request of lupe.worker; @param attachment of the host's `worker`, or nil
-- @treturn table the answer; or nil, a message, a code such as "ENOSPC" or nil, and the kind: that of the answer, or
--   "deadline", "starved", "died", "closed" or "file" where there is none
return function(host, view, request, attachment, deadline_ms)
  local sent -- before the second call answers: the worker does one after the other
  host.worker(json.encode({ op = "snapshot" }), view.keepalive, deadline_ms, function(...) sent = { ... } end)
  local failure, text = async.await(host.worker, json.encode(request), attachment, deadline_ms)
  failure = failure or sent[1]
  if failure then return nil, failure.message, failure.code, failure.kind end
  local answer
  for _, reply in ipairs({ sent[2], text }) do
    answer = assert(json.decode(reply))
    if not answer.ok then return nil, answer.error, answer.code, answer.kind end
  end
  return answer
end
