--- Errors of the HTTP API: application/problem+json (RFC 9457).
-- A handler raises one with `problem.raise`; the router turns it into the answer.
-- @module lupe.problem

local json = require("lupe.json")

local problem = {}

local SHAPE = json.shape({ "type string", "title string", "status integer", "detail string", "instance string" })

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
  return self.status, headers, json.encode(SHAPE({
    type = "urn:lupe:problem:" .. self.kind, title = self.title, status = self.status, detail = self.detail,
    instance = path,
  })) .. "\n"
end

return problem
