--- The example of a program with its own Lua: lupe is refused inside of it, and works beside it.
local support = require("spec.support")

describe("the example program with a Lua of its own", function()
  teardown(support.cleanup)

  it("exports that Lua, so lupe goes into a process beside it and sees the leak in the script", function()
    local exported = support.run({ "nm", "-D", "--defined-only", support.built("examples/own_lua") }).out
    assert.matches(" T lua_pcall\n", exported)
    local done = support.run({ support.built("examples/own_lua"), 8 },
      { env = { LUPE_LISTEN = "127.0.0.1:" .. support.free_port(), LUPE_HEAP_INTERVAL_SECS = 0.2 }, seconds = 60 })
    assert.equal(0, done.code, done.err)
    local refused, about, report = done.out:match("own_lua: not in this process: (.-)\nown_lua: lupe: (.-)\n(.*)$")
    assert.matches("own_lua.*lua_.*LUPE_MODE_HELPER", refused)
    assert.equal("helper", support.json.decode(about).mode)
    local told = support.json.decode(report)
    local largest = told.allocators[1]
    assert.same({ "script", "[tag]" }, { largest.name, largest.module })
    assert.is_true(largest.inuse_space > 2 ^ 18, report)
    assert.equal("lua_pcall", table.concat(largest.stack, " "):match("lua_pcall"))
    assert.equal(1, #told.targets)
  end)
end)
