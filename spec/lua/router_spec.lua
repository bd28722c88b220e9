require("spec.support")
local async = require("lupe.async")
local fake = require("spec.fake_host")
local http_stats = require("lupe.http_stats")
local json = require("lupe.json")
local problem = require("lupe.problem")
local router = require("lupe.router")

local function route(fields)
  local made = {
    method = "GET", path = "/thing", summary = "a thing", params = {},
    handler = function(request) return 200, {}, json.shape({ "params object" })({ params = request.params }) end,
  }
  for name, value in pairs(fields or {}) do made[name] = value end
  return made
end

local function serve(routes, given)
  local host = fake.new(given)
  local app = { host = host, config = host.config, http = http_stats.new() }
  local entry = router.new(app, routes)
  return { handle = function(request, respond) entry:handle(request, respond) end, app = app, host = host }
end

local function expect_problem(answer, status, kind)
  assert.equal(status, answer.status, answer.body)
  assert.equal("application/problem+json", answer.headers["Content-Type"])
  assert.same({ "type", "title", "status", "detail", "instance" }, fake.order(answer.body))
  assert.equal("\n", answer.body:sub(-1)) -- as every answer in JSON ends
  assert.equal("urn:lupe:problem:" .. kind, answer.json.type)
  assert.equal(status, answer.json.status)
  return answer.json.detail
end

