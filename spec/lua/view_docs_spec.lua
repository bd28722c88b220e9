--- The examples in the heads of the modules that rules see: each is run as a rule would be, and gives what it says.
local support = require("spec.support")
local program = require("spec.example_program")
local sandbox = require("lupe.sandbox")
local view = require("lupe.view")

local MODULES = {
  "view", "heap_view", "site", "heap_changes", "trend", "memory_view", "history_view", "profile_view",
  "profile_function", "profile_threads", "threads_view", "span_view", "proof_view",
  "site_proof",
}

--- The examples of a file's head: { code, promised: what stands behind `-->` }.
local function examples_of(name)
  local source = assert(support.read_file(support.root .. "/lua/lupe/" .. name .. ".lua"))
  local list, code = {}, nil
  for line in source:gmatch("([^\n]*)\n") do
    local text = line:match("^%-%- ?(.*)$")
    if not text then break end
    local promised = code and text:match("^%-%-> (.*)$")
    if promised then
      list[#list + 1], code = { code = table.concat(code, "\n"), promised = promised }, nil
    elseif text == "@usage" then
      assert(not code, name .. ".lua: an example without a result")
      code = {}
    elseif code then
      code[#code + 1] = text
    end
  end
  assert(not code, name .. ".lua: an example without a result")
  return list
end

local function run(code, of)
  local chunk = assert(loadstring("local view = ...\n" .. code, "=example"))
  local values = { setfenv(chunk, sandbox.new(function() end))(of) }
  for i, value in ipairs(values) do values[i] = tostring(value) end
  return table.concat(values, ", ")
end

describe("the example in the head of", function()
  local example = view.from_table(program)

  for _, name in ipairs(MODULES) do
    it(name .. ".lua gives what it says", function()
      local examples = examples_of(name)
      assert.is_true(#examples > 0, name .. " has no example")
      for _, one in ipairs(examples) do assert.equal(one.promised, run(one.code, example)) end
    end)
  end
end)
