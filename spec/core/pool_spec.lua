--- The work pool, by the scenes of spec/fixtures/pool_stress.c.
local support = require("spec.support")

local function scene(name)
  local result = support.run({ support.fixture("pool_stress"), name })
  assert.equal(0, result.code, result.err)
  return result.out
end

describe("the work pool", function()
  it("does work in the order in which it was queued, and does not keep an idle loop alive", function()
    local lines = { "all queued" }
    for i = 0, 5 do lines[#lines + 1] = ("after %d: done"):format(i) end
    lines[#lines + 1] = "the loop ends while the pool is idle"
    lines[#lines + 1] = "closed 1, loop empty 1, threads 0, hooks 1 1"
    assert.equal(table.concat(lines, "\n") .. "\n", scene("order"))
  end)

  it("starts a thread where there is work and none is idle, up to its number, with all signals blocked", function()
    local out = scene("threads")
    local counts = {}
    for count in out:gmatch("with %d at work (%d)") do counts[#counts + 1] = count end
    assert.truthy(out:find("at first 0\n", 1, true), out)
    assert.same({ "1", "2", "3", "3", "3", "3" }, counts)
    local masks = 0
    for mask in out:gmatch("blocked (%x+)") do
      -- All but SIGKILL, SIGSTOP, and the two that libc keeps for itself.
      assert.equal("fffffffe7ffbfeff", mask)
      masks = masks + 1
    end
    assert.equal(3, masks)
    assert.truthy(out:find("used CPU time 1\n", 1, true), out)
    assert.truthy(out:find("closed 1, loop empty 1, threads 0, hooks 3 3\n", 1, true), out)
  end)

  it("lets the work under way end when it is stopped, and gives back what waits", function()
    assert.equal([[
after 1: never begun
after 2: never begun
after 3: never begun
after 4: never begun
the first still runs
after 5: never begun
closed 0
after 0: done
closed 1, loop empty 1, threads 0
]], scene("stop"))
  end)

  it("gives work back where no thread can be started, and tries again for the next", function()
    if support.sanitized then return pending("a sanitizer needs the address space") end
    assert.equal("after 0: never begun\nafter 0: done\nclosed 1, loop empty 1, threads 0, hooks 1 1\n",
      scene("refused"))
  end)

  it("loses nothing and does nothing twice under load", function()
    assert.equal("stress fine\n", scene("stress"))
  end)
end)
