require("spec.support")
local columns_of = require("lupe.ffi").snapshot
local export = require("lupe.export")
local flamegraph = require("lupe.flamegraph")
local json = require("lupe.json")
local literal = require("lupe.view_literal")

local function snapshot(described)
  local address, size, owner = literal(described)
  return assert(columns_of(address, size)), owner
end

local function with_samples(samples)
  return snapshot({ profile = {
    from_ms = 0, to_ms = 60000, cpu_hz = 100, wall_hz = 20, threads = { { tid = 1, name = "main" } }, samples = samples,
  } })
end

local function exported(columns)
  local parts = {}
  assert(export.write(columns, { findings = {} }, function(text)
    parts[#parts + 1] = text
    return true
  end))
  return assert(json.decode(table.concat(parts)))
end

local function render(columns, type, format, base)
  return assert(flamegraph.render(columns, {
    type = type, format = format, title = "app", subtitle = "last 60 s", base = base,
  }))
end

local EPOLL_WAIT, READ, FUTEX, WAKE_ME = 232, 0, 202, 0

local CPU = {
  { stack = { "parse", "serve", "main" }, thread = 1, state = "user", ns = 3e9 },
  { stack = { "parse", "parse", "serve", "main" }, thread = 1, state = "kernel", ns = 1e9 },
  { stack = { "libc.so.6!read", "load", "main" }, thread = 1, state = "waiting", syscall = READ, ns = 2e9 },
  { stack = { "libc.so.6!epoll_wait", "serve", "main" }, thread = 1, state = "waiting", syscall = EPOLL_WAIT,
    ns = 9e9 },
  { stack = { "libc.so.6!pthread_mutex_lock", "serve", "main" }, thread = 1, state = "waiting", syscall = FUTEX,
    futex = WAKE_ME, ns = 5e9 },
}

describe("a flame graph", function()
  it("has tags outermost, below all that is done for them", function()
    local columns, owner = with_samples({
      { stack = { "parse", "main", "[tag]!cache", "[tag]!http" }, state = "user", ns = 3e9 },
    })
    assert.same("http;cache;main;parse 3000000\n", render(columns, "cpu", "folded"))
    assert.is_truthy(owner)
  end)

  it("is a line per stack for other tools, outermost first", function()
    local columns, owner = with_samples(CPU)
    assert.equal("main;serve;parse 3000000\nmain;serve;parse;parse 1000000\n", render(columns, "cpu", "folded"))
    assert.truthy(owner)
  end)

  it("of wall time has what waits for a file or a lock, and not what waits for work", function()
    local columns, owner = with_samples(CPU)
    assert.equal("main;load;read 2000000\nmain;serve;parse 3000000\nmain;serve;parse;parse 1000000\n"
      .. "main;serve;pthread_mutex_lock 5000000\n", render(columns, "wall", "folded"))
    assert.truthy(owner)
  end)

  it("of memory counts bytes", function()
    local columns, owner = snapshot({ sites = {
      {
        name = "open", history = { 4096 }, alloc_space = 8192,
        stacks = { { stack = { "malloc", "open", "main" }, inuse_space = 4096, alloc_space = 8192 } },
      },
    } })
    assert.equal("main;open;malloc 4096\n", render(columns, "heap", "folded"))
    assert.equal("main;open;malloc 8192\n", render(columns, "alloc", "folded"))
    assert.truthy(owner)
  end)

  it("is XML whatever bytes a name has", function()
    local columns, owner = with_samples({ { stack = { "a\1b\255<c>", "main" }, thread = 1, state = "user", ns = 1e6 } })
    local picture = render(columns, "cpu", "svg")
    assert.truthy(picture:find("a?b\239\191\189&lt;c&gt;: 1 ms", 1, true))
    assert.is_nil(picture:find("[%z\1-\8\11-\31]"))
    assert.truthy(owner)
  end)

  it("keeps a name's semicolons and line ends out of the lines", function()
    local columns, owner = with_samples({ { stack = { "a;b\nc", "main" }, thread = 1, state = "user", ns = 1e6 } })
    assert.equal("main;a:b:c 1000\n", render(columns, "cpu", "folded"))
    assert.truthy(owner)
  end)

  it("shows inlined calls between those that were made", function()
    local columns, owner = with_samples({ {
      stack = {
        { name = "work", module = "app", file = "a.c", line = 3, inlines = { { name = "inner" }, { name = "outer" } } },
        "main",
      }, thread = 1, state = "user", ns = 1e6,
    } })
    assert.equal("main;work;outer;inner 1000\n", render(columns, "cpu", "folded"))
    assert.truthy(owner)
  end)

  it("as a tree sums up what it shows", function()
    local columns, owner = with_samples(CPU)
    local tree = assert(json.decode(render(columns, "cpu", "json")))
    assert.equal(4e9, tree.value)
    local serve = tree.children[1].children[1]
    assert.same({ "serve", 4e9, 0 }, { serve.name, serve.value, serve.self })
    local parse = serve.children[1]
    assert.same({ "parse", 4e9, 3e9 }, { parse.name, parse.value, parse.self })
    assert.same({ "parse", 1e9, 1e9 }, { parse.children[1].name, parse.children[1].value, parse.children[1].self })
    local function check(node)
      local below = 0
      for _, child in ipairs(node.children) do below = below + check(child) end
      assert.equal(node.value, node.self + below)
      return node.value
    end
    check(tree)
    assert.truthy(owner)
  end)

  it("compared with a snapshot shows what grew, what shrank and what is gone", function()
    local before, first = with_samples({
      { stack = { "old", "main" }, thread = 1, state = "user", ns = 4e9 },
      { stack = { "both", "main" }, thread = 1, state = "user", ns = 1e9 },
    })
    local now, second = with_samples({
      { stack = { "both", "main" }, thread = 1, state = "user", ns = 3e9 },
      { stack = { "new", "main" }, thread = 1, state = "user", ns = 1e9 },
    })
    local tree = assert(json.decode(render(now, "cpu", "json", exported(before))))
    local main = tree.children[1]
    local found = {}
    for i, child in ipairs(main.children) do found[i] = { child.name, child.value, child.base } end
    assert.same({ { "both", 3e9, 1e9 }, { "new", 1e9, 0 }, { "old", 0, 4e9 } }, found)
    local picture = render(now, "cpu", "svg", exported(before))
    assert.truthy(picture:find("before 5 s; red grew, blue shrank", 1, true), picture:sub(1, 800))
    assert.truthy(first and second)
  end)

  it("refuses to be compared with something else", function()
    local columns, owner = with_samples(CPU)
    local text, message = flamegraph.render(columns, {
      type = "cpu", format = "svg", title = "app", subtitle = "", base = { format = "other" },
    })
    assert.is_nil(text)
    assert.equal("not a snapshot that lupe wrote", message)
    assert.truthy(owner)
  end)

  it("never lets a name become markup or script", function()
    local evil = "</script><script>alert('&\"')</script>"
    local columns, owner = with_samples({ { stack = { evil, "main" }, thread = 1, state = "user", ns = 1e9 } })
    for _, format in ipairs({ "svg", "html" }) do
      local text = assert(flamegraph.render(columns, { type = "cpu", format = format, title = evil, subtitle = evil }))
      assert.is_nil(text:find("<script>alert", 1, true), format)
    end
    local _, scripts = render(columns, "cpu", "html"):gsub("</script>", "")
    assert.equal(2, scripts)
    assert.truthy(owner)
  end)

  it("draws every frame inside of the one that called it", function()
    local before, first = with_samples({
      { stack = { "a", "b", "main" }, thread = 1, state = "user", ns = 7e9 },
      { stack = { "c", "main" }, thread = 1, state = "user", ns = 1e9 },
    })
    local now, second = with_samples({
      { stack = { "d", "b", "main" }, thread = 1, state = "user", ns = 6e9 },
      { stack = { "c", "main" }, thread = 1, state = "user", ns = 5e9 },
    })
    for _, base in ipairs({ false, exported(before) }) do
      local rows, picture = {}, render(now, "cpu", "svg", base or nil)
      for x, y, width in picture:gmatch('<rect x="([%d.]+)" y="(%d+)" width="([%d.]+)"') do
        rows[tonumber(y)] = rows[tonumber(y)] or {}
        table.insert(rows[tonumber(y)], { tonumber(x), tonumber(x) + tonumber(width) })
      end
      local ys = {}
      for y in pairs(rows) do ys[#ys + 1] = y end
      table.sort(ys, function(a, b) return a > b end)
      assert.is_true(#ys == 4, #ys)
      for i = 2, #ys do
        for _, box in ipairs(rows[ys[i]]) do
          local inside = false
          for _, below in ipairs(rows[ys[i - 1]]) do
            inside = inside or (box[1] >= below[1] - 0.01 and box[2] <= below[2] + 0.01)
          end
          assert.is_true(inside)
        end
      end
    end
    assert.truthy(first and second)
  end)

  it("leaves out what nobody could see, and says so", function()
    local samples = { { stack = { "big", "main" }, thread = 1, state = "user", ns = 1e12 } }
    for i = 1, 20 do
      samples[#samples + 1] = { stack = { "tiny" .. i, "main" }, thread = 1, state = "user", ns = 1e6 }
    end
    local columns, owner = with_samples(samples)
    local text = render(columns, "cpu", "svg")
    assert.is_nil(text:find("tiny", 1, true))
    assert.truthy(text:find("20 frames narrower than 0.03333 % of the whole left out", 1, true))
    assert.truthy(owner)
  end)
end)
