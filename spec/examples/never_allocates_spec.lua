local example = require("spec.examples.example_rule")

describe("the example rule never_allocates", function()
  local program = {
    sites = {
      {
        name = "log_line", alloc_space = 6000, alloc_objects = 60, inuse_space = 0, stacks = {
          { stack = { "malloc", "log_line", "on_audio", "main" }, alloc_space = 2000, alloc_objects = 20 },
          { stack = { "malloc", "log_line", "main" }, alloc_space = 4000, alloc_objects = 40 },
        },
      },
      { name = "mix", alloc_space = 500, alloc_objects = 1, inuse_space = 0, stack = { "mix", "on_audio", "main" } },
      { name = "boot", inuse_space = 1000, stack = { "boot", "main" } },
    },
  }

  it("counts what was allocated below the function, and shows the way to most of it", function()
    local findings = example.run("never_allocates", program, { names = "on_signal, on_audio" }).findings
    assert.equal(1, #findings)
    assert.equal("on_audio must not allocate, and did: 2.44 KiB in 21 allocations, most of it in log_line",
      findings[1].summary)
    assert.same({ "On the way to it: log_line < on_audio < main" }, findings[1].advice)
  end)

  it("knows the function itself", function()
    assert.equal(1, #example.summaries("never_allocates", program, { names = "boot" }))
  end)

  it("says nothing of functions that don't allocate, and nothing where it is given none", function()
    assert.same({}, example.summaries("never_allocates", program, { names = "on_signal,on" }))
    assert.same({}, example.summaries("never_allocates", program))
  end)
end)
