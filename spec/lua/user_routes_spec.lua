local fake = require("spec.fake_host")
local json = require("lupe.json")
local route = require("lupe.route")
local sandbox = require("lupe.sandbox")
local support = require("spec.support")

describe("users' routes", function()
  local folder, host, server, answers, calls
  local trial_failure -- of the next file that is tried

  local function write(name, method, path, extra)
    return support.write_file(("%s/%s.lua"):format(folder, name),
      ("return { api = 1, method = %q, path = %q, summary = %q, handler = function() end %s }"):format(method, path,
        name, extra or ""))
  end

  --- The worker process: files are described as it would, requests answered by what the spec has put into `answers`.
  local function worker(text, _, _, callback)
    local request = json.decode(text)
    calls[#calls + 1] = request
    if request.op == "try_route" and trial_failure then
      local failure = trial_failure
      trial_failure = nil
      return callback(failure)
    elseif request.op == "try_route" then
      local loaded, message = route.load(request.path, request.source, sandbox.new(function() end))
      local reply = loaded and { ok = true, route = {
        id = loaded.id, method = loaded.method, path = loaded.path, summary = loaded.summary, params = loaded.params,
        response = loaded.response,
      } } or { ok = false, kind = "error", error = message }
      return callback(nil, json.encode(reply))
    end
    local answer = table.remove(answers, 1) or { ok = true, status = 200, headers = {}, elapsed_us = 100 }
    if answer.failure then return callback(answer.failure) end
    callback(nil, json.encode(answer) .. "\n" .. (request.op == "serve" and request.path:match("[^/]*$") or "resumed"))
  end

  local function start(given)
    host = fake.new(given)
    host.config.routes, host.routes_worker = folder, worker
    server = require("lupe.server").new(host)
    server.host = host
  end

  local function get(path, extra) return fake.request(server, "GET", path, extra) end

  local function listed()
    local states = {}
    for i, one in ipairs(get("/api/routes").json.routes) do states[i] = one.state end
    return states
  end

  before_each(function() folder, answers, calls = support.temp_dir(), {}, {} end)
  after_each(support.cleanup)

  it("are served beside lupe's own, with their parameters checked", function()
    write("a", "GET", "/api/x/{who}", ", params = { { name = 'n', type = 'integer', default = 3 } }")
    start()
    assert.equal("a.lua", get("/api/x/you?n=7", { headers = { host = "127.0.0.1:7077", authorization = "Bearer s",
      accept = "x" } }).body)
    local request = calls[#calls].request
    assert.same({ 7, "you", "/api/x/you", "n=7" }, { request.params.n, request.named.who, request.path, request.query })
    assert.same({ host = "127.0.0.1:7077", accept = "x" }, request.headers)
    assert.equal(400, get("/api/x/you?n=x").status)
    assert.equal(403, get("/api/x/you", { headers = { host = "elsewhere" } }).status)
    assert.equal(405, fake.request(server, "POST", "/api/x/you").status)
    assert.equal(404, get("/api/y").status)
  end)

  it("are given the body as it is, or what its JSON says", function()
    write("a", "POST", "/api/x/a")
    start()
    local function post(kind, body)
      local answer = fake.request(server, "POST", "/api/x/a",
        { headers = { host = "127.0.0.1:7077", ["content-type"] = kind }, body = body })
      return answer.status, calls[#calls].request.body
    end
    assert.same({ 200, { a = { 1 } } }, { post("application/json", '{"a":[1]}') })
    assert.same({ 200, "a,b" }, { post("text/csv", "a,b") })
    assert.equal(400, (post("application/json", "{")))
  end)

  it("never take the place of lupe's own, in whole or in part", function()
    write("a", "POST", "/api/rules")
    write("b", "GET", "/api/profiling/{what}")
    write("c", "GET", "/{anything}")
    start()
    assert.same({ "broken", "broken", "broken" }, listed())
    local list = get("/api/routes").json.routes
    assert.equal(folder .. "/a.lua: field 'path': '/api/rules' is lupe's own (GET /api/rules): choose another, such as "
      .. "'/api/x/...'", list[1].error)
    assert.truthy(list[2].error:find("(GET /api/profiling/memory)", 1, true))
    assert.equal(200, get("/api/profiling/memory").status)
  end)

  it("are refused where another one could not be told from them", function()
    write("a", "GET", "/api/x/{name}")
    write("b", "POST", "/api/x/{name}")
    write("c", "GET", "/api/x/{other}")
    write("d", "GET", "/api/x/exact")
    write("e", "GET", "/api/x/{name}")
    start()
    assert.same({ "active", "active", "refused", "active", "refused" }, listed())
    assert.equal(folder .. "/c.lua: field 'path': GET /api/x/{other} cannot be told from GET /api/x/{name} of "
      .. folder .. "/a.lua", get("/api/routes").json.routes[3].error)
    assert.equal("d.lua", get("/api/x/exact").body)
    assert.equal("a.lua", get("/api/x/another").body)
    os.remove(folder .. "/a.lua")
    fake.request(server, "POST", "/api/routes/reload")
    assert.equal("e.lua", get("/api/x/another").body)
  end)

  it("move with their file: no other is in the way of one that is renamed", function()
    write("a", "GET", "/api/x/a")
    start()
    for _, names in ipairs({ { "a.lua", "b.lua" }, { "b.lua", "a.lua" } }) do
      assert(os.rename(folder .. "/" .. names[1], folder .. "/" .. names[2]))
      local logged = #host.logged
      server.app.user_routes.live:stir()
      assert.equal(names[2], get("/api/x/a").body)
      fake.request(server, "POST", "/api/routes/reload")
      assert.same({ "active" }, listed())
      assert.equal(logged, #host.logged)
    end
  end)

  it("keep the last good version, and tell what became of each file", function()
    write("a", "GET", "/api/x/a")
    start()
    support.write_file(folder .. "/a.lua", "return {")
    local answer = fake.request(server, "POST", "/api/routes/reload").json
    assert.same({ false, "kept" }, { answer.changed, answer.files[1].result })
    assert.truthy(answer.routes[1].error:find("a.lua:1: .* %(kept: the last good version, of "))
    assert.equal(200, get("/api/x/a").status)
    write("a", "GET", "/api/x/b")
    assert.is_true(fake.request(server, "POST", "/api/routes/reload").json.changed)
    assert.equal(404, get("/api/x/a").status)
    assert.equal(200, get("/api/x/b").status)
    os.remove(folder .. "/a.lua")
    assert.equal("gone", fake.request(server, "POST", "/api/routes/reload").json.files[1].result)
    assert.equal(404, get("/api/x/b").status)
  end)

  it("send a file to the worker once, and again where it is another process", function()
    write("a", "GET", "/api/x/a")
    start()
    for _ = 1, 2 do get("/api/x/a") end
    assert.is_string(calls[#calls - 1].source)
    assert.is_nil(calls[#calls].source)
    answers = { { ok = false, kind = "no_route", error = "not there" } }
    assert.equal(200, get("/api/x/a").status)
    assert.is_string(calls[#calls].source)
  end)

  it("send a snapshot once, before the request that may look at it", function()
    write("a", "GET", "/api/x/a")
    start({ heap = { sites = { { name = "f", history = { 100 } } } } })
    answers = { { ok = true }, nil }
    get("/api/x/a")
    get("/api/x/a")
    server.on_snapshot()
    answers = { { ok = true } }
    get("/api/x/a")
    local ops = {}
    for i, call in ipairs(calls) do ops[i] = call.op end
    assert.same({ "try_route", "snapshot", "serve", "serve", "snapshot", "serve" }, ops)
  end)

  it("get file and snapshot again after a new text ended the process when it was tried", function()
    write("a", "GET", "/api/x/a")
    start({ heap = { sites = { { name = "f", history = { 100 } } } } })
    answers = { { ok = true } }
    get("/api/x/a")
    trial_failure = { kind = "died", message = "the worker died: signal 9" }
    support.write_file(folder .. "/a.lua", "while true do end")
    assert.equal("kept", fake.request(server, "POST", "/api/routes/reload").json.files[1].result)
    local before = #calls
    answers = { { ok = true } }
    get("/api/x/a")
    assert.same({ "snapshot", "serve" }, { calls[before + 1].op, calls[before + 2].op })
    assert.is_string(calls[before + 2].source)
  end)

  it("answer that the handler is lost where its process ended while it waited", function()
    write("a", "GET", "/api/x/a")
    start()
    answers = { { ok = true, waits = {} }, { ok = false, kind = "no_route", error = "not there any more" } }
    local answer = get("/api/x/a")
    assert.same({ 503, "urn:lupe:problem:route-lost" }, { answer.status, answer.json.type })
  end)

  it("get the analysis that they wait for, or why there is none", function()
    write("a", "GET", "/api/x/a")
    start()
    answers = { { ok = true, waits = {} } }
    assert.equal("resumed", get("/api/x/a").body)
    assert.equal(calls[#calls - 1].token, calls[#calls].token)
    assert.same({ "resume", "no heap profile was taken yet" },
      { calls[#calls].op, calls[#calls].message })
    host.heap = { sites = { { name = "f", history = { 100 } } } }
    answers = { { ok = true }, { ok = true, waits = { about = "memory" } } }
    assert.equal("resumed", get("/api/x/a").body)
    assert.equal("insufficient_data", calls[#calls].result.status)
    assert.is_table(calls[#calls].result.findings)
  end)

  it("answer with a problem where they fail, which names the line in the log only", function()
    write("a", "GET", "/api/x/a")
    start()
    for _, case in ipairs({
      { 500, "route-error", { ok = false, kind = "error", error = "a.lua:2: oops", elapsed_us = 5 } },
      { 504, "route-too-slow", { ok = false, kind = "deadline", error = "a.lua:2: not done within 500 ms" } },
      { 503, "route-died", { failure = { kind = "died", message = "the worker died: signal 11" } } },
      { 503, "routes-unavailable", { failure = { kind = "unavailable", message = "cannot be started" } } },
    }) do
      answers = { case[3] }
      local answer = get("/api/x/a")
      assert.same({ case[1], "urn:lupe:problem:" .. case[2] }, { answer.status, answer.json.type })
      assert.is_nil(answer.body:find("a.lua:2", 1, true))
      local id = answer.json.detail:match("under the id (%S+)$")
      local message = case[3].error or case[3].failure.message
      assert.equal(("error: route GET /api/x/a (id %s): %s"):format(id, message), host.logged[#host.logged])
      assert.equal(message, get("/api/routes").json.routes[1].error)
    end
    assert.equal(200, get("/api/x/a").status)
  end)

  it("are left alone after they were stopped three times in a row, until their file changes", function()
    write("a", "GET", "/api/x/a")
    start()
    for _ = 1, 3 do
      answers = { { ok = false, kind = "deadline", error = "a.lua:2: not done within 500 ms" } }
      assert.equal(504, get("/api/x/a").status)
    end
    local before = #calls
    local answer = get("/api/x/a")
    assert.same({ 503, "urn:lupe:problem:route-quarantined" }, { answer.status, answer.json.type })
    assert.equal(before, #calls)
    assert.same({ "quarantined" }, listed())
    write("a", "GET", "/api/x/a", ", params = {}")
    fake.request(server, "POST", "/api/routes/reload")
    assert.equal(200, get("/api/x/a").status)
  end)
end)
