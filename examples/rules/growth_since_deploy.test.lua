-- Cases for growth_since_deploy.lua: lupe rules test examples/rules/growth_since_deploy.lua
local MIB = 2 ^ 20

local function holding(sessions, cache)
  return {
    sample_period_bytes = 65536,
    sites = { { name = "session", inuse_space = sessions * MIB }, { name = "cache", inuse_space = cache * MIB } },
  }
end

return {
  {
    name = "tells what holds more than before the deploy",
    view = holding(60, 101), base = holding(40, 100),
    expect = { { component = "session", severity = "medium", summary = "20.0 MiB more than before the deploy" } },
  },
  { name = "is quiet where nothing does", view = holding(40, 100), base = holding(40, 100), expect = {} },
  { name = "is quiet about what holds less", view = holding(20, 50), base = holding(40, 100), expect = {} },
}
