local ffi = require("ffi")
local support = require("spec.support")

local FILE = ("0123456789abcdef"):rep(20000)

describe("the HTTP server", function()
  local server, port, folder

  local function start(host)
    local file = support.write_file(folder .. "/file", FILE)
    server = support.spawn({ support.fixture("http_echo"), host or "127.0.0.1", 0, file })
    port = tonumber(support.eventually(function() return server:stdout():match("^(%d+)\n") end, 10, "its port"))
  end

  before_each(function()
    folder = support.temp_dir()
    start()
  end)

  -- Ended in the ordinary way: under asan that is where leaks are told.
  after_each(function()
    if server:alive() then support.http(port, "/stop") end
    local ended, code, signal = pcall(server.wait, server, 20)
    local said = server:stderr()
    support.cleanup()
    assert(ended, code)
    assert.are.same({ 0, nil, "" }, { code, signal, said })
  end)

  local function get(path, options) return assert(support.http(port, path, options)) end

  local function raw(bytes, seconds) return support.exchange(port, bytes, seconds) or "" end

  --- Sends bytes and goes away without reading.
  local function abandon(bytes)
    local fd = ffi.C.socket(2, 1, 0)
    local address = ffi.new("spec_sockaddr", { family = 2, port = ffi.C.htons(port), address = { 127, 0, 0, 1 } })
    assert.are.equal(0, ffi.C.connect(fd, address, ffi.sizeof(address)))
    assert.are.equal(#bytes, tonumber(ffi.C.send(fd, bytes, #bytes, 0x4000)))
    return function() ffi.C.close(fd) end
  end

  local function counters()
    local c = {}
    for name, number in get("/counters").body:gmatch("(%a+) (%d+)") do c[name] = tonumber(number) end
    return c
  end

  local function rss_kib()
    return tonumber(support.read_file("/proc/" .. server.pid .. "/status"):match("VmRSS:%s*(%d+)"))
  end

  it("hands over method, path, query and headers as they were sent", function()
    local answer = get("/a%2Fb%00c?x=1&y=%20z", { headers = { ["X-One"] = "1 2" } })
    assert.are.equal(200, answer.status)
    assert.are.equal("yes", answer.headers["x-length"])
    assert.truthy(answer.body:find("GET /a%2Fb%00c ?x=1&y=%20z from 127.0.0.1 body 0 large 0\n", 1, true), answer.body)
    assert.truthy(answer.body:find("X-One=1 2\n", 1, true), answer.body)
    assert.truthy(answer.body:find("found=127.0.0.1:" .. port, 1, true), answer.body)
  end)

  it("hands over a body, up to 64 KiB", function()
    local answer = get("/echo", { body = "hello" })
    assert.truthy(answer.body:find("POST /echo ? from 127.0.0.1 body 5 large 0\nhello\n", 1, true), answer.body)
    answer = get("/echo", { body = ("x"):rep(65536) })
    assert.truthy(answer.body:find("body 65536 large 0", 1, true), answer.body)
  end)

  it("tells the handler of a larger body, whose answer the client gets to read", function()
    for _, bytes in ipairs({ 65537, 1000000, 4 * 2 ^ 20 }) do
      local answer = support.http(port, "/echo", { body = ("x"):rep(bytes) })
      -- A body beyond what is drained may be cut off while it is being sent.
      if bytes <= 2 ^ 20 or answer then
        assert.are.equal(413, answer.status)
        assert.truthy(answer.body:find("body 0 large 1", 1, true), answer.body)
      end
    end
    local chunk = "10000\r\n" .. ("x"):rep(65536) .. "\r\n"
    local head = "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert.truthy(raw(head .. chunk:rep(4) .. "0\r\n\r\n"):find("^HTTP/1.1 413"))
    raw(head .. chunk:rep(40) .. "0\r\n\r\n")
    assert.are.equal(200, get("/quick").status)
  end)

  it("gives HEAD the headers of GET and no body", function()
    local answer = get("/quick", { method = "HEAD" })
    assert.are.same({ 200, "5", "" }, { answer.status, answer.headers["content-length"], answer.body })
    answer = get("/file", { method = "HEAD" })
    assert.are.same({ tostring(#FILE), "" }, { answer.headers["content-length"], answer.body })
  end)

  it("sends a file with its length", function()
    local answer = get("/file")
    assert.are.equal(tostring(#FILE), answer.headers["content-length"])
    assert.are.equal(FILE, answer.body)
  end)

  it("answers later, and several requests on one connection", function()
    assert.are.equal("later", get("/later").body)
    local one = "GET /%s HTTP/1.1\r\nHost: x\r\n%s\r\n"
    local text = raw(one:format("quick", "") .. one:format("later", "") .. one:format("quick", "Connection: close\r\n"))
    local found = {}
    for body in text:gmatch("\r\n\r\n(%l+)") do found[#found + 1] = body end
    assert.are.same({ "quick", "later", "quick" }, found)
  end)

  it("answers what was held when something else lets it go", function()
    local slow = support.spawn({ support.fixture("http_many"), port, 50, "/hold" })
    support.eventually(function() return counters().pending >= 51 end, 10, "50 held and this one")
    assert.are.equal("ok", get("/release").body)
    slow:wait(20)
    assert.are.equal("answered 50 failed 0\n", slow:stdout())
    assert.are.equal(1, counters().pending)
  end)

  it("refuses to send headers that would split the answer, and statuses that are none", function()
    local answer = get("/refuse")
    assert.are.equal(("."):rep(12), answer.body)
    assert.is_nil(answer.headers.injected)
  end)

  it("lives through clients that go away while they wait", function()
    local leave = {}
    for i = 1, 20 do leave[i] = abandon("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n") end
    support.eventually(function() return counters().pending == 21 end, 10, "20 held")
    for i = 1, 20 do leave[i]() end
    assert.are.equal("ok", get("/release").body)
    support.eventually(function() return counters().pending == 1 end, 10, "all let go")
    assert.are.equal("quick", get("/quick").body)
  end)

  it("lives through being stopped with requests held, which are answered to nobody afterwards", function()
    local leave = {}
    for i = 1, 5 do leave[i] = abandon("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n") end
    support.eventually(function() return counters().pending == 6 end, 10, "5 held")
    support.http(port, "/stop")
    local code = server:wait(20)
    for i = 1, 5 do leave[i]() end
    assert.are.equal(0, code)
  end)

  it("is not hurt by what is not HTTP", function()
    local seed = 12345
    local function random(n)
      seed = (seed * 1103515245 + 12345) % 2 ^ 31
      return seed % n
    end
    local valid = "POST /echo?x=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    local broken = {
      "\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\n\r\n",
      "GET /" .. ("a"):rep(100000) .. " HTTP/1.1\r\nHost: x\r\n\r\n", ("\0"):rep(1000), "\22\3\1\2\0\1\0\1\252\3\3",
      "GET / HTTP/1.1\r\nHost: x\r\n" .. ("X-H: " .. ("y"):rep(100) .. "\r\n"):rep(1000) .. "\r\n",
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "GET / HTTP/1.1\nHost: x\nConnection: close\n\n",
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    }
    for _ = 1, 150 do
      local bytes = { valid:byte(1, -1) }
      for _ = 0, random(6) do bytes[1 + random(#bytes)] = random(256) end
      broken[#broken + 1] = string.char(unpack(bytes, 1, 1 + random(#bytes)))
    end
    for _, text in ipairs(broken) do abandon(text)() end
    assert.are.equal("quick", get("/quick").body)
  end)

  it("accepts again when it was full and all connections closed at once", function()
    support.declare("core/net/http_server.h")
    local full = tonumber(ffi.C.LUPE_HTTP_CONNECTIONS)
    local crowd = support.run({ support.fixture("http_many"), port, full, "/hold?" .. full }, { seconds = 90 })
    assert.are.equal(("answered %d failed 0\n"):format(full), crowd.out)
    assert.are.equal("quick", get("/quick").body)
  end)

  it("answers 10,000 requests at once, with bounded memory", function()
    local before = rss_kib()
    local crowd = support.run({ support.fixture("http_many"), port, 10000, "/later" }, { seconds = 90 })
    assert.are.equal("answered 10000 failed 0\n", crowd.out)
    if not support.sanitized then
      assert.is_true(rss_kib() - before < 24 * 1024, ("grew by %d KiB"):format(rss_kib() - before))
    end
    local c = counters()
    assert.are.equal(10001, c.requests)
    assert.are.equal(1, c.pending)
  end)

  it("listens on an IPv6 address too, and says why it cannot on others", function()
    local six = support.run({ support.fixture("http_echo"), "127.0.0.1", port, "/dev/null" })
    assert.are.equal("address in use\n", six.out)
    local named = support.run({ support.fixture("http_echo"), "localhost", 0, "/dev/null" })
    assert.are.equal(1, named.code)
    local second = support.spawn({ support.fixture("http_echo"), "::1", 0, "/dev/null" })
    local own = support.eventually(function() return second:stdout():match("^(%d+)\n") end, 10, "its port")
    local function fetch(path)
      return support.run({ "curl", "-sg", "--max-time", "10", ("http://[::1]:%s/%s"):format(own, path) }).out
    end
    assert.truthy(fetch("echo"):find("from ::1 ", 1, true))
    assert.are.equal("stopping", fetch("stop"))
    assert.are.equal(0, (second:wait(10)))
  end)
end)
