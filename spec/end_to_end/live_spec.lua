--- A running lupe whose rules and routes are edited on disk.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

local RULE = [[
return { api = 1, id = "spec.live", kind = "pattern", title = "live", version = %q,
  check = function(view) return { { summary = "version %s of " .. #view.targets } } end }
]]

local ROUTE = [[
return { api = 1, method = "GET", path = "/api/x/spec/{what}", summary = "for a spec",
  params = { { name = "n", type = "integer", default = 1, min = 1, max = 9 } },
  handler = function(req)
    %s
    local view = lupe.view()
    return 200, nil, { version = %q,
      what = req.named.what, n = req.params.n, sites = view and view.heap.profiles or 0 }
  end }
]]

describe("rules and routes of a running lupe", function()
  local run, rules, routes

  --- As an editor saves: a new file takes the old one's name.
  local function replace(path, text)
    support.write_file(path .. ".tmp", text)
    assert(os.rename(path .. ".tmp", path))
  end

  local function rule_entry()
    for _, entry in ipairs(run:get("/api/rules").rules) do
      if entry.id == "spec.live" then return entry end
    end
    return {}
  end

  local function await_rule(check, what)
    return support.eventually(function()
      local entry = rule_entry()
      return check(entry) and entry
    end, 10, what)
  end

  local function await_version(version)
    return await_rule(function(entry) return entry.version == version end, "version " .. version)
  end

  setup(function()
    local base = support.temp_dir()
    rules, routes = base .. "/rules", base .. "/routes"
    os.execute(("mkdir %s %s"):format(rules, routes))
    for name, body in pairs({
      good = ROUTE:format("", "1"),
      error = ROUTE:gsub("spec/{what}", "spec/error"):format("local x = req.params.none.such", "1"),
      loop = ROUTE:gsub("spec/{what}", "spec/loop"):format("while true do end", "1"),
      large = ROUTE:gsub("spec/{what}", "spec/large"):format("do return 200, nil, string.rep('x', 4e6) end", "1"),
    }) do
      support.write_file(("%s/%s.lua"):format(routes, name), body)
    end
    os.execute(("cp %s/examples/routes/top_growers.lua %s"):format(support.root, routes))
    run = lupe_run.start({ support.built("examples/leaky_server"), "--self-drive", 120 },
      { flags = { "--heap-interval", "0.2", "--sample-bytes", "64K", "--rules", rules, "--routes", routes } })
    run:await("/api/profiling/allocations", function(a) return #a.top_allocators > 0 end)
    run:await("/api/routes", function(list) return #list.routes == 5 and list.routes[5].state == "active" end)
  end)
  teardown(support.cleanup)

  it("are watched without being told of each write beside their folders", function()
    local inode = support.run({ "stat", "-c", "%i", (rules:gsub("/[^/]*$", "")) }).out
    local kept = ("ino:%x "):format(tonumber(inode))
    local masks = support.eventually(function() -- they are looked at a second after the start
      local found = {}
      local all = support.run({ "sh", "-c", ("cat /proc/%d/fdinfo/*"):format(run.process.pid) }).out
      for line in all:gmatch("[^\n]+") do
        if line:find(kept, 1, true) then found[#found + 1] = tonumber(line:match("mask:(%x+)"), 16) end
      end
      return found[1] and found
    end, 10, "a watch of the folder above")
    assert.equal(1, #masks) -- for both folders
    assert.equal(0, bit.band(masks[1], 0x2 + 0x4)) -- IN_MODIFY, IN_ATTRIB
  end)

  it("takes a new rule, an edit and a rename within moments", function()
    support.write_file(rules .. "/a.lua", RULE:format("1", "1"))
    await_version("1")
    replace(rules .. "/a.lua", RULE:format("2", "2"))
    await_version("2")
    os.rename(rules .. "/a.lua", rules .. "/b.lua")
    await_rule(function(entry) return entry.path == rules .. "/b.lua" end, "the new name")
    support.eventually(function()
      local patterns = run:post("/api/profiling/leak-detection").suspicious_patterns
      return table.concat(patterns, " "):find("version 2 of 1", 1, true)
    end, 20, "its finding")
  end)

  it("keeps the last good version of a rule that is half written, or fails when it is tried", function()
    for text, message in pairs({
      [RULE:format("3", "3"):sub(1, 60)] = "b.lua:1: '}' expected near '<eof>'",
      [""] = "b.lua: expected the file to return a table, got nothing",
      [RULE:format("3", "3"):gsub("#view.targets", "view.nothing.such")] = "b.lua:2: attempt to index field 'nothing'",
      [RULE:format("3", "3"):gsub("return { {", "while true do end return { {")] = "b.lua:2: ",
      [RULE:format("3", "3"):gsub("summary =", "sumary =")] = "b.lua: finding 1: unknown field 'sumary'",
    }) do
      support.write_file(rules .. "/b.lua", text)
      local entry = await_rule(function(e) return e.error ~= support.json.null and e.error:find(message) end, message)
      assert.same({ "2", "active" }, { entry.version, entry.state })
      assert.truthy(entry.error:find("(kept: the last good version, of ", 1, true))
    end
    local answer = run:post("/api/rules/reload")
    assert.is_false(answer.changed)
    support.write_file(rules .. "/b.lua", RULE:format("4", "4"))
    answer = run:post("/api/rules/reload")
    for _, file in ipairs(answer.files) do
      if file.path == rules .. "/b.lua" then assert.truthy(file.result == "loaded" or file.result == "unchanged") end
    end
    assert.same({ "4", support.json.null }, { rule_entry().version, rule_entry().error })
  end)

  it("answers on time through a hundred edits a second, and ends with the last of them", function()
    local slowest = 0
    for i = 1, 100 do
      local began = support.now()
      local text = RULE:format("storm " .. i, i)
      if i % 3 == 0 then
        replace(rules .. "/b.lua", text)
      else
        support.write_file(rules .. "/b.lua", text)
      end
      if i % 10 == 0 then
        local asked = support.now()
        run:get("/healthz")
        slowest = math.max(slowest, support.now() - asked)
      end
      local rest = 0.01 - (support.now() - began)
      if rest > 0 then support.sleep(rest) end
    end
    await_version("storm 100")
    assert.is_true(slowest < 2, slowest)
  end)

  it("gives up a rule whose file is gone, and follows its directory", function()
    os.remove(rules .. "/b.lua")
    await_rule(function(entry) return not entry.id end, "the rule to be gone")
    os.execute("rm -r " .. rules)
    os.execute(("mkdir %s.new && mv %s.new %s"):format(rules, rules, rules))
    support.write_file(rules .. "/c.lua", RULE:format("again", "again"))
    await_version("again")
    os.execute(("mv %s %s.v1 && ln -s %s.v1 %s"):format(rules, rules, rules, rules))
    os.execute(("mkdir %s.v2"):format(rules))
    support.write_file(rules .. ".v2/c.lua", RULE:format("linked", "linked"))
    await_version("again")
    os.execute(("ln -s %s.v2 %s.next && mv -T %s.next %s"):format(rules, rules, rules, rules))
    await_version("linked")
  end)

  it("serves users' routes, and takes their edits", function()
    local answer = run:get("/api/x/spec/one?n=4")
    assert.same({ "1", "one", 4 }, { answer.version, answer.what, answer.n })
    assert.is_true(answer.sites > 0)
    run:get("/api/x/spec/one?n=44", nil, 400)
    replace(routes .. "/good.lua", ROUTE:format("", "2"))
    support.eventually(function() return run:get("/api/x/spec/one").version == "2" end, 10, "the new route")
    support.write_file(routes .. "/good.lua", "return {")
    assert.equal("error", run:post("/api/routes/reload").files[2].error and "error")
    assert.equal("2", run:get("/api/x/spec/one").version)
    assert.equal(4e6, #support.http(run.port, "/api/x/spec/large").body)
  end)

  it("gives a route what the analysis finds", function()
    support.eventually(function()
      local answer = run:get("/api/x/top-growers?limit=2")
      if answer.growers == support.json.null then error(support.json.encode(answer)) end
      local top = answer.growers[1]
      return #answer.growers <= 2 and top and top.name == "remember_session" and top.mib_per_hour > 0
    end, 30, "the leak to be the fastest grower")
    local answer = assert(support.http(run.port, "/api/x/top-growers?format=csv"))
    assert.equal("text/csv; charset=utf-8", answer.headers["content-type"])
    assert.truthy(answer.body:find("^name,module,mib_per_hour,live_mib,verdict\n[%w_]+,leaky_server,"), answer.body)
  end)

  it("stays on time while a route fails, loops or waits, and says in words what it did", function()
    local problem = run:get("/api/x/spec/error", nil, 500)
    assert.equal("urn:lupe:problem:route-error", problem.type)
    local line = run.process:stderr():match("[^\n]*" .. problem.detail:match("(%S+)$"):gsub("%-", "%%-") .. "[^\n]*")
    assert.truthy(line:find("error.lua:4: attempt to index field 'none'", 1, true), line)
    for _ = 1, 3 do run:get("/api/x/spec/loop", nil, 504) end
    assert.equal("urn:lupe:problem:route-quarantined", run:get("/api/x/spec/loop", nil, 503).type)
    assert.equal("2", run:get("/api/x/spec/one").version)
    local states = {}
    for i, one in ipairs(run:get("/api/routes").routes) do states[i] = one.state end
    assert.same({ "active", "active", "active", "quarantined", "active" }, states)
  end)
end)
