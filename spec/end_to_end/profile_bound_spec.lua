--- Programs that are bound by one thing each, and what the profile says of them.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

local KINDS = { "cpu", "io", "lock", "memory" }
-- The function that does it in bench/bound.c.
local WHO = { cpu = "compute", io = "read_answers", lock = "want_the_lock", memory = "move_memory" }

describe("what bounds a program", function()
  after_each(support.cleanup)

  for _, kind in ipairs(KINDS) do
    it("is told of one that is bound by " .. kind, function()
      local run = lupe_run.start({ support.built("bench/bound"), kind },
        { flags = { "--cpu-hz", "500", "--wall-hz", "50" } })
      local share = kind .. "_bound_percent"
      local answer = run:await("/api/profiling/bottlenecks", function(b)
        return b.total_samples >= 500 and b[share] ~= support.json.null and b[share] > 50
      end, 40)
      local names = {}
      for _, hotspot in ipairs(answer.hotspots) do names[hotspot.function_name] = hotspot end
      assert.is_truthy(names[WHO[kind]], support.json.encode(answer.hotspots))
      local report = run:finish(15)
      assert.is_true(report.bottlenecks[share] > 50)
    end)
  end
end)
