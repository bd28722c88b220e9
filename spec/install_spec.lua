--- `cmake --install` into a folder of its own: what is installed needs nothing of the sources or the build.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

describe("an installed lupe", function()
  local prefix

  setup(function()
    prefix = support.temp_dir()
    local installed = support.run({ "cmake", "--install", support.build_dir, "--prefix", prefix }, { seconds = 60 })
    assert.equal(0, installed.code, installed.err)
  end)
  teardown(support.cleanup)

  it("finds its Lua, rules and agent, and reports on a program", function()
    local empty = support.temp_dir()
    local report = empty .. "/report.json"
    local done = support.run({ prefix .. "/bin/lupe", "run", "--listen", "127.0.0.1:" .. support.free_port(),
      "--sample-bytes", "16K", "--heap-interval", "0.2", "--report", "json", "--output", report, "--",
      support.built("examples/leaky_server"), "--self-drive", 4 },
      { cwd = empty, env = { HOME = empty, LUPE_STATE_DIR = false } })
    assert.equal(0, done.code, done.err)
    assert.matches("requests answered", done.out)
    local told = support.json.decode(support.read_file(report))
    assert.equal("on", told.targets[1].heap_state)
    assert.same({}, told.rule_errors)
    local names = {}
    for _, site in ipairs(told.allocators) do names[site.name] = true end
    assert.truthy(names.remember_session or names.cache_page or names.grow_pool)
  end)

  it("takes nothing from the sources or the build", function()
    local program = { "sh", "-c", "cat /proc/self/maps; echo over; sleep 60" }
    local run = lupe_run.start(program, { lupe = prefix .. "/bin/lupe" })
    run:await("/readyz")
    support.eventually(function() return run.process:stdout():match("over\n$") end, 10, "the program's mappings")
    local rules = run:get("/api/rules").rules
    assert.is_true(#rules > 5)
    for _, rule in ipairs(rules) do assert.equal(1, rule.path:find(prefix, 1, true), rule.path) end
    assert.is_truthy(run.process:stdout():find(prefix .. "/lib", 1, true)) -- the agent
    assert.is_nil(run.process:stdout():find(support.root, 1, true))
    run:finish(15)
  end)

  it("has examples that are built by the commands of docs/embedding.md", function()
    local doc = prefix .. "/share/doc/lupe"
    local page = assert(support.read_file(doc .. "/docs/embedding.md"))
    local libraries = support.run({ "sh", "-c", "echo " .. prefix .. "/lib/*/lupe" }).out:match("^(.-)/lupe\n$")
    local env = { PKG_CONFIG_PATH = libraries .. "/pkgconfig", LD_LIBRARY_PATH = libraries }
    local count = 0
    for command in page:gmatch("\n%$ (c[c+]+ %-O2 %-g [^\n]*)") do
      local done = support.run({ "sh", "-c", command }, { cwd = doc, env = env, seconds = 60 })
      assert.same({ 0, "" }, { done.code, done.err }, command)
      count = count + 1
    end
    assert.equal(4, count)
    env.LUPE_LISTEN, env.LUPE_SOCKET, env.LUPE_CONFIG = "127.0.0.1:0", false, false
    local ran = support.run({ "./own_rules" }, { cwd = doc, env = env, seconds = 60 })
    assert.equal(0, ran.code, ran.err)
    assert.matches("\n200 {", ran.out)
  end)

  it("tells its version and its help", function()
    assert.matches("^lupe %d+%.%d+%.%d+\n$", support.run({ prefix .. "/bin/lupe", "--version" }).out)
    assert.matches("Usage: lupe run", support.run({ prefix .. "/bin/lupe", "--help" }).out)
  end)
end)
