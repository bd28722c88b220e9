-- Cases for one_holder.lua: lupe rules test examples/rules/one_holder.lua
local MIB = 2 ^ 20
local program = {
  sites = { { name = "cache", history = { 6 * MIB } }, { name = "parse", history = { 4 * MIB } } },
}

return {
  {
    name = "names the function that holds most",
    view = program,
    expect = { { component = "cache", summary = "holds 60 %% of the heap" } },
  },
  { name = "is quiet below its share", view = program, params = { share = 0.7 }, expect = {} },
  { name = "is quiet before the first profile", view = {}, expect = {} },
}
