--- Rules that run away in a whole lupe, beside the shipped ones. Each of them alone, and more kinds of them:
-- spec/core/script/worker_spec.lua.
local bad_rules = require("spec.core.script.bad_rules")
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

local CHOSEN = {
  ["endless-loop"] = true, ["huge-string"] = true, ["deep-recursion"] = true, ["error-in-error"] = true, yield = true,
  ["poisoned-metatable"] = true, ["pathological-find"] = true, ["xpcall-handler"] = true, ["endless-pcall"] = true,
  ["gsub-bomb"] = true, ["cyclic-site"] = true, ["top-level-loop"] = true, ["top-level-pattern"] = true,
}

local GOOD = [[return { api = 1, id = "%s", kind = "pattern", title = "good",
  check = function() return { { summary = "%s was here" } } end }]]

describe("a folder of rules that run away", function()
  local run, dir, answer, slowest_s, health_answers

  local function entries()
    local by_name = {}
    for _, entry in ipairs(run:get("/api/rules").rules) do by_name[entry.path:match("[^/]*$")] = entry end
    return by_name
  end

  setup(function()
    dir = support.temp_dir()
    for _, given in ipairs(bad_rules) do
      if CHOSEN[given.name] then support.write_file(("%s/bad_%s.lua"):format(dir, given.name), given.source) end
    end
    for _, id in ipairs({ "a.first", "z.last" }) do
      support.write_file(dir .. "/" .. id .. ".lua", GOOD:format(id, id))
    end
    run = lupe_run.start({ support.fixture("agent_host"), "keep=500,20000", "wait=" .. dir .. "/go" },
      { flags = { "--rules", dir } })
    run:await("/api/profiling/allocations", function(a) return #a.top_allocators > 0 end)
    local url = ("http://127.0.0.1:%d/api/profiling/leak-detection"):format(run.port)
    local asking = support.spawn({ "curl", "-s", "-X", "POST", url })
    slowest_s, health_answers = 0, 0
    while asking:alive() do
      local began = support.now()
      run:get("/healthz")
      slowest_s, health_answers = math.max(slowest_s, support.now() - began), health_answers + 1
      support.sleep(0.01)
    end
    answer = support.json.decode(asking:stdout())
  end)
  teardown(support.cleanup)

  it("hides nothing of what the others find", function()
    local found = {}
    for _, text in ipairs(answer.suspicious_patterns) do found[text] = true end
    assert.is_true(found["a.first was here"] and found["z.last was here"])
    for name, entry in pairs(entries()) do
      if entry.shipped then assert.same({ "active", 0, true }, { entry.state, entry.errors, entry.runs > 0 }, name) end
    end
  end)

  it("is told of, each with its file, and with the line where Lua was still running", function()
    local all, told_of = entries(), {}
    for _, given in ipairs(bad_rules) do
      if CHOSEN[given.name] then
        local entry = assert(all["bad_" .. given.name .. ".lua"], given.name .. " is not listed")
        told_of[given.name] = true
        local where = ("bad_%s.lua%s"):format(given.name, given.line and ":" .. given.line or "")
        -- A process that was killed could not say where it was; on a busy machine that happens to any that runs away.
        local killed = given.kind ~= "error" and entry.state ~= "broken"
          and (entry.error or ""):find("the worker was killed", 1, true)
        local told = killed and "the worker was killed" or where
        assert.truthy(entry.error and entry.error:find(told, 1, true), given.name .. ": " .. tostring(entry.error))
      end
    end
    assert.same(CHOSEN, told_of)
  end)

  it("does not keep other routes waiting", function()
    assert.is_true(health_answers > 20, health_answers .. " answers")
    assert.is_true(slowest_s < 1, ("%.3f s"):format(slowest_s))
  end)

  it("runs in a process that is confined", function()
    local rules = run:get("/api/rules")
    assert.equal(not support.sanitized, rules.confined)
  end)
end)
