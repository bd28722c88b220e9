--- The agent as a part of a program, several threads of which start and stop it.
local support = require("spec.support")

describe("the agent in a program", function()
  after_each(support.cleanup)

  it("lets several threads start, stop and adopt at once, under each allocator", function()
    -- A sanitizer is an allocator of its own, and knows nothing of signals that come at any time.
    local allocators = support.sanitized and { false } or { "libjemalloc.so.2", false }
    for _, jemalloc in ipairs(allocators) do
      local stress = support.run({ support.fixture("agent_stress"), "60", "3", support.sanitized and "0" or "900" },
        { env = { LD_PRELOAD = jemalloc, MALLOC_CONF = "prof:true,prof_active:false,lg_prof_sample:10" } })
      assert.are.same({ 0, "" }, { stress.code, stress.err }, stress.out)
    end
  end)
end)
