--- Sites put together otherwise than by function, and narrowed to what lies below a function.
require("spec.support")
local view = require("lupe.view")

local MIB = 2 ^ 20
local TICKS = 10

local function line(per_tick)
  local list = {}
  for i = 1, TICKS do list[i] = i * per_tick end
  return list
end

--- Two libraries and the program; `parse` works for two tenants, `store` and `index` for one, `boot` for none.
local function heap()
  return view.from_table({
    sample_period_bytes = 65536,
    sites = {
      {
        name = "parse", history = line(4 * MIB), alloc_space = 80 * MIB, stacks = {
          { stack = { "malloc", "parse", "[tag]!acme", "serve", "main" }, inuse_space = 30 * MIB, inuse_objects = 30 },
          { stack = { "malloc", "parse", "[tag]!globex", "serve", "main" }, inuse_space = 10 * MIB, inuse_objects = 9 },
        },
      },
      {
        name = "store", history = line(2 * MIB), module = "/usr/lib/libdb.so", first_seen_ms = 3000,
        stack = { "store", "commit", "[tag]!inner", "[tag]!outer", "main" },
      },
      {
        name = "index", history = line(MIB), module = "/usr/lib/libdb.so", first_seen_ms = 2000,
        stack = { "index", "commit", "[tag]!inner", "main" },
      },
      { name = "boot", history = { 5 * MIB, 5 * MIB, 5 * MIB }, stack = { "boot", "main" } },
    },
    profile = { samples = { { stack = { "spin", "[tag]!acme", "serve", "main" } } } }, -- no part of the heap
  }).heap
end

