--- Runs a rule of examples/rules as its readers would try it: on a literal table.
-- @module spec.examples.example_rule

local support = require("spec.support")
local rule = require("lupe.rule")
local sandbox = require("lupe.sandbox")
local view = require("lupe.view")

local example_rule = {}

--- @treturn table what lupe.rule.run answers
function example_rule.run(name, described, params)
  local path = support.root .. "/examples/rules/" .. name .. ".lua"
  local source = assert(support.read_file(path))
  local loaded = assert(rule.load(path, source, sandbox.new(function() end)))
  return rule.run(path, loaded, view.from_table(described), params)
end

--- The summaries of what it finds.
function example_rule.summaries(name, described, params)
  local list = {}
  for i, found in ipairs(example_rule.run(name, described, params).findings) do list[i] = found.summary end
  return list
end

return example_rule
