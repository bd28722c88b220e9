local support = require("spec.support")

--- Of a whole run, 1,000 of them: LUPE_CYCLES=1000.
local CYCLES = tonumber(os.getenv("LUPE_CYCLES")) or 60

describe("starting and stopping lupe again and again", function()
  after_each(support.cleanup)

  for _, mode in ipairs({ "process", "helper" }) do
    it("leaves no thread, descriptor, timer or mapping (" .. mode .. ")", function()
      local run = support.run({ support.fixture("embed_cycles"), CYCLES, mode },
        { env = { LUPE_SOCKET = false }, seconds = 20 + CYCLES })
      assert.equal(0, run.code, run.out .. run.err)
    end)
  end
end)