local function figures(options)
  local list = {}
  for site in heap():sites(options) do list[#list + 1] = ("%s %g"):format(site.name, site.inuse_space / MIB) end
  return list
end

local function one(options, name)
  for site in heap():sites(options) do
    if site.name == name then return site end
  end
  error("no " .. name)
end

describe("sites in groups", function()
  it("are functions where nothing else is asked for", function()
    assert.same({ "parse 40", "store 20", "index 10", "boot 5" }, figures({ by = "inuse_space" }))
    assert.same(figures({ by = "inuse_space" }), figures({ by = "inuse_space", group = "function" }))
    assert.equal("function", one({}, "parse").group)
  end)

  it("are tags, where stacks are counted for them, followed by who allocates there", function()
    local given = view.from_table({ sites = {
      {
        name = "html::cache", module = "[tag]", history = line(MIB), stacks = {
          {
            stack = {
              { name = "fill", module = "app", file = "cache.c", line = 12 }, "app!serve", "app!main", "html::cache",
              "http",
            },
            inuse_space = 6 * MIB,
          },
          { stack = { "app!load", "app!main", "html::cache" }, inuse_space = 4 * MIB },
        },
      },
      { name = "boot", history = line(MIB), stack = { "boot", "main" } },
    } }).heap
    local found = {}
    for site in given:sites({ by = "inuse_space" }) do found[#found + 1] = site end
    local cache = found[1].name == "boot" and found[2] or found[1]
    assert.same({ "html::cache", "[tag]", "html::cache" }, { cache.name, cache.module, cache.tag })
    assert.same({ "html::cache", "fill", "serve", "main" }, cache.stack)
    assert.same({ "cache.c", 12 }, { cache.file, cache.line })
    assert.same({ "html::cache", "load", "main" }, cache.stacks[2].stack)
    for site in given:sites({ group = "tag" }) do assert.equal(10 * MIB, site.inuse_space) end
  end)

  it("are single stacks", function()
    assert.same({ "parse 30", "store 20" }, figures({ group = "stack", by = "inuse_space", limit = 2 }))
    local stack
    for site in heap():sites({ group = "stack", by = "inuse_space", limit = 1 }) do stack = site end
    assert.same({ "parse", "serve", "main" }, stack.stack)
    assert.same({ "stack", "acme", 30, 1 }, { stack.group, stack.tag, stack.inuse_objects, #stack.stacks })
  end)

  it("are modules, by the function that allocates", function()
    assert.same({ "app 45", "libdb.so 30" }, figures({ group = "module", by = "inuse_space" }))
    local db = one({ group = "module" }, "libdb.so")
    assert.same({ "module", "libdb.so", "/usr/lib/libdb.so" }, { db.group, db.module, db.module_path })
    assert.same({ 30 / 75, math.sqrt(65536 * 30 * MIB) }, { db.share, db.sampling_error_bytes })
    assert.same({ "store", "commit", "main" }, db.stack)
  end)

  it("are tags, the one nearest to the allocation of several", function()
    assert.same({ "acme 30", "inner 30", "globex 10" }, figures({ group = "tag", by = "inuse_space" }))
    local inner = one({ group = "tag" }, "inner")
    assert.same({ "tag", "[tag]", "inner" }, { inner.group, inner.module, inner.tag })
  end)

  it("are none by tag where the program set none", function()
    local untagged = view.from_table({ sites = { { name = "a", history = { 5 } } } }).heap
    assert.is_nil(untagged:sites({ group = "tag" })())
    assert.is_nil(untagged:sites({}) ().tag)
  end)

  it("have the sum of their functions' histories, and its trend", function()
    local db = one({ group = "module" }, "libdb.so")
    local times, values = db:history("inuse_space")
    assert.same({ 1000, 3 * MIB, 30 * MIB }, { times[1], values[1], values[TICKS] })
    assert.equal(3 * 3600, db:trend("inuse_space").slope)
    assert.equal(3 * 3600, one({ group = "tag" }, "inner"):trend("inuse_space").slope)
    assert.same({ 2000, 10000 }, { db.first_seen_ms, db.last_grown_ms })
  end)

  it("have no history where one of their functions allocates for another too, and name it", function()
    local reason = "the history is kept per function, and parse allocates elsewhere too"
    local acme = one({ group = "tag" }, "acme")
    assert.same({ nil, reason }, { acme:trend("inuse_space") })
    assert.same({ nil, reason }, { acme:history("inuse_space") })
    assert.same({}, { acme.first_seen_ms, acme.last_grown_ms })
    for site in heap():sites({ group = "stack", by = "inuse_space", limit = 1 }) do
      assert.same({ nil, reason }, { site:trend("inuse_space") })
    end
    assert.equal(2 * 3600, one({ group = "stack" }, "store"):trend("inuse_space").slope) -- its function's only stack
  end)

  it("are ordered by growth, without those whose growth is not known", function()
    assert.same({ "app 45", "libdb.so 30" }, figures({ group = "module", by = "growth" }))
    assert.same({ "inner 30" }, figures({ group = "tag", by = "growth" }))
    assert.same({ "inner 30" }, figures({ group = "tag", min_growth = 3 * 3600 - 1 }))
    assert.same({}, figures({ group = "tag", min_growth = 3 * 3600 + 1 }))
  end)

  it("count only what a function is part of, where asked", function()
    assert.same({ "store 20", "index 10" }, figures({ through = "commit", by = "inuse_space" }))
    assert.same({ "parse 30" }, figures({ through = "acme", by = "inuse_space" }))
    assert.same({ "app 40" }, figures({ through = "serve", group = "module" }))
    assert.same({}, figures({ through = "nobody" }))
    local part = one({ through = "acme" }, "parse")
    assert.same({ "acme", 30 * MIB, 1 }, { part.tag, part.inuse_space, #part.stacks })
    assert.matches("parse allocates elsewhere too", select(2, part:trend("inuse_space")))
    assert.equal(4 * 3600, one({ through = "serve" }, "parse"):trend("inuse_space").slope)
  end)

  it("refuse options of another kind, and words that they don't know", function()
    local function refused(options)
      local ok, message = pcall(heap().sites, nil, options)
      assert.is_false(ok)
      return message
    end
    assert.equal("sites: option 'group': no 'stac', did you mean 'stack'?; known: function, stack, module, tag",
      refused({ group = "stac" }))
    assert.equal("sites: option 'limit': expected a number, got string", refused({ limit = "3" }))
    assert.equal("sites: option 'min_growth': expected a number, got NaN", refused({ min_growth = 0 / 0 }))
    assert.equal("sites: option 'through': expected a string, got function", refused({ through = print }))
    assert.equal("sites: expected a table of options, got string", refused("inuse_space"))
    assert.equal("sites: unknown option 'grup', did you mean 'group'?; "
      .. "known: by, group, limit, min_growth, min_inuse_space, through", refused({ grup = "tag" }))
  end)
end)
