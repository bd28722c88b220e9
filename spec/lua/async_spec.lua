require("spec.support")
local async = require("lupe.async")

describe("a task", function()
  it("runs on at once where the callback came at once", function()
    local result
    async.spawn(function()
      return async.await(function(a, callback) callback(a, nil, 3) end, 1)
    end, function(...) result = { n = select("#", ...), ... } end)
    assert.same({ n = 4, true, 1, nil, 3 }, result)
  end)

  it("waits for a callback that comes later, and bears one that comes twice", function()
    local resume, result
    async.spawn(function() return async.await(function(callback) resume = callback end) end,
      function(_, value) result = value end)
    assert.is_nil(result)
    resume("first")
    resume("second")
    assert.equal("first", result)
  end)

  it("ends with its error, where that happened, also after waiting", function()
    local resume, ok, failure, trace
    async.spawn(function()
      async.await(function(callback) resume = callback end)
      error("oops")
    end, function(...) ok, failure, trace = ... end)
    resume()
    assert.is_false(ok)
    assert.truthy(failure:find("async_spec.lua:%d+: oops"))
    assert.truthy(trace:find("stack traceback", 1, true))
  end)

  it("hands an error that is a table on as it is", function()
    local failure
    async.spawn(function() error({ code = 7 }) end, function(_, value) failure = value end)
    assert.equal(7, failure.code)
  end)

  it("is needed for waiting", function()
    assert.has_error(function() async.await(function() end) end)
  end)
end)
