--- Threads, spans and the run's past, as rules see them.
require("spec.support")
local buckets = require("lupe.span_buckets")
local view = require("lupe.view")

describe("the threads of a view", function()
  local function described()
    return view.from_table({
      memory = {
        { time_ms = 0, threads = 4 }, { time_ms = 1000, threads = 8 }, { time_ms = 2000, threads = 6 },
      },
      targets = { { pid = 7 }, { pid = 8 } },
      profile = {
        threads = { { tid = 71, pid = 7, name = "idler" }, { tid = 81, pid = 8, name = "worker" } },
        samples = {
          { thread = 2, stack = { "work" }, ns = 3e9 }, { thread = 1, stack = { "work" }, ns = 1e9 },
          { thread = 2, stack = { "libc.so.6!read", "work" }, state = "waiting", syscall = 0, ns = 4e9 },
        },
      },
    }).threads
  end

  it("are counted over time", function()
    local threads = described()
    assert.same({ 6, 8 }, { threads.count, threads.highest })
    assert.same({ { time_ms = 0, count = 4 }, { time_ms = 1000, count = 8 }, { time_ms = 2000, count = 6 } },
      threads.rows)
    assert.equal(1, threads:slope())
    assert.is_nil(threads.reason)
  end)

  it("have their shares of the time", function()
    local busiest = described().list[1]
    assert.same({ 8, 81, "worker", 75, 87.5 },
      { busiest.pid, busiest.tid, busiest.name, busiest.cpu_percent, busiest.wall_percent })
  end)

  it("are not known where nothing was read, and say why none was seen", function()
    local unknown = view.from_table({}).threads
    assert.is_nil(unknown.count)
    assert.is_nil(unknown.highest)
    assert.same({ {}, {}, "wall profiling is off" }, { unknown.rows, unknown.list, unknown.reason })
    assert.equal("no reading yet", select(2, unknown:slope()))
    local idle = view.from_table({ profile = { threads = {}, samples = {} } }).threads
    assert.equal("no sample was taken in the window", idle.reason)
  end)
end)

