--- /openapi.json: made of what the routes say of themselves, whole, valid, and true of their answers.
local support = require("spec.support")
local fake = require("spec.fake_host")
local json = require("lupe.json")
local openapi = require("lupe.openapi")
local support_openapi = require("spec.support_openapi")

local MIB = 2 ^ 20

local function ramp(from, to)
  local list = {}
  for i = 1, 20 do list[i] = from + (to - from) * (i - 1) / 19 end
  return list
end

-- A leak, and a minute with a hotspot.
local BUSY = {
  time_ms = 1728583200000, started_ms = 1728583180000, interval_ms = 1000, sample_period_bytes = 16384,
  targets = { { pid = 100, name = "server" } },
  sites = {
    {
      name = "session_open", module = "/usr/bin/server", history = ramp(MIB, 25 * MIB), inuse_objects = 25600,
      alloc_space = 25 * MIB, stack = { "xmalloc", "session_open", "on_request", "main" },
    },
  },
  profile = {
    from_ms = 1728583140000, to_ms = 1728583200000, cpu_hz = 100, wall_hz = 20,
    threads = { { tid = 100, name = "server", pid = 100, switches = 600 } },
    samples = {
      { stack = { { name = "hash", module = "/usr/bin/server", file = "/src/hash.c", line = 45 }, "main" },
        thread = 1, state = "user", count = 3000 },
    },
  },
}

local function route(fields)
  local made = { method = "GET", path = "/thing", summary = "a thing", params = {}, response = json.shape({}) }
  for name, value in pairs(fields or {}) do made[name] = value end
  return made
end

local function document_of(routes) return json.decode(json.encode(openapi.document(routes, "1.0"))) end

local function text_of(server)
  local answer = fake.request(server, "GET", "/openapi.json")
  assert.equal(200, answer.status, answer.body)
  return answer.body, answer.json
end

