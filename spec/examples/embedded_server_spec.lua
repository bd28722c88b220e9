--- The example of a server on its own loop: it serves, lupe finds what is wrong with it, and tells it.
local support = require("spec.support")

local ENV = {
  PROFILING_MEMORY_WARNING_MB = 1, PROFILING_MEMORY_ALERT_MB = 2, PROFILING_LEAK_CHECK_INTERVAL_SECS = 1,
  PROFILING_MEMORY_INTERVAL_SECS = 0.5, LUPE_HEAP_INTERVAL_SECS = 0.2, LUPE_RATE_READS = 0, LUPE_RATE_LEAK = 0,
}

describe("the example server with lupe in it", function()
  teardown(support.cleanup)

  it("serves, is told what lupe finds on its own loop, and ends at a signal", function()
    local env = { LUPE_LISTEN = "127.0.0.1:" .. support.free_port() }
    for name, value in pairs(ENV) do env[name] = value end
    local server = support.spawn({ support.built("examples/embedded_server"), 0 }, { env = env })
    local port, lupe_port
    support.eventually(function()
      if not server:alive() then error("the server ended: " .. server:stdout() .. server:stderr()) end
      port = tonumber(server:stdout():match("http://127%.0%.0%.1:(%d+)/page/1\n"))
      return port
    end, 20, "the server to listen")
    lupe_port = tonumber(server:stdout():match('"url":"http://127%.0%.0%.1:(%d+)'))
    assert.equal(env.LUPE_LISTEN, "127.0.0.1:" .. tostring(lupe_port))

    local requests, found = 0, nil
    support.eventually(function()
      for number = 1, 100 do
        requests = requests + 1
        local path = number % 10 == 0 and "/search/what" or "/page/" .. number
        assert.equal(200, support.http(port, path).status)
      end
      local answer = support.http(lupe_port, "/api/profiling/leak-detection", { method = "POST" })
      found = answer.status == 200 and answer.json().potential_leaks[1] -- before the first heap profile it is a 503
      return found and server:stdout():match("embedded_server: alert, ") and server:stdout():match(": finding, ")
    end, 90, "a leak, an alert and a finding")
    assert.equal("remember_visit", found.component)
    assert.equal("embedded_server.c", found.file_location:match("[^/]*$"))

    local worst = support.http(port, "/worst")
    assert.equal(200, worst.status)
    assert.is_true(worst.json().total > 0)
    local metrics = support.http(lupe_port, "/metrics").body
    local pages = tonumber(metrics:match('\nlupe_span_duration_seconds_count{[^\n]*span="page"} (%S+)'))
    assert.is_true(pages > 0 and pages <= requests)

    server:kill(15)
    assert.equal(0, server:wait(20))
    assert.matches("embedded_server: ended\n$", server:stdout())
    assert.is_nil(server:stderr():find("embedded_server:", 1, true), server:stderr())
    assert.is_nil(support.http(lupe_port, "/healthz"))
  end)
end)
