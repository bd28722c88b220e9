--- What rules do to a real program: have it give memory back, change what is sampled; by name only.
local lupe_run = require("spec.lupe_run")
local rule = require("lupe.rule")
local sandbox = require("lupe.sandbox")
local support = require("spec.support")

local ACT = [[
return { api = 1, id = "action.test", kind = "action", title = "t", needs = { "allocator" }, check = function(view)
  local dirty = view.allocator and view.allocator.dirty_bytes or 0
  if dirty < 3000000 then return {} end
  local function ask(action) return { summary = "much is unused", action = action } end
  return {
    ask({ name = "purge" }), ask({ name = "decay", dirty_ms = 4000 }), ask({ name = "snapshot" }),
    ask({ name = "sampling", wall_hz = 0 }),
  }
end }
]]

local function a_rule(folder, name, text)
  local path = support.write_file(("%s/%s.lua"):format(folder, name), text)
  assert(support.run({ "chmod", "644", path }).code == 0)
end

describe("actions on a real program", function()
  local run, listed

  local function action(name)
    for _, entry in ipairs(listed.actions) do
      if entry.action == name then return entry end
    end
  end

  local function dirty_bytes()
    return tonumber(support.http(run.port, "/metrics").body:match("\nlupe_allocator_dirty_bytes (%d+)"))
  end

  setup(function()
    local folder = support.temp_dir()
    a_rule(folder, "act", ACT)
    local program = { support.fixture("agent_host"), "keep=100,20000", "churn=10,4000000", "wait=/nowhere" }
    run = lupe_run.start(program, {
      flags = { "--actions", "purge,decay,sampling", "--leak-check-interval", "1", "--rules", folder },
      env = { MALLOC_CONF = "dirty_decay_ms:-1" },
    })
    listed = run:await("/api/actions", function(list)
      local over = 0
      for _, entry in ipairs(list.actions) do
        if entry.state ~= "waiting" and entry.state ~= "running" then over = over + 1 end
      end
      return over == 4
    end)
  end)
  teardown(support.cleanup)

  it("give memory back, and say how much", function()
    assert.same({ "done", "action.test", "all", "much is unused" },
      { action("purge").state, action("purge").rule, action("purge").target, action("purge").why })
    assert.truthy(action("purge").result:find("^gave [34]%.%d+ MiB of unused pages back, in 1 process"),
      action("purge").result)
    assert.is_true(dirty_bytes() < 500000)
  end)

  it("change jemalloc's settings", function()
    assert.same({ "done", "dirty_decay_ms:4000 in 1 process" }, { action("decay").state, action("decay").result })
  end)

  it("are told, and not run, where they are not allowed", function()
    assert.same({ "not_allowed", "it is not allowed; --actions snapshot would allow it" },
      { action("snapshot").state, action("snapshot").result })
    assert.same({}, run:get("/api/profiling/snapshot").snapshots)
    assert.same({ { "purge", "decay", "sampling" }, 300 }, { listed.allowed, listed.cooldown_seconds })
  end)

  it("change what is sampled, and the routes say why", function()
    local off = run:await("/api/profiling/cpu", function(cpu) return cpu.stack_profile.wall.state == "off" end)
    assert.equal("wall profiling is off: an action of a rule has switched it off", off.stack_profile.wall.reason)
    assert.equal("on", off.stack_profile.state)
  end)

  it("are in the report", function()
    local report = run:finish(15)
    local notes = table.concat(report.notes, "\n")
    assert.truthy(notes:find("action purge was run: gave ", 1, true), notes)
    assert.truthy(notes:find("action snapshot was not run: it is not allowed", 1, true), notes)
  end)
end)

describe("capture in a real program", function()
  teardown(support.cleanup)

  --- A folder of rules in place of all shipped ones that need CPU samples or looks.
  local function without_samples()
    local folder = support.temp_dir()
    for path in support.run({ "ls", support.root .. "/rules" }).out:gmatch("([%w_]+)%.lua") do
      local file = ("%s/rules/%s.lua"):format(support.root, path)
      local shipped = assert(rule.load(file, support.read_file(file), sandbox.new(function() end)))
      local needs = table.concat(shipped.needs or {}, " ")
      if needs:find("cpu") or needs:find("wall") then
        a_rule(folder, path, ("return { api = 1, id = %q, kind = %q, title = 'x', check = function() return {} end }")
          :format(shipped.id, shipped.kind))
      end
    end
    return folder
  end

  it("takes no samples that no rule needs, and begins when one does", function()
    local folder = without_samples()
    local run = lupe_run.start({ support.fixture("agent_host"), "keep=100,20000", "wait=/nowhere" },
      { flags = { "--rules", folder } })
    local function profile(state, hz)
      return run:await("/api/profiling/cpu", function(cpu)
        return cpu.stack_profile and cpu.stack_profile.state == state and cpu.stack_profile.hz == hz
      end).stack_profile
    end
    local off = profile("off", 0)
    assert.equal("CPU profiling is off: no rule needs it; --cpu-hz 99 has it all the same", off.reason)
    assert.same({ "off", 0 }, { off.wall.state, off.wall.hz })
    a_rule(folder, "mine", [[return { api = 1, id = "pattern.mine", kind = "pattern", title = "t", needs = { "cpu" },
      check = function() return {} end }]])
    run:post("/api/rules/reload")
    assert.equal("off", profile("on", 99).wall.state)
    run:finish(15)
  end)
end)