describe("the spans of a view", function()
  local function described()
    return view.from_table({
      targets = { { pid = 7 }, { pid = 8 } }, profile = { from_ms = 0, to_ms = 10000, samples = {} },
      spans = {
        { name = "flush", durations_ms = { 2 } },
        { name = "request", pid = 7, durations_ms = { 10, 20, 30 } },
        { name = "request", pid = 8, durations_ms = { 40, 1000 } },
      },
    }).spans
  end

  it("are one per name over all processes, most time first", function()
    local spans = described()
    assert.same({ 2, "request", "flush" }, { #spans.list, spans.list[1].name, spans.list[2].name })
    local request = spans:named("request")
    assert.equal(spans.list[1], request)
    assert.same({ 5, 1.1e9, 2.2e8, 1e9, 0.5 },
      { request.count, request.total_ns, request.mean_ns, request.max_ns, request.per_second })
    assert.is_nil(spans.reason)
  end)

  it("have quantiles within a quarter of the true ones", function()
    local durations, state = {}, 1
    for i = 1, 2000 do -- from a microsecond to ten seconds
      state = state * 16807 % 2147483647
      durations[i] = 10 ^ (7 * state / 2147483647 - 3)
    end
    local span = view.from_table({ spans = { { name = "s", durations_ms = durations } } }).spans:named("s")
    table.sort(durations)
    local quantiles = { [0.1] = span:quantile(0.1), [0.5] = span.p50_ns, [0.95] = span.p95_ns, [0.99] = span.p99_ns }
    for q, given in pairs(quantiles) do
      local true_ns = durations[math.ceil(q * 2000)] * 1e6
      assert.is_true(math.abs(given - true_ns) <= 0.25 * true_ns, ("%g: %g, not %g"):format(q, given, true_ns))
    end
    assert.equal(durations[2000] * 1e6, span.max_ns)
    assert.equal(span.max_ns, span:quantile(1))
  end)

  it("never have a quantile above the longest, nor one of nothing", function()
    local one = described():named("flush")
    assert.is_true(one.p99_ns <= 2e6 and one.p50_ns >= 1.5e6)
    assert.is_nil(view.from_table({ spans = { { name = "none" } } }).spans:named("none").p95_ns)
    assert.has_error(function() one:quantile(95) end, "span:quantile: expected a number from 0 to 1, got 95")
  end)

  it("are none where the program marks none, and say so", function()
    local spans = view.from_table({}).spans
    assert.same({ {}, "the program marks no spans" }, { spans.list, spans.reason })
    assert.same({ nil, "the program marks no spans" }, { spans:named("request") })
    assert.same({ nil, "no span 'reqest' ended in the window" }, { described():named("reqest") })
  end)

  it("say which function begins them, where it is one", function()
    local spans = view.from_table({
      targets = { { pid = 1 }, { pid = 2 } },
      spans = {
        { name = "request", pid = 1, durations_ms = { 2, 4 }, begun_in = "libweb.so!on_request" },
        { name = "request", pid = 2, durations_ms = { 6 }, begun_in = "libweb.so!on_request" },
        { name = "parse", durations_ms = { 1 }, begun_in = "work" },
        { name = "render", durations_ms = { 1 }, begun_in = "work" },
        { name = "job", pid = 1, durations_ms = { 1 }, begun_in = "one" },
        { name = "job", pid = 2, durations_ms = { 2 }, begun_in = "two" },
        { name = "idle", begun_in = "never" },
        { name = "somewhere", durations_ms = { 1 } },
      },
    }).spans
    local request = spans:named("request")
    assert.same({ "on_request", "libweb.so", 3 }, { request.function_name, request.module, request.count })
    assert.same({ name = "request", count = 3, mean_ns = 4e6 }, spans:begun_in("on_request", "libweb.so"))
    assert.same({ nil, "it begins no span" }, { spans:begun_in("on_request", "app") })
    assert.same({ nil, "it begins spans of several names" }, { spans:begun_in("work", "app") })
    assert.same({ nil, "no span ended in the window" }, { spans:begun_in("never", "app") })
    assert.same({}, { spans:named("job").function_name, spans:named("somewhere").function_name })
    assert.same({ name = "job", count = 1, mean_ns = 2e6 }, spans:begun_in("two", "app"))
  end)

  it("tell how many there were since the run began, and what was lost", function()
    local spans = view.from_table({
      spans = { { name = "request", durations_ms = { 2, 4 } } }, span_seconds = 4, names_lost = 1, spans_lost = 2,
      profile = { from_ms = 0, to_ms = 60000 },
    }).spans
    assert.same({ { name = "request", count = 2, total_ns = 6e6 } }, spans.totals())
    assert.same({ 1, 2, 4, 0.5 }, { spans.names_lost, spans.spans_lost, spans.seconds, spans.list[1].per_second })
  end)
end)

describe("the buckets of spans", function()
  it("follow each other without a gap, none wider than a quarter", function()
    for b = 0, 158 do
      local from, to = buckets.begins(b), buckets.begins(b + 1)
      assert.equal(b, buckets.of(from, 160))
      assert.equal(b, buckets.of(to - 1, 160))
      if b >= 4 then assert.is_true((to - from) / from <= 0.25) end
    end
    assert.equal(159, buckets.of(2 ^ 60, 160))
  end)
end)

describe("the history of a view", function()
  local function described()
    return view.from_table({
      started_ms = 1000, time_ms = 7000,
      sites = { { name = "a", history = { 10, 20, 40 } } }, allocated = { 0, 30, 50 },
      memory = { { time_ms = 2500, rss_bytes = 100 }, { time_ms = 6500, rss_bytes = 300 } },
    }).history
  end

  it("reaches from the first reading to the last", function()
    local history = described()
    assert.same({ 6, 2000, 6500 }, { history.seconds, history.from_ms, history.to_ms })
    assert.same({}, { view.from_table({}).history.from_ms })
  end)

  it("gives the heap and every figure of memory as series", function()
    assert.same({ { 2000, 3000, 4000 }, { 10, 20, 40 } }, { described():series("inuse_space") })
    assert.same({ { 3000, 4000 }, { 30, 50 } }, { described():series("allocated") })
    assert.same({ { 2500, 6500 }, { 100, 300 } }, { described():series("rss_bytes") })
    assert.same({ {}, {} }, { described():series("active_bytes") })
  end)

  it("tells what a figure was at a time", function()
    local history = described()
    assert.same({ 20, 3000 }, { history:at("inuse_space", 3999) })
    assert.same({ 40, 4000 }, { history:at("inuse_space", 1e9) })
    assert.same({ nil, "no reading is as old as that" }, { history:at("rss_bytes", 2499) })
    assert.same({ nil, "no reading yet" }, { history:at("active_bytes", 2499) })
  end)

  it("tells how a figure changed since a time", function()
    assert.same({ change = 200, first = 100, last = 300, from_ms = 2500, to_ms = 6500, per_second = 50 },
      described():change("rss_bytes"))
    assert.same({ 20, 3000 }, (function(c) return { c.change, c.from_ms } end)(
      described():change("inuse_space", { since_ms = 2001 })))
    assert.same({ nil, "1 readings, at least 2 are needed" }, { described():change("rss_bytes", { since_ms = 3000 }) })
    assert.same({ nil, "0 readings, at least 2 are needed" }, { described():change("rss_bytes", { since_ms = 9000 }) })
  end)

  it("refuses a figure that it does not have, and names the nearest", function()
    for _, method in ipairs({ "series", "at", "change" }) do
      local history = described()
      local ok, message = pcall(history[method], history, "rss_byte", 0)
      assert.is_false(ok)
      assert.matches("^history:" .. method .. ": no field 'rss_byte', did you mean 'rss_bytes'%?; known: ", message)
    end
  end)
end)
