--- Errors of the HTTP API: application/problem+json (RFC 9457).
-- A handler raises one with `problem.raise`; the router turns it into the answer.
-- @module lupe.problem

local json = require("lupe.json")

local problem = {}

problem.SHAPE = json.shape({
  "type string", "title string", "status integer", "detail string", "instance string",
})

--- What each status says, whichever route answers with it.
problem.MEANINGS = {
  [400] = "A parameter is unknown, malformed, out of range or given twice, or the body is not a JSON object of them",
  [403] = "Host or Origin is foreign, or what was asked for is switched off: the detail says which",
  [404] = "There is no such process or snapshot",
  [413] = "The body is larger than 64 KiB",
  [415] = "There is a body, and it is not JSON",
  [429] = "Too many requests",
  [500] = "An error in lupe; its log has the details under the id that the detail names",
  [503] = "Profiling is off, or there is no process or profile yet or any more: the detail says which",
  [504] = "It took too long and was stopped",
  [507] = "The disk is full; nothing was left behind",
}

local TITLES = {
  [400] = "Bad Request", [403] = "Forbidden", [404] = "Not Found", [405] = "Method Not Allowed",
  [413] = "Content Too Large", [415] = "Unsupported Media Type", [429] = "Too Many Requests",
  [500] = "Internal Server Error", [503] = "Service Unavailable", [504] = "Gateway Timeout",
  [507] = "Insufficient Storage",
}

local problem_mt = {}

--- @param status  the HTTP status
-- @param kind    a word for programs, such as "unknown-parameter"
-- @param detail  a sentence for people: what was wrong, what was expected
-- @param extra   optional { title =, headers = }
function problem.new(status, kind, detail, extra)
  extra = extra or {}
  return setmetatable({
    status = status, kind = kind, detail = detail, title = extra.title or TITLES[status], headers = extra.headers or {},
  }, problem_mt)
end

--- Ends the handler with this problem as its answer.
function problem.raise(...) error(problem.new(...), 0) end

function problem.is(value) return getmetatable(value) == problem_mt end

--- @param path the request's path: the `instance`
-- @return status, headers, body of the answer
function problem.answer(self, path)
  local headers = { ["Content-Type"] = "application/problem+json" }
  for name, value in pairs(self.headers) do headers[name] = value end
  return self.status, headers, json.encode(problem.SHAPE({
    type = "urn:lupe:problem:" .. self.kind, title = self.title, status = self.status, detail = self.detail,
    instance = path,
  })) .. "\n"
end

return problem
