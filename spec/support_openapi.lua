--- What the specs check /openapi.json with: an OpenAPI validator and a JSON Schema one, from npm (spec/npm).
local json = require("lupe.json")
local support = require("spec.support")

local support_openapi = {}

--- Checks a document, and answers against it.
-- @string document its text
-- @param answers array of { method, path (as the document has it), status, type, body }
-- @return array of faults, a line each
function support_openapi.faults(document, answers)
  local folder = support.root .. "/spec/npm"
  assert(support.read_file(folder .. "/node_modules/ajv/package.json"), "spec/npm is not installed: run ./dev setup")
  local input = json.encode({ document = json.raw(document), answers = json.array(answers) })
  local path = support.write_file(support.temp_dir() .. "/check.json", input)
  local done = support.run({ "node", folder .. "/check_openapi.js", path }, { seconds = 60 })
  assert(done.code == 0 or done.code == 1 and done.err == "", done.err)
  local faults = {}
  for line in done.out:gmatch("[^\n]+") do faults[#faults + 1] = line end
  assert(done.code == 0 or #faults > 0, "it failed without a word")
  return faults
end

--- An answer of `spec.fake_host` or of `support.http`, as `faults` wants it.
-- @string path as the document has it
function support_openapi.answer(method, path, answer)
  local headers = answer.headers
  return {
    method = method, path = path, status = answer.status, body = answer.body,
    type = headers["Content-Type"] or headers["content-type"],
  }
end

return support_openapi