describe("the router", function()
  it("answers with JSON that is never cached or sniffed", function()
    local answer = fake.request(serve({ route() }), "GET", "/thing")
    assert.equal(200, answer.status)
    assert.equal('{"params":{}}\n', answer.body)
    assert.equal("application/json", answer.headers["Content-Type"])
    assert.equal("no-store", answer.headers["Cache-Control"])
    assert.equal("nosniff", answer.headers["X-Content-Type-Options"])
  end)

  it("answers 404 where nothing is, naming the path", function()
    local detail = expect_problem(fake.request(serve({ route() }), "GET", "/thong"), 404, "no-such-route")
    assert.truthy(detail:find("/thong", 1, true))
  end)

  it("answers 405 with what is allowed, HEAD beside GET", function()
    local server = serve({ route(), route({ method = "POST" }) })
    local answer = fake.request(server, "DELETE", "/thing")
    expect_problem(answer, 405, "method-not-allowed")
    assert.equal("GET, HEAD, POST", answer.headers.Allow)
    assert.equal(200, fake.request(server, "HEAD", "/thing").status)
  end)

  it("gives the values of {names} in the path to the handler, decoded", function()
    local seen
    local server = serve({
      route({ path = "/thing/{id}/part.x", handler = function(request)
        seen = request.named.id
        return 200, {}, ""
      end }),
    })
    assert.equal(200, fake.request(server, "GET", "/thing/a%20b/part.x").status)
    assert.equal("a b", seen)
    fake.request(server, "GET", "/thing/operator+/part.x")
    assert.equal("operator+", seen)
    expect_problem(fake.request(server, "GET", "/thing/100%/part.x"), 404, "no-such-route")
    assert.equal(404, fake.request(server, "GET", "/thing/a/b/part.x").status)
    assert.equal(404, fake.request(server, "GET", "/thing/a/partyx").status)
    assert.equal(404, fake.request(server, "GET", "/thing/{id}/party").status)
  end)

  describe("with parameters", function()
    local params = {
      { name = "limit", type = "integer", min = 1, max = 10, default = 5 },
      { name = "by", type = "choice", values = { "size", "count" } },
    }
    local function ask(query, extra)
      return fake.request(serve({ route({ params = params }), route({ method = "POST", params = params }) }),
        extra and "POST" or "GET", "/thing?" .. query, extra)
    end

    it("fills in defaults and types", function()
      assert.same({ limit = 5 }, ask("").json.params)
      assert.same({ limit = 7, by = "count" }, ask("limit=7&by=count").json.params)
      assert.same({ limit = 5, by = "size" }, ask("by=%73ize").json.params)
    end)

    it("refuses an unknown one, and lists the known", function()
      local detail = expect_problem(ask("limt=3"), 400, "unknown-parameter")
      assert.equal('unknown parameter "limt", did you mean "limit"?; known here: limit, by', detail)
    end)

    it("refuses values that are not of the type, and says what is", function()
      local detail = expect_problem(ask("limit=11"), 400, "invalid-parameter")
      assert.equal('parameter "limit": cannot understand "11", expected a whole number from 1 to 10', detail)
      expect_problem(ask("by=colour"), 400, "invalid-parameter")
      expect_problem(ask("limit=0x7"), 400, "invalid-parameter")
      expect_problem(ask("limit="), 400, "invalid-parameter")
    end)

    it("refuses one that is given twice, and malformed escapes", function()
      expect_problem(ask("limit=1&limit=2"), 400, "repeated-parameter")
      expect_problem(ask("limit=%zz"), 400, "malformed-query")
    end)

    it("takes them from a JSON body too", function()
      local json_type = { host = "127.0.0.1:7077", ["content-type"] = "application/json; charset=utf-8" }
      assert.same({ limit = 3 }, ask("", { headers = json_type, body = '{"limit":3}' }).json.params)
      expect_problem(ask("", { headers = json_type, body = '{"lim' }), 400, "malformed-body")
      expect_problem(ask("", { headers = json_type, body = "[1]" }), 400, "malformed-body")
      expect_problem(ask("", { headers = json_type, body = '{"what":3}' }), 400, "unknown-parameter")
      local detail = expect_problem(ask("", { headers = json_type, body = '{"limit":[3]}' }), 400, "invalid-parameter")
      assert.truthy(detail:find('"limit": cannot understand an object or a list, expected a whole number', 1, true))
    end)

    it("answers 415 only for a body that is there and is not JSON", function()
      local text = { host = "127.0.0.1:7077", ["content-type"] = "text/plain" }
      assert.equal(200, ask("", { headers = text }).status)
      expect_problem(ask("", { headers = text, body = "x" }), 415, "not-json")
      expect_problem(ask("", { body = "x" }), 415, "not-json")
    end)
  end)

  it("answers 413 for a body over 64 KiB, seen here or in C", function()
    local server = serve({ route({ method = "POST" }) })
    expect_problem(fake.request(server, "POST", "/thing", { body = (" "):rep(65537) }), 413, "body-too-large")
    expect_problem(fake.request(server, "POST", "/thing", { too_large = true }), 413, "body-too-large")
  end)

  it("answers only requests whose Host names its address", function()
    local server = serve({ route() })
    for _, name in ipairs({ "127.0.0.1:7077", "localhost:7077", "LOCALHOST:7077" }) do
      assert.equal(200, fake.request(server, "GET", "/thing", { headers = { host = name } }).status, name)
    end
    for _, name in ipairs({ "evil.example:7077", "127.0.0.1", "127.0.0.1:80", "" }) do
      expect_problem(fake.request(server, "GET", "/thing", { headers = { host = name } }), 403, "foreign-host")
    end
    expect_problem(fake.request(server, "GET", "/thing", { headers = {} }), 403, "foreign-host")
  end)

  it("refuses a foreign Origin", function()
    local server = serve({ route() })
    local function with(origin)
      return fake.request(server, "GET", "/thing", { headers = { host = "127.0.0.1:7077", origin = origin } })
    end
    assert.equal(200, with("http://127.0.0.1:7077").status)
    assert.equal(200, with("http://localhost:7077").status)
    for _, origin in ipairs({ "https://evil.example", "null", "http://localhost:8080", "https://localhost:7077" }) do
      expect_problem(with(origin), 403, "foreign-origin")
    end
  end)

  it("counts requests per minute, peer and class, and says when to come back", function()
    local server = serve({ route({ rate = "snapshots" }), route({ path = "/free", rate = false }) })
    for _ = 1, 5 do assert.equal(200, fake.request(server, "GET", "/thing").status) end
    server.host.clock_ms = server.host.clock_ms + 20500
    local answer = fake.request(server, "GET", "/thing")
    expect_problem(answer, 429, "too-many-requests")
    assert.equal("40", answer.headers["Retry-After"])
    assert.equal(200, fake.request(server, "GET", "/thing", { peer = "127.0.0.2" }).status)
    assert.equal(200, fake.request(server, "GET", "/free").status)
    server.host.clock_ms = server.host.clock_ms + 40000
    assert.equal(200, fake.request(server, "GET", "/thing").status)
  end)

  it("has no limit where the limit is 0", function()
    local server = serve({ route() })
    server.app.config.rate_reads = 0
    local open = serve({ route() }, { config = server.app.config })
    for _ = 1, 300 do assert.equal(200, fake.request(open, "GET", "/thing").status) end
  end)

  it("answers a handler's error with 500 and an id, and logs the place under that id", function()
    local server = serve({ route({ handler = function() error("no such luck") end }) })
    local detail = expect_problem(fake.request(server, "GET", "/thing"), 500, "internal-error")
    local id = detail:match("id (%S+)$")
    assert.is_nil(detail:find("luck", 1, true))
    assert.truthy(server.host.logged[1]:find(id, 1, true))
    assert.truthy(server.host.logged[1]:find("router_spec.lua:%d+: no such luck"))
  end)

  it("answers 500 for a body that cannot be JSON, instead of none", function()
    local server = serve({ route({ handler = function() return 200, {}, { print } end }) })
    expect_problem(fake.request(server, "GET", "/thing"), 500, "internal-error")
  end)

  it("turns a raised problem into the answer", function()
    local server = serve({
      route({ handler = function()
        problem.raise(503, "not-now", "later", { title = "Not now", headers = { ["Retry-After"] = "3" } })
      end }),
    })
    local answer = fake.request(server, "GET", "/thing")
    expect_problem(answer, 503, "not-now")
    assert.equal("Not now", answer.json.title)
    assert.equal("3", answer.headers["Retry-After"])
  end)

  it("lets a handler wait for the host, while others are answered", function()
    local server
    server = serve({
      route({ handler = function()
        local a = async.await(server.host.later_with, 1)
        local b = async.await(server.host.later_with, 2)
        return 200, {}, { a, b }
      end }),
      route({ path = "/quick" }),
    }, { immediate = false })
    server.host.later_with = function(value, callback) server.host.later(callback, value) end
    local answered
    server.handle({
      method = "GET", path = "/thing", query = "", headers = { host = "127.0.0.1:7077" }, peer = "1",
    }, function(_, _, body) answered = body end)
    assert.equal(200, fake.request(server, "GET", "/quick").status)
    server.host.run_pending()
    assert.is_nil(answered)
    server.host.run_pending()
    assert.equal("[1,2]\n", answered)
  end)

  it("counts what it answered, by method, route and status", function()
    local server = serve({ route() })
    fake.request(server, "GET", "/thing")
    fake.request(server, "GET", "/nothing/at/all")
    fake.request(server, "BREW", "/thing")
    local counts = {}
    for key, entry in pairs(server.app.http.requests) do counts[key] = entry.count end
    assert.same({ ["GET /thing 200"] = 1, ["GET none 404"] = 1, ["other none 405"] = 1 }, counts)
  end)

  it("refuses routes that are not whole, or there twice", function()
    assert.has_error(function() serve({ route({ summary = false }) }) end)
    assert.has_error(function() serve({ route(), route() }) end)
  end)
end)

describe("the rate limit", function()
  it("keeps a bounded table of peers", function()
    local limit = require("lupe.rate_limit").new({ reads = 1 })
    for i = 1, 5000 do limit:take("reads", "peer" .. i, i) end
    assert.is_true(limit.count <= 1024)
    assert.is_false((limit:take("reads", "peer5000", 5001)))
  end)

  it("knows which paths could be asked for by one request", function()
    for _, case in ipairs({
      { "/a/b", "/a/b", true }, { "/a/b", "/a/c", false }, { "/a/{x}", "/a/b", true }, { "/a/{x}", "/a/{y}", true },
      { "/a/{x}", "/b/{x}", false }, { "/{x}/b", "/a/{y}", true }, { "/a/{x}", "/a/b/c", false },
      { "/a", "/a/b", false },
    }) do
      assert.equal(case[3], router.overlap(case[1], case[2]), case[1] .. " " .. case[2])
      assert.equal(case[3], router.overlap(case[2], case[1]), case[2] .. " " .. case[1])
    end
  end)
end)
