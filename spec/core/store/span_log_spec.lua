local ffi = require("ffi")
local support = require("spec.support")

support.declare("core/store/span_log.h")
ffi.cdef("void free(void *);")
local core = support.core()
local OK = 0
local NOW = 1700000000

describe("the span log", function()
  local log
  before_each(function()
    local out = ffi.new("lupe_span_log *[1]")
    assert(core.lupe_span_log_create(out) == OK)
    log = ffi.gc(out[0], core.lupe_span_log_free)
  end)
  after_each(support.cleanup)

  --- So many spans of `ns` each.
  local function add(second, target, name, ns, count, place)
    local change = ffi.new("lupe_span_change")
    local key = ffi.new("lupe_span_key", { target, name, place or 0 })
    change.count, change.total_ns, change.longest_ns = count or 1, ns * (count or 1), ns
    change.buckets[ns % 160] = count or 1
    return tonumber(core.lupe_span_log_add(log, second, key, change))
  end

  local function sum(from, to, owners)
    local list = ffi.new("lupe_span_owner[?]", #owners + 1, owners)
    local rows, count = ffi.new("lupe_span_sum *[1]"), ffi.new("size_t[1]")
    assert.equal(OK, tonumber(core.lupe_span_log_sum(log, from, to, list, #owners, rows, count)))
    local found = {}
    for i = 1, tonumber(count[0]) do
      local r, buckets = rows[0][i - 1], {}
      for b = 0, 159 do
        if r.buckets[b] > 0 then buckets[b] = r.buckets[b] end
      end
      found[i] = {
        row = r.row, name = r.name, count = r.count, total = r.total_ns, max = r.max_ns, place = tonumber(r.place),
        buckets = buckets,
      }
    end
    ffi.C.free(rows[0])
    return found
  end

  it("sums what ended in a window, by target and name", function()
    add(NOW, 1, 7, 10, 2)
    add(NOW, 1, 7, 30)
    add(NOW + 1, 1, 7, 20)
    add(NOW + 1, 1, 8, 5)
    add(NOW + 2, 1, 7, 100)
    assert.same({
      { row = 0, name = 7, count = 4, total = 70, max = 30, place = 0, buckets = { [10] = 2, [20] = 1, [30] = 1 } },
      { row = 0, name = 8, count = 1, total = 5, max = 5, place = 0, buckets = { [5] = 1 } },
    }, sum(NOW, NOW + 2, { { 1, 0 } }))
    assert.equal(1, sum(NOW + 2, NOW + 3, { { 1, 0 } })[1].count)
    assert.same({}, sum(NOW + 3, NOW + 9, { { 1, 0 } }))
  end)

  it("shows what belongs to several processes in the rows that are asked for", function()
    add(NOW, 1, 7, 10)
    add(NOW, 2, 7, 20)
    add(NOW, 3, 7, 30)
    local found = sum(NOW, NOW + 1, { { 1, 1 }, { 3, 0 } })
    assert.same({ 0, 30, 1, 10 }, { found[1].row, found[1].total, found[2].row, found[2].total })
    assert.equal(60, sum(NOW, NOW + 1, { { 1, 0 }, { 2, 0 }, { 3, 0 } })[1].total)
  end)

  it("knows the newest place that was told", function()
    add(NOW, 1, 7, 10, 1, 55)
    add(NOW + 1, 1, 7, 10, 1, 66)
    add(NOW + 2, 1, 7, 10, 1, 0)
    assert.equal(66, sum(NOW, NOW + 3, { { 1, 0 } })[1].place)
  end)

  it("hands the spans of a process that is forgotten to another", function()
    add(NOW, 1, 7, 10)
    add(NOW, 2, 7, 20)
    core.lupe_span_log_hand_over(log, ffi.new("lupe_sample_heir[1]", { { 1, 2 } }), 1)
    assert.same({ 0, 2 }, { #sum(NOW, NOW + 1, { { 1, 0 } }), sum(NOW, NOW + 1, { { 2, 0 } })[1].count })
  end)

  it("reaches ten minutes back, and says so", function()
    add(NOW, 1, 7, 10)
    for second = 1, 700, 100 do add(NOW + second, 1, 7, 10) end
    assert.equal(NOW + 2, tonumber(core.lupe_span_log_from(log)))
    assert.equal(6, sum(0, NOW + 1000, { { 1, 0 } })[1].count)
  end)

  it("takes what comes with a clock that was set back as of a second that it has", function()
    add(NOW, 1, 7, 10)
    add(NOW + 5, 1, 7, 10)
    assert.equal(OK, add(NOW - 100, 1, 7, 20))
    assert.equal(2, sum(NOW, NOW + 1, { { 1, 0 } })[1].count)
  end)

  it("stays within its bound: the oldest seconds go", function()
    local bytes = tonumber(core.LUPE_SPAN_LOG_BYTES)
    local change, key = ffi.new("lupe_span_change"), ffi.new("lupe_span_key", { 1, 7, 0 })
    for b = 0, 159 do change.buckets[b] = 1 end
    for second = 0, 19 do
      for _ = 1, 1000 do core.lupe_span_log_add(log, NOW + second, key, change) end
    end
    assert.is_true(tonumber(core.lupe_span_log_bytes(log)) <= bytes)
    local from = tonumber(core.lupe_span_log_from(log))
    assert.is_true(from > NOW and from < NOW + 19, from - NOW)
    assert.equal(160 * 1000 * (NOW + 20 - from), sum(0, NOW + 99, { { 1, 0 } })[1].count)
  end)

  it("shows what is beyond its sums with the first process that has the name", function()
    local most, owners = tonumber(core.LUPE_SPAN_SUMS_MAX), {}
    for i = 1, most + 10 do
      add(NOW, i, 7, 10)
      owners[i] = { i, i }
    end
    add(NOW, most + 1, 8, 10) -- a name that no row has
    local found, all = sum(NOW, NOW + 1, owners), 0
    for _, row in ipairs(found) do all = all + row.count end
    assert.same({ most, most + 10, 11 }, { #found, all, found[1].count })
  end)
end)
