local support = require("spec.support")
local view_literal = require("lupe.view_literal")
local worker_process = require("spec.core.script.worker_process")

local function file(body, head)
  return ('%sreturn { api = 1, method = "GET", path = "/api/x/a", summary = "a", handler = function(req)\n%s\nend }\n')
    :format(head or "", body)
end

describe("the worker of users' routes", function()
  local worker, snapshots, tokens

  local function snapshot(fields)
    fields.sample_period_bytes = 4096
    local block, size = view_literal(fields)
    snapshots[#snapshots + 1] = worker_process.memfd(block, tonumber(size))
    local outcome, reply = worker:call({ op = "snapshot" }, snapshots[#snapshots])
    assert.same({ "replied", true, nil }, { outcome, reply.ok, reply.error })
  end

  --- A reply, and the body behind its line.
  local function call(request, deadline_ms)
    if request.op == "serve" then
      tokens = tokens + 1
      request.token = tokens
    end
    local answer = worker:wait(assert(worker:send(request, -1, deadline_ms or 60000)))
    if answer.outcome ~= "replied" then return { ok = false, kind = answer.outcome, error = answer.text } end
    local line, body = answer.text:match("^([^\n]*)\n?(.*)$")
    return support.json.decode(line), body
  end

  local function serve(body, request, head)
    return call({ op = "serve", path = "routes/a.lua", source = file(body, head), request = request or {} })
  end

  before_each(function()
    snapshots, tokens = {}, 0
    worker = worker_process.start()
  end)

  after_each(function()
    worker:stop()
    for _, fd in ipairs(snapshots) do require("ffi").C.close(fd) end
    support.cleanup()
  end)

  it("describes a file without taking it", function()
    local reply = call({ op = "try_route", path = "routes/a.lua", source = file("return 200") })
    assert.same({ "GET", "/api/x/a", "GET /api/x/a" }, { reply.route.method, reply.route.path, reply.route.id })
    assert.equal("no_route", call({ op = "serve", path = "routes/a.lua", request = {} }).kind)
    reply = call({ op = "try_route", path = "routes/a.lua", source = "return {\n api = = 1 }" })
    assert.equal("routes/a.lua:2: unexpected symbol near '='", reply.error)
  end)

  it("gives a handler its request, and its answer back, whatever the bytes", function()
    local reply, body = serve("return 201, { ['X-A'] = req.params.n }, req.body.text .. '\\n\\255\\0'",
      { params = { n = 5 }, body = { text = "x" } })
    assert.same({ true, 201, "5" }, { reply.ok, reply.status, reply.headers["X-A"] })
    assert.equal("x\n\255\0", body)
    reply, body = call({ op = "serve", path = "routes/a.lua", request = { params = { n = 6 }, body = { text = "y" } } })
    assert.same({ "6", "y\n\255\0" }, { reply.headers["X-A"], body })
  end)

  it("shows the newest snapshot, and says where there is none", function()
    local body = "local view, why = lupe.view()\nif not view then return 503, nil, why end\n"
      .. "return 200, nil, { name = view.heap:sites()().name }"
    local _, text = serve(body)
    assert.equal("no heap profile was taken yet", text)
    snapshot({ sites = { { name = "f", inuse_space = 5 } } })
    _, text = serve(body)
    assert.equal('{"name":"f"}\n', text)
  end)

  it("lets a handler wait for an analysis while others are served, its view still good", function()
    snapshot({ sites = { { name = "before", inuse_space = 5 } } })
    local reply = serve("local site = lupe.view().heap:sites()()\n"
      .. "local result, message = lupe.analyze { about = 'memory' }\n"
      .. "return 200, nil, { old = site.name, module = site.module, new = lupe.view().heap:sites()().name, "
      .. "status = result and result.status, message = message }")
    assert.same({ true, "memory" }, { reply.ok, reply.waits.about })
    for i = 1, 3 do snapshot({ sites = { { name = "after " .. i, inuse_space = 5 } } }) end
    local other = call({ op = "serve", path = "routes/b.lua", source = file("return 204"), request = {} })
    assert.equal(204, other.status)
    local waits = tokens - 1
    local done, body, _
    done, body = call({ op = "resume", token = waits, result = { status = "ok" } })
    assert.is_true(done.ok, done.error)
    local seen = support.json.decode(body)
    assert.same({ "before", "after 3", "ok" }, { seen.old, seen.new, seen.status })
    assert.equal("no_route", call({ op = "resume", token = waits }).kind)
    serve("local result, message = lupe.analyze()\nreturn 503, nil, message")
    _, body = call({ op = "resume", token = tokens, message = "no profile" })
    assert.equal("no profile", body)
  end)

  it("outlives handlers that keep every snapshot", function()
    local hoard = "kept[#kept + 1] = lupe.view()\nreturn 200, nil, { n = #kept }"
    for i = 1, 12 do
      snapshot({ sites = { { name = "f" .. i, inuse_space = 5 } } })
      local reply = call({ op = "serve", path = "routes/a.lua", request = {} })
      if reply.kind == "no_route" then reply = serve(hoard, nil, "local kept = {}\n") end
      assert.is_true(reply.ok, reply.error)
    end
    assert.equal(1, worker:starts())
  end)

  it("names file and line of what a handler does wrong", function()
    for message, body in pairs({
      ["routes/a.lua:2: attempt to index field 'x' (a nil value)"] = "return req.x.y",
      ["routes/a.lua:2: yields: only lupe.analyze may wait"] = "coroutine.yield(5)",
      ["routes/a.lua:2: lupe.analyze: call it in the handler itself, not in a coroutine of its own"] =
        "local f = coroutine.wrap(function() local r = lupe.analyze() return r end) local r = f() return r",
      ["routes/a.lua:2: attempt to yield across C-call boundary"] =
        "table.sort({ 1, 2 }, function() local r = lupe.analyze() return r end)",
      ["routes/a.lua:2: (error object is a table value)"] = "error({})",
      ["routes/a.lua: answer: field 'status': expected number, got nothing"] = "",
      ["routes/a.lua:2: lupe is read-only (field 'view')"] = "lupe.view = nil",
    }) do
      local reply = serve(body)
      assert.same({ "error", message }, { reply.kind, reply.error })
    end
    local reply = serve("local r = lupe.analyze { abuot = 1 } return r")
    assert.truthy(reply.error:find("^routes/a.lua:2: lupe.analyze: expected target"), reply.error)
    reply = call({ op = "try_route", path = "routes/a.lua", source = file("", "lupe.view()\n") })
    assert.equal("routes/a.lua:1: lupe.view: only while a request is handled", reply.error)
    reply = serve("for _ = 1, 9 do lupe.analyze() end")
    for _ = 1, 8 do reply = call({ op = "resume", token = tokens }) end
    assert.equal("routes/a.lua:2: lupe.analyze: more than 8 times in one request", reply.error)
  end)

  it("stops what runs away, before or after it waited", function()
    for _, body in ipairs({ "while true do end", "pcall(function() while true do end end) return 200",
      "lupe.analyze() while true do end" }) do
      local reply = serve(body)
      if reply.waits then reply = call({ op = "resume", token = tokens }) end
      assert.truthy(reply.kind == "deadline" or reply.kind == "instructions", reply.kind)
      local said = reply.error:match("^routes/a%.lua:2: (%a+ %a+) ")
      assert.truthy(said == "not done" or said == "more than", reply.error)
    end
    local reply = serve("local t = {} for i = 1, 1e9 do t[i] = { i } end")
    assert.truthy(reply.kind == "memory" or reply.kind == "deadline" or reply.kind == "instructions", reply.error)
    reply = call({ op = "serve", path = "routes/a.lua", request = {},
      source = file('return 200, nil, ("a"):rep(30000):find((".-"):rep(8) .. "b")') }, 500)
    assert.equal("deadline", reply.kind)
    assert.equal("no_route", call({ op = "serve", path = "routes/a.lua", request = {} }).kind)
  end)

  it("counts a handler's CPU time, not that in which the machine gave it none", function()
    tokens = tokens + 1
    local id = worker:send({ op = "serve", path = "routes/a.lua", request = {}, token = tokens,
      source = file("for i = 1, 2e7 do local _ = i end lupe.analyze() for i = 1, 3e6 do local _ = i end return 200") },
      -1, 60000)
    local function signal(name) os.execute(("kill -%s %d"):format(name, worker:pid())) end
    local began = support.now()
    support.eventually(function() -- it is sent, and at work
      worker:turn()
      return support.now() - began > 0.05
    end)
    signal("STOP")
    support.sleep(0.7)
    signal("CONT")
    local reply = support.json.decode(worker:wait(id).text:match("^[^\n]*"))
    assert.is_truthy(reply.waits, reply.error)
    reply = call({ op = "resume", token = tokens })
    assert.same({ 200, nil }, { reply.status, reply.error })
  end)

  it("keeps a bounded number of handlers waiting", function()
    local reply
    for _ = 1, 65 do reply = serve("lupe.analyze()") end
    assert.same({ "system", "more than 64 handlers wait for an analysis" }, { reply.kind, reply.error })
  end)
end)