--- Adds what a server answers to every route that needs no more than its path.
local function ask_all(given, answers, extra)
  local server = fake.server(given)
  server.app.config.rate_reads = 0
  server.tick()
  for _, one in ipairs(server.app.routes) do
    if not one.path:find("{", 1, true) then
      local answer = fake.request(server, one.method, one.path, extra)
      answers[#answers + 1] = support_openapi.answer(one.method, one.path, answer)
    end
  end
  return server
end

describe("GET /openapi.json", function()
  teardown(support.cleanup)

  it("has every route, and nothing else", function()
    local server = fake.server()
    local _, document = text_of(server)
    local expected, got = {}, {}
    for _, one in ipairs(server.app.routes) do
      expected[#expected + 1] = one.method .. " " .. one.path
      assert.truthy(one.response or not (one.status or {})[200], one.path .. " does not say what it answers")
    end
    for path, item in pairs(document.paths) do
      for method in pairs(item) do got[#got + 1] = method:upper() .. " " .. path end
    end
    table.sort(expected)
    table.sort(got)
    assert.same(expected, got)
  end)

  it("is valid OpenAPI, and what every route answers is as it says", function()
    local answers = {}
    ask_all({ heap = BUSY }, answers)
    ask_all({}, answers)
    ask_all({ target_list = {} }, answers)
    ask_all({
      heap = { sites = {} }, figures_now = fake.figures({ has_allocator = false }),
      target_list = { fake.target({ allocator = "system", heap_state = "no_jemalloc" }) },
    }, answers)
    ask_all({ heap = BUSY }, answers, { headers = { host = "elsewhere" } })
    local server = ask_all({ heap = BUSY }, answers, { query = "target=7" })

    local function add(method, path, extra)
      local answer = fake.request(server, method, path, extra)
      answers[#answers + 1] = support_openapi.answer(method, path:match("^[^?]*"), answer)
      return answer
    end
    add("GET", "/api/profiling/allocations?limit=5&by=alloc_space")
    add("GET", "/api/profiling/allocations?limit=none")
    add("GET", "/api/profiling/flamegraph?type=heap&format=json")
    add("GET", "/api/profiling/flamegraph?type=heap&format=html")
    add("GET", "/metrics", { headers = { host = "localhost:7077", accept = "application/openmetrics-text" } })
    for _, proof in ipairs({
      { pid = 100, sites = { { name = "session_open", unreachable = 40, reachable = 2, holder = "session_open" } } },
      { pid = 100, outcome = "tables", read_bytes = 2 ^ 30 },
    }) do
      local proved = { proofs = { proof } }
      for name, value in pairs(BUSY) do proved[name] = value end
      server.host.proved_heap = proved
      assert.truthy(add("POST", "/api/profiling/leak-detection?proof=true").json.proof)
      add("GET", "/api/findings")
    end
    add("POST", "/api/profiling/leak-detection", { too_large = true })
    add("POST", "/api/profiling/leak-detection", { body = "x" })
    add("POST", "/api/profiling/snapshot?wait=false")
    add("GET", "/api/profiling/snapshot")
    server.host.export_fails = { ok = false, kind = "file", code = "ENOSPC", error = "no room" }
    assert.equal(507, add("POST", "/api/profiling/snapshot").status)
    for _ = 1, 5 do fake.request(server, "POST", "/api/profiling/snapshot") end
    assert.equal(429, add("POST", "/api/profiling/snapshot").status)
    server.host.load = function() error("no load today") end
    assert.equal(500, add("GET", "/api/profiling/cpu").status)

    local seen = {}
    for _, answer in ipairs(answers) do seen[answer.status] = true end
    for _, status in ipairs({ 200, 201, 202, 301, 400, 403, 404, 413, 415, 429, 500, 503, 507 }) do
      assert.is_true(seen[status], status .. " was not tried")
    end
    assert.same({}, support_openapi.faults(text_of(server), answers))
  end)

  it("is found wrong where it is, or where an answer is not as it says", function()
    local text = text_of(fake.server())
    local function answer(path, status, body, type)
      return { method = "GET", path = path, status = status, type = type or "application/json", body = body }
    end
    local faults = support_openapi.faults(text, {
      answer("/healthz", 200, '{"status":"ok"}'),
      answer("/healthz", 200, '{}'),
      answer("/healthz", 200, '{"status":1}'),
      answer("/healthz", 200, '{"status":"ok","more":1}'),
      answer("/healthz", 418, '{"status":"ok"}'),
      answer("/healthz", 200, "ok", "text/plain"),
      answer("/nowhere", 200, "{}"),
      answer("/api/targets", 200, '{"timestamp":"yesterday","targets":[]}'),
    })
    local expected = { "required property 'status'", "must be string", "additional properties", "not in the document",
      "text/plain is not in", "/nowhere 200: is not in", 'must match format "date-time"' }
    assert.equal(#expected, #faults, table.concat(faults, "\n"))
    for i, words in ipairs(expected) do assert.truthy(faults[i]:find(words, 1, true), faults[i]) end
    local broken = text:gsub('"summary":"lupe answers"', '"summary":7')
    assert.truthy(support_openapi.faults(broken, {})[1]:find("~1healthz", 1, true))
  end)
end)

describe("the document of some routes", function()
  it("tells a parameter's type, bounds, default and words", function()
    local params = {
      { name = "limit", type = "integer", min = 1, max = 10, default = 5, doc = "how many" },
      { name = "by", type = "choice", values = { "size", "count" } },
      { name = "target", type = "pid" },
      { name = "wait", type = "boolean", default = false },
    }
    local document = document_of({ route({ params = params }), route({ params = params, method = "POST" }) })
    local told = document.paths["/thing"].get.parameters
    assert.same({
      name = "limit", ["in"] = "query", description = "how many",
      schema = { type = "integer", minimum = 1, maximum = 10, default = 5 },
    }, told[1])
    assert.same({ type = "string", enum = { "size", "count" } }, told[2].schema)
    assert.same({ type = "integer", minimum = 1, maximum = 4194304 }, told[3].schema)
    assert.same({ type = "boolean", default = false }, told[4].schema)
    assert.is_nil(document.paths["/thing"].get.requestBody)
    local body = document.paths["/thing"].post.requestBody.content["application/json"].schema
    assert.is_false(body.additionalProperties)
    assert.same({ type = "integer", minimum = 1, maximum = 10, default = 5, description = "how many" },
      body.properties.limit)
  end)

  it("tells the names in a path", function()
    local document = document_of({ route({ path = "/thing/{id}/part", named = { id = "which" } }) })
    assert.same({ name = "id", ["in"] = "path", required = true, description = "which", schema = { type = "string" } },
      document.paths["/thing/{id}/part"].get.parameters[1])
  end)

  it("tells what a shape holds, shapes in shapes by reference", function()
    local inner = json.shape({ "kind leak|alert?", "at time", "sizes integer[]?", "more object" })
    local outer = json.shape({ "one Inner?", "all Inner[]", "pair Pair", Inner = inner, Pair = { type = "array" } })
    local document = document_of({ route({ response = outer }) })
    assert.same({
      type = "object", required = { "one", "all", "pair" },
      properties = {
        one = { anyOf = { { ["$ref"] = "#/components/schemas/Inner" }, { type = "null" } } },
        all = { type = "array", items = { ["$ref"] = "#/components/schemas/Inner" } },
        pair = { allOf = { { type = "array" } } },
      },
    }, document.paths["/thing"].get.responses["200"].content["application/json"].schema)
    local told = json.encode(openapi.document({ route({ response = outer }) }, "1.0"))
    assert.truthy(told:find('"kind":{"enum":["leak","alert",null],"type":["string","null"]}', 1, true))
    assert.same({ type = { "array", "null" }, items = { type = "integer" } },
      document.components.schemas.Inner.properties.sizes)
    assert.same({ type = "string", format = "date-time" }, document.components.schemas.Inner.properties.at)
  end)

  it("takes shapes that hold themselves, and two of one name", function()
    local node = json.shape({ "children Node[]", Node = true })
    local other = json.shape({ "name string" })
    local document = document_of({
      route({ response = node }), route({ path = "/b", response = json.shape({ "node Node", Node = other }) }),
    })
    assert.equal("#/components/schemas/Node",
      document.components.schemas.Node.properties.children.items["$ref"])
    assert.equal("string", document.components.schemas.Node2.properties.name.type)
  end)

  it("has the problems that a route can end with, and no other", function()
    local function statuses(fields)
      local operation = document_of({ route(fields) }).paths["/thing"][(fields.method or "GET"):lower()]
      local list = {}
      for status in pairs(operation.responses) do list[#list + 1] = status end
      table.sort(list)
      return table.concat(list, " ")
    end
    assert.equal("200 400 403 429 500", statuses({}))
    assert.equal("200 400 403 500", statuses({ rate = false }))
    assert.equal("200 400 403 404 429 500 503", statuses({ problems = { 404, 503 } }))
    assert.equal("201 400 403 413 415 429 500", statuses({ method = "POST", status = { [201] = "made" } }))
    assert.equal("200 403 413 429 500", statuses({ method = "POST", raw = "text" }))
  end)

  it("gives every operation an id of its own, and a tag", function()
    local paths = document_of({
      route({ path = "/api/a-b" }), route({ path = "/api/a/b" }), route({ path = "/api/a/b/" }),
      route({ path = "/debug/a/{id}" }), route({ path = "/" }), route({ path = "/a.json", tag = "files" }),
    }).paths
    assert.equal("getAB", paths["/api/a-b"].get.operationId)
    assert.equal("getAB2", paths["/api/a/b"].get.operationId)
    assert.equal("getABIndex", paths["/api/a/b/"].get.operationId)
    assert.equal("getDebugAId", paths["/debug/a/{id}"].get.operationId)
    assert.equal("getIndex", paths["/"].get.operationId)
    assert.same({ "a-b" }, paths["/api/a-b"].get.tags)
    assert.same({ "a" }, paths["/debug/a/{id}"].get.tags)
    assert.same({ "other" }, paths["/"].get.tags)
    assert.same({ "files" }, paths["/a.json"].get.tags)
  end)

  it("tells of parameters that share the beginning of their names", function()
    local params = { { name = "limit", type = "integer" }, { name = "param.NAME", prefix = "param.", type = "text" } }
    local routes = { route({ params = params }), route({ params = params, method = "POST" }) }
    local item = document_of(routes).paths["/thing"]
    local told = item.get.parameters[2]
    assert.same({ "form", true }, { told.style, told.explode })
    assert.same({ "string", "number", "boolean" }, told.schema.patternProperties["^param\\."].type)
    local body = item.post.requestBody.content["application/json"].schema
    assert.same({ type = "integer" }, body.properties.limit)
    assert.same({ "string", "number", "boolean" }, body.patternProperties["^param\\."].type)
    assert.is_false(body.additionalProperties)
  end)

  it("tells of bodies that the handler reads, and of answers that are told as a list of fields", function()
    local put = document_of({ route({ method = "PUT", own_body = true, response = { "name string" } }) })
      .paths["/thing"].put
    assert.truthy(put.requestBody.content["*/*"])
    assert.is_nil(put.responses["415"])
    assert.same({ "name" }, put.responses["200"].content["application/json"].schema.required)
  end)

  it("is made also of routes that do not say what they answer", function()
    local bare = route({ path = "/mine" })
    bare.response = nil
    assert.same({ description = "a thing" }, document_of({ bare }).paths["/mine"].get.responses["200"])
  end)
end)
