require("spec.support")
local json = require("lupe.json")
local route = require("lupe.route")

local function given(fields)
  local made = { api = 1, method = "GET", path = "/api/x/a", summary = "a", handler = function() end }
  for name, value in pairs(fields or {}) do made[name] = value end
  return made
end

local function message_of(fields)
  local loaded, message = route.validate("routes/a.lua", given(fields))
  assert.is_nil(loaded)
  return message
end

describe("a route's file", function()
  it("is taken with all that it may have", function()
    local loaded = assert(route.validate("routes/a.lua", given({
      path = "/api/x/largest/{module}", response = { "sites object[]", "reason string?", "shares number[]?" },
      params = {
        { name = "limit", type = "integer", min = 1, max = 100, default = 5, doc = "how many" },
        { name = "by", type = "choice", values = { "size", "growth" }, default = "size" },
        { name = "window", type = "seconds", default = "2m" },
      },
    })))
    assert.equal("GET /api/x/largest/{module}", loaded.id)
    assert.equal(120, loaded.params[3].default)
    assert.equal('{"sites":[],"reason":null,"shares":null}', json.encode(loaded.shape({ sites = {} })))
  end)

  it("has a message for each mistake that names file, field, expected and actual", function()
    local a_path = "routes/a.lua: field 'path': expected a path such as '/api/x/largest/{module}', got %s"
    local params = function(one) return { params = { one } } end
    for expected, fields in pairs({
      ["routes/a.lua: field 'api': expected 1, got 2"] = { api = 2 },
      ["routes/a.lua: field 'method': expected one of DELETE, GET, PATCH, POST, PUT, got 'GTE' (did you mean 'GET'?)"] =
        { method = "GTE" },
      ["routes/a.lua: field 'path': expected string, got number"] = { path = 1 },
      [a_path:format("'api/x'")] = { path = "api/x" },
      [a_path:format("'/a//b'")] = { path = "/a//b" },
      [a_path:format("'/a/..'")] = { path = "/a/.." },
      [a_path:format("'/a?b=c'")] = { path = "/a?b=c" },
      [a_path:format("'{a}' twice")] = { path = "/x/{a}/{a}" },
      ["routes/a.lua: field 'summary': expected string, got boolean"] = { summary = true },
      ["routes/a.lua: field 'handler': expected function, got string"] = { handler = "f" },
      ["routes/a.lua: unknown field 'pathh', did you mean 'path'?"] = { pathh = "/x" },
      ["routes/a.lua: field 'params': expected an array, got a table with other keys"] = { params = { a = {} } },
      ["routes/a.lua: field 'params[1].type': expected one of boolean, bytes, choice, integer, number, pid, seconds, "
        .. "text, got 'int' (did you mean 'integer'?)"] = params({ name = "a", type = "int" }),
      ["routes/a.lua: field 'params[1].name': expected a name such as 'min_bytes', got 'a b'"] =
        params({ name = "a b", type = "text" }),
      ["routes/a.lua: field 'params[1].default': expected a whole number from 1 to 5, got 9"] =
        params({ name = "a", type = "integer", min = 1, max = 5, default = 9 }),
      ["routes/a.lua: field 'params[1].min': expected nothing where the type is text, got number"] =
        params({ name = "a", type = "text", min = 1 }),
      ["routes/a.lua: field 'params[1].values': expected table, got nothing"] = params({ name = "a", type = "choice" }),
      ["routes/a.lua: field 'params[2].name': expected a name of its own, got 'a' again"] =
        { params = { { name = "a", type = "text" }, { name = "a", type = "text" } } },
      ["routes/a.lua: field 'response[1]': expected a text such as 'name type', 'sites object[]' or 'reason string?', "
        .. "got 'sites'"] = { response = { "sites" } },
      ["routes/a.lua: field 'response[1]': expected one of string, integer, number, boolean, time, array, object, got "
        .. "'objects' (did you mean 'object'?)"] = { response = { "sites objects[]" } },
    }) do
      assert.equal(expected, message_of(fields))
    end
    local _, message = route.validate("routes/a.lua", 5)
    assert.equal("routes/a.lua: expected the file to return a plain table, got number", message)
  end)

  it("is compiled without a way to the system", function()
    local sandbox = require("lupe.sandbox")
    local loaded, message = route.load("routes/a.lua", "local f = io.open('x')\nreturn {}", sandbox.new(function() end))
    assert.is_nil(loaded)
    assert.truthy(message:find("^routes/a.lua:1: no global 'io'"), message)
  end)
end)

describe("a handler's answer", function()
  local function answer(status, headers, body, fields)
    return route.answer("a.lua", assert(route.validate("a.lua", given(fields))), status, headers, body)
  end

  local function complaint(...)
    local ok, message = pcall(answer, ...)
    assert.is_false(ok)
    return message
  end

  it("is a status, headers and a table, a text, or nothing", function()
    assert.same({ 200, { ["Content-Type"] = "application/json" }, '{"a":[1,2],"b":{"c":null}}\n' },
      { answer(200, nil, { a = { 1, 2 }, b = { c = 0 / 0 } }) })
    assert.same({ 201, { ["Content-Type"] = "text/csv", ["X-Count"] = "3" }, "a,b\n" },
      { answer(201, { ["content-type"] = "text/csv", ["x-count"] = 3 }, "a,b\n") })
    assert.same({ 204, {}, "" }, { answer(204) })
    assert.equal("text/plain; charset=utf-8", select(2, answer(200, nil, "x"))["Content-Type"])
  end)

  it("has its fields in the order of the response that is declared, and no others", function()
    local declared = { response = { "z integer", "list object[]", "a string?" } }
    assert.equal('{"z":1,"list":[],"a":null}\n', (select(3, answer(200, nil, { list = {}, z = 1 }, declared))))
    assert.equal("a.lua: answer: field 'body': expected the fields that 'response' declares, got another: \"b\"",
      complaint(200, nil, { z = 1, b = 2 }, declared))
  end)

  it("is refused where it can't be sent, with what was expected", function()
    local cyclic = {}
    cyclic.inner = cyclic
    for _, case in ipairs({
      { "field 'status': expected number, got nothing" },
      { "field 'status': expected a whole number from 200 to 599, got 99", 99 },
      { "field 'body': expected a table (sent as JSON) or a text, got number", 200, nil, 5 },
      { "field 'body.f': expected what JSON can hold, got a function", 200, nil, { f = print } },
      { "field 'body.a[1]': expected a plain table, got one of a view's (copy the fields that you want)", 200, nil,
        { a = { setmetatable({}, { __metatable = "read-only" }) } } },
      { "field 'body': expected an array or names as keys, got both", 200, nil, { 1, a = 2 } },
      { "field 'body': expected nothing with status 204, got 1 bytes", 204, nil, "x" },
      { "field 'body': expected at most 8388608 bytes, got 8388609", 200, nil, ("x"):rep(8388609) },
      { "field 'headers.Content-Length': expected nothing: lupe sets it, got 5", 200, { ["Content-Length"] = 5 } },
      { "field 'headers.X-A': expected a text without control characters, got one with", 200, { ["X-A"] = "a\r\nB" } },
      { "field 'headers': expected names such as 'Content-Type' as keys, got 'a b'", 200, { ["a b"] = "c" } },
    }) do
      assert.equal("a.lua: answer: " .. case[1], complaint(case[2], case[3], case[4]))
    end
    assert.truthy(complaint(200, nil, cyclic):find("expected 60 levels at most, got more", 1, true))
  end)
end)
