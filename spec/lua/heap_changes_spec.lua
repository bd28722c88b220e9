--- Two snapshots compared.
require("spec.support")
local view = require("lupe.view")

local MIB = 2 ^ 20
local TAGGED = { "grown", "[tag]!acme", "main" }

local function compared()
  return view.from_table({
    sample_period_bytes = 65536,
    sites = {
      { name = "init", module = "a.so", inuse_space = 3 * MIB, inuse_objects = 3 },
      { name = "init", module = "a.so", inuse_space = 4 * MIB, inuse_objects = 1 }, -- another static one
      { name = "init", module = "b.so", inuse_space = MIB },
      { name = "same", inuse_space = MIB },
      { name = "grown", module = "/new/app", inuse_space = 100 * MIB, inuse_objects = 10, stack = TAGGED },
      { name = "new", inuse_space = 2 * MIB },
      { name = "empty" },
    },
    base = {
      sample_period_bytes = 131072,
      sites = {
        { name = "empty" },
        { name = "gone", inuse_space = 8 * MIB },
        { name = "grown", module = "/old/app", inuse_space = 50 * MIB, inuse_objects = 60, stack = TAGGED },
        { name = "same", inuse_space = MIB },
        { name = "init", module = "a.so", inuse_space = 6 * MIB, inuse_objects = 9 },
        { name = "init", module = "b.so", inuse_space = 2 * MIB },
      },
    },
  })
end

local function list(options)
  local found = {}
  for c in compared().heap:changes(options) do
    found[#found + 1] = ("%s %s %g"):format(c.name, c.module, c.change / MIB)
  end
  return found
end

describe("what changed since the base", function()
  it("comes with most growth first and what shrank last, matched by name and module", function()
    assert.same({ "grown app 50", "new app 2", "init a.so 1", "init b.so -1", "gone app -8" }, list())
    assert.same({ "grown app 50", "new app 2" }, list({ limit = 2 }))
    assert.same({ "grown app 50", "gone app -8" }, list({ min_change = 4 * MIB }))
    assert.equal("grown app 50", list({ by = "inuse_objects" })[3]) -- 50 objects fewer
  end)

  it("has the figures of both sides, and the sampling error of the difference", function()
    local grown = compared().heap:changes({ limit = 1 })()
    assert.same({ 100 * MIB, 50 * MIB, 50 * MIB }, { grown.inuse_space, grown.base_inuse_space, grown.change })
    assert.equal(math.sqrt(65536 * 100 * MIB + 131072 * 50 * MIB), grown.error_bytes)
    assert.same({ true, false, false }, { grown.significant, grown.appeared, grown.gone })
    assert.same({ "grown", "/new/app", "/old/app" },
      { grown.site.name, grown.site.module_path, grown.base_site.module_path })
  end)

  it("says what appeared, what is gone, and what sampling alone may have done", function()
    local by_name = {}
    for c in compared().heap:changes() do by_name[c.name .. c.module] = c end
    local new, gone, doubtful = by_name.newapp, by_name.goneapp, by_name["inita.so"]
    assert.same({ true, false }, { new.appeared, new.gone })
    assert.is_nil(new.base_site)
    assert.same({ false, true }, { gone.appeared, gone.gone })
    assert.is_nil(gone.site)
    assert.is_false(doubtful.significant)
    assert.same({ 4, 9, -5 }, { doubtful.inuse_objects, doubtful.base_inuse_objects, doubtful.change_objects })
  end)

  it("is told by module and by tag too", function()
    assert.same({ "acme [tag] 50" }, list({ group = "tag" }))
    assert.same({ "app app 44", "a.so a.so 1", "b.so b.so -1" }, list({ group = "module" }))
  end)

  it("is nothing where there is no base, and the view says why", function()
    local alone = view.from_table({ sites = { { name = "a", inuse_space = 5 } }, base_reason = "no recording" })
    assert.is_nil(alone.heap:changes({})())
    assert.is_nil(alone.base)
    assert.equal("no recording", alone.base_reason)
    assert.equal("there is no other snapshot to compare with", view.from_table({}).base_reason)
    assert.is_nil(compared().base_reason)
    assert.equal(6, compared().base.heap.site_count)
  end)

  it("stays with the view, whatever else is changed", function()
    local other = compared():with({ findings = {} })
    assert.equal("grown", other.heap:changes({ limit = 1 })().name)
    assert.is_truthy(other.base)
  end)

  it("refuses single stacks, which no two runs share", function()
    local ok, message = pcall(list, { group = "stack" })
    assert.is_false(ok)
    assert.matches("changes: option 'group': no 'stack'; known: function, module, tag", message, 1, true)
  end)
end)
