local ffi = require("ffi")
local support = require("spec.support")

support.declare("core/store/sample_log.h")
support.declare("core/store/seconds.h")
ffi.cdef("void free(void *);")
local core = support.core()
local OK, ENOMEM = 0, tonumber(core.LUPE_ENOMEM)
local ROWS, SECONDS = core.LUPE_SAMPLE_ROWS_MAX, core.LUPE_SECONDS_MAX
local NOW, NO_STACK = 1700000000, 2 ^ 32 - 1

describe("the sample log", function()
  local log
  before_each(function()
    local out = ffi.new("lupe_sample_log *[1]")
    assert(core.lupe_sample_log_create(out) == OK)
    log = ffi.gc(out[0], core.lupe_sample_log_free)
  end)
  after_each(support.cleanup)

  local number = ffi.new("uint32_t[1]")
  local function thread(target, tid, second)
    local status = tonumber(core.lupe_sample_log_thread(log, target, tid, second or NOW, number))
    return status == OK and number[0] or nil, status
  end

  local sample = ffi.new("lupe_sample")
  local function add(second, fields)
    sample.stack, sample.state = fields.stack or 1, fields.state or 0
    sample.thread = fields.thread or thread(1, 1, second)
    sample.count, sample.ns, sample.switches = fields.count or 1, fields.ns or 10, fields.switches or 0
    core.lupe_sample_log_add(log, second, sample)
  end

  local function sum(from, to, targets)
    targets = targets or { 1 }
    local rows, count = ffi.new("lupe_sample *[1]"), ffi.new("size_t[1]")
    local list = ffi.new("uint32_t[?]", #targets + 1, targets)
    assert(core.lupe_sample_log_sum(log, from, to, list, #targets, rows, count) == OK)
    local found = {}
    for i = 1, tonumber(count[0]) do
      local r = rows[0][i - 1]
      found[i] = { stack = r.stack, state = r.state, thread = r.thread, count = r.count, ns = tonumber(r.ns),
        switches = r.switches }
    end
    ffi.C.free(rows[0])
    return found
  end

  local function total(from, to, targets)
    local count = 0
    for _, row in ipairs(sum(from, to, targets)) do count = count + row.count end
    return count
  end

  it("sums what has the same stack, thread and state", function()
    local one, two = thread(1, 1), thread(1, 2)
    add(NOW, { stack = 5, thread = one, count = 2, ns = 20, switches = 1 })
    add(NOW, { stack = 5, thread = one, count = 1, ns = 10, switches = 4 })
    add(NOW + 1, { stack = 5, thread = one, ns = 7 })
    add(NOW + 1, { stack = 6, thread = one, ns = 1 })
    add(NOW + 1, { stack = 5, thread = two, ns = 2 })
    add(NOW + 1, { stack = 5, thread = one, state = 3, ns = 3 })
    assert.equal(5, tonumber(core.lupe_sample_log_rows(log))) -- within a second they are summed at once
    assert.same({
      { stack = 5, state = 0, thread = one, count = 4, ns = 37, switches = 5 },
      { stack = 6, state = 0, thread = one, count = 1, ns = 1, switches = 0 },
      { stack = 5, state = 0, thread = two, count = 1, ns = 2, switches = 0 },
      { stack = 5, state = 3, thread = one, count = 1, ns = 3, switches = 0 },
    }, sum(NOW, NOW + 2))
  end)

  it("answers for any window and choice of targets", function()
    for i = 0, 9 do add(NOW + i, { thread = thread(i % 2, 7, NOW + i) }) end
    assert.equal(10, total(NOW, NOW + 10, { 1, 0 }))
    assert.equal(5, total(NOW, NOW + 10, { 0 }))
    assert.equal(3, total(NOW + 3, NOW + 6, { 0, 1 }))
    assert.same({}, sum(NOW + 10, NOW + 99, { 0, 1 }))
    assert.same({}, sum(NOW, NOW + 10, { 2 }))
    assert.same({}, sum(NOW, NOW + 10, {}))
  end)

  it("takes seconds in any order", function()
    for _, i in ipairs { 50, 3, 49, 4, 50, 20, 3 } do add(NOW + i, { stack = i }) end
    assert.equal(7, total(NOW, NOW + 60))
    local order = {}
    for i, row in ipairs(sum(NOW, NOW + 60)) do order[i] = row.stack end
    assert.same({ 3, 4, 20, 49, 50 }, order)
    for i = 1, 300 do add(NOW + 3, { stack = i }) end
    assert.equal(302, total(NOW + 3, NOW + 4))
  end)

  it("forgets what is ten minutes old, and says from when on it is whole", function()
    assert.equal(-2 ^ 63, tonumber(core.lupe_sample_log_from(log)))
    for i = 0, SECONDS + 9 do add(NOW + i, {}) end
    assert.equal(SECONDS, total(NOW, NOW + 9999))
    assert.equal(NOW + 10, tonumber(core.lupe_sample_log_from(log)))
    add(NOW + 9, { count = 3 })
    assert.equal(SECONDS, total(NOW, NOW + 9999))
    assert.equal(3, tonumber(core.lupe_sample_log_lost(log)))
    add(NOW + 99999, {})
    assert.equal(1, total(NOW, NOW + 999999))
    add(NOW + 2 * SECONDS, {}) -- between the two
    assert.equal(1, total(NOW, NOW + 999999))
  end)

  it("lets the oldest seconds go when it is full", function()
    local per_second = 1000
    local seconds = math.ceil(ROWS / per_second) + 20
    for i = 0, seconds - 1 do
      local t = thread(1, 1, NOW + i)
      for k = 1, per_second do add(NOW + i, { stack = k, thread = t }) end
    end
    assert.is_true(tonumber(core.lupe_sample_log_rows(log)) <= ROWS)
    local from = tonumber(core.lupe_sample_log_from(log))
    assert.is_true(from > NOW and from < NOW + 30, from - NOW)
    assert.equal((NOW + seconds - from) * per_second, total(0, NOW + 9999))
    assert.equal(0, tonumber(core.lupe_sample_log_lost(log)))
  end)

  it("loses and counts what finds no room in one second", function()
    local t = thread(1, 1)
    for i = 1, ROWS + 10 do add(NOW, { stack = i, thread = t, count = 2 }) end
    assert.equal(ROWS, tonumber(core.lupe_sample_log_rows(log)))
    assert.equal(20, tonumber(core.lupe_sample_log_lost(log)))
    add(NOW, { stack = 1, thread = t }) -- where there is a row, there is room
    assert.equal(2 * ROWS + 1, total(NOW, NOW + 1))
    add(NOW + 1, { stack = 1, thread = thread(1, 1, NOW + 1) })
    assert.equal(1, total(NOW, NOW + 2))
  end)

  it("stays at the largest figure rather than begin anew", function()
    for _ = 1, 3 do add(NOW, { count = 2 ^ 31, switches = 2 ^ 31, ns = ffi.cast("uint64_t", -10) }) end
    local row = sum(NOW, NOW + 1)[1]
    assert.equal(2 ^ 32 - 1, row.count)
    assert.equal(2 ^ 32 - 1, row.switches)
    assert.equal(2 ^ 64, row.ns)
  end)

  it("tells which stacks it has, and takes new ids for them", function()
    for second = 0, 20 do -- open ones and closed ones
      for i = 1, 60 do add(NOW + second, { stack = 10 * i, ns = i }) end
      add(NOW + second, { stack = NO_STACK, ns = 1000 })
    end
    local ids = ffi.new("uint32_t[1000]")
    core.lupe_sample_log_mark_stacks(log, ids)
    for i = 0, 999 do
      assert.equal(i % 10 == 0 and i >= 10 and i <= 600 and 1 or 0, ids[i])
      ids[i] = i / 10
    end
    core.lupe_sample_log_renumber_stacks(log, ids)
    for second = 15, 20 do
      for i = 1, 60 do add(NOW + second, { stack = i, ns = i }) end -- there are rows of these
    end
    assert.equal(21 * 61, tonumber(core.lupe_sample_log_rows(log)))
    local rows = sum(NOW, NOW + 21)
    assert.equal(61, #rows)
    for i = 1, 60 do assert.same({ i, i * 27 }, { rows[i].stack, rows[i].ns }) end
    assert.same({ NO_STACK, 21000 }, { rows[61].stack, rows[61].ns })
  end)

  it("knows threads by target and tid, and keeps their names", function()
    local a, b, c = thread(1, 7), thread(1, 8), thread(2, 7)
    assert.is_true(a ~= b and b ~= c and a ~= c)
    ffi.copy(core.lupe_sample_log_thread_at(log, a).name, "worker")
    assert.equal(a, thread(1, 7, NOW + 5))
    local shown = core.lupe_sample_log_thread_at(log, a)
    assert.same({ 1, 7, "worker" }, { shown.target, shown.tid, ffi.string(shown.name) })
    assert.equal(3, core.lupe_sample_log_threads(log))
  end)

  it("gives the numbers of forgotten threads out again, never those of others", function()
    local MOST = core.LUPE_SAMPLE_THREADS_MAX
    local second, used = NOW, 0
    for tid = 1, 4 * MOST do -- a thread for each request
      if tid % 200 == 0 then second = second + 1 end
      local t = assert(thread(1, tid, second))
      used = math.max(used, t)
      add(second, { stack = tid, thread = t })
    end
    assert.is_true(used < MOST)
    local from = tonumber(core.lupe_sample_log_from(log))
    assert.is_true(second - from > 150, second - from) -- two thirds of what there is room for
    for _, row in ipairs(sum(from, second + 1)) do
      assert.equal(row.stack, core.lupe_sample_log_thread_at(log, row.thread).tid)
    end
  end)

  it("takes no more threads than it has numbers for in one second", function()
    local MOST = core.LUPE_SAMPLE_THREADS_MAX
    local refused = 0
    for tid = 1, MOST + 5000 do
      local t, status = thread(1, tid)
      if t then
        add(NOW, { thread = t })
      else
        assert.equal(ENOMEM, status)
        refused = refused + 1
      end
    end
    assert.equal(5000, refused)
    assert.equal(MOST, total(NOW, NOW + 1))
    assert.is_truthy(thread(1, 1))
    for i = 1, SECONDS do add(NOW + i, { thread = thread(1, 1, NOW + i) }) end
    assert.is_truthy(thread(1, MOST + 1, NOW + SECONDS))
  end)

  it("hands a target's samples over to another, as threads of their own", function()
    add(NOW, { thread = thread(1, 7), ns = 1 })
    add(NOW, { thread = thread(2, 7), ns = 2 })
    core.lupe_sample_log_hand_over(log, ffi.new("lupe_sample_heir[2]", { { 2, 1 }, { 0, 3 } }), 2)
    assert.same({}, sum(NOW, NOW + 1, { 2 }))
    local rows = sum(NOW, NOW + 1, { 1 })
    assert.same({ 1, 2 }, { rows[1].ns, rows[2].ns })
    assert.is_true(rows[1].thread ~= rows[2].thread)
    add(NOW + 1, { thread = thread(1, 7, NOW + 1), ns = 4 })
    assert.equal(3, total(NOW, NOW + 2, { 1 }))
  end)
end)
