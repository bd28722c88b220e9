--- The reader of what a process marks, against segments written by hand.
local ffi = require("ffi")
local support = require("spec.support")
local marks = require("spec.support_marks")

local core = support.core()
local OK, ECORRUPT, EVERSION = 0, tonumber(core.LUPE_ECORRUPT), tonumber(core.LUPE_EVERSION)

describe("the reader of marks", function()
  local segment
  before_each(function() segment = marks.segment() end)
  after_each(support.cleanup)

  local function open(of)
    local out = ffi.new("lupe_marks_reader *[1]")
    local status = tonumber(core.lupe_marks_reader_create(out, (of or segment).fd))
    return status == OK and ffi.gc(out[0], core.lupe_marks_reader_free) or nil, status
  end

  --- What ended since the last reading, by name: { count, total_ns, longest_ns, [bucket] = n }.
  local function read(reader)
    local list = {}
    local each = ffi.cast("lupe_span_change_cb", function(_, change)
      local found = {
        count = tonumber(change.count), total = tonumber(change.total_ns), longest = tonumber(change.longest_ns),
        buckets = {},
      }
      for b = 0, 159 do
        if change.buckets[b] > 0 then found.buckets[b] = change.buckets[b] end
      end
      list[change.name] = found
    end)
    local status = tonumber(core.lupe_marks_reader_read(reader, each, nil))
    each:free()
    assert.equal(OK, status)
    return list
  end

  local function text(reader, number)
    local out = ffi.new("char[96]")
    return core.lupe_marks_reader_name(reader, number, out) and ffi.string(out) or nil
  end

  it("gives names that are there, and none that are being written", function()
    segment:name(3, "html::cache", 0x401000)
    segment:name(4, "half")
    segment.at.names[4].state = 1
    local reader = open()
    assert.same({ "html::cache", nil, nil, nil },
      { text(reader, 3), text(reader, 4), text(reader, 1024), text(reader, 2 ^ 32 - 1) })
    assert.equal(0x401000, tonumber(core.lupe_marks_reader_place(reader, 3)))
    assert.equal(0, tonumber(core.lupe_marks_reader_place(reader, 5000)))
  end)

  it("cuts and cleans texts", function()
    segment:name(0, ("x"):rep(96))
    segment:name(1, "two\nlines \255 \1")
    segment:name(2, "")
    segment:name(3, "größe")
    local reader = open()
    assert.same({ ("x"):rep(95), "two?lines ? ?", "?", "größe" },
      { text(reader, 0), text(reader, 1), text(reader, 2), text(reader, 3) })
  end)

  it("tells what ended since the last reading, summed over all threads", function()
    segment:name(0, "request")
    segment:span(0, 3, 1000, 1000000)
    segment:block(0, 1).count, segment:block(0, 1).total_ns = 1, 5
    segment:block(0, 1).buckets[5] = 1
    local reader = open()
    assert.same({ [0] = {
      count = 4, total = 1001008, longest = 1000000, buckets = { [3] = 1, [5] = 1, [35] = 1, [75] = 1 },
    } }, read(reader))
    assert.same({}, read(reader))
    segment:span(0, 8)
    assert.same({ [0] = { count = 1, total = 8, longest = 8, buckets = { [8] = 1 } } }, read(reader))
  end)

  it("counts the epoch up with each reading, so that the longest begins anew", function()
    segment:span(0, 100000)
    local reader = open()
    assert.equal(100000, read(reader)[0].longest)
    assert.equal(1, segment.at.epoch)
    segment:span(0, 50)
    segment:span(0, 70)
    assert.equal(70, read(reader)[0].longest)
  end)

  it("takes a longest that was written as the epoch went on for the next reading", function()
    segment:span(0, 1000)
    local reader = open()
    read(reader)
    local block = segment:block(0) -- still in the epoch before: it had looked before the reading
    block.count, block.total_ns, block.longest_ns = 2, 6000, 5000
    block.buckets[44] = 1
    assert.equal(5000, read(reader)[0].longest)
  end)

  it("never says that the longest is shorter than its bucket", function()
    segment:span(0, 4096)
    segment:block(0).longest_ns = 1
    assert.equal(4096, read(open())[0].longest)
  end)

  it("does not tell again what another runtime has read", function()
    segment:span(0, 10, 20)
    segment.at.epoch = 7
    local reader = open()
    assert.same({}, read(reader))
    segment:span(0, 30)
    assert.equal(1, read(reader)[0].count)
  end)

  it("takes counts that go back, numbers out of bounds and blocks without a name as nothing", function()
    segment:span(0, 10, 20)
    local reader = open()
    read(reader)
    segment:block(0).count, segment:block(0).total_ns = 1, 0
    segment:block(0).buckets[10] = 0
    segment.at.blocks[1].name, segment.at.blocks[1].count = 5000, 3
    segment.at.blocks[2].name, segment.at.blocks[2].count = 0, 3
    segment.at.block_count = 2 ^ 32 - 1
    assert.same({}, read(reader))
    segment.at.block_count = 0
    segment:span(0, 10)
    assert.equal(1, read(reader)[0].count)
  end)

  it("keeps a count within 32 bits, however large it is said to be", function()
    local block = segment:block(1)
    block.count, block.total_ns, block.buckets[159], block.longest_ns = -1ULL, -1ULL, -1ULL, -1ULL
    local change = read(open())[1]
    assert.same({ 2 ^ 32 - 1, { [159] = 2 ^ 32 - 1 } }, { change.count, change.buckets })
  end)

  it("tells one segment from another", function()
    local one, same, other = open(), open(), open(marks.segment())
    assert.is_true(core.lupe_marks_reader_same(one, same))
    assert.is_false(core.lupe_marks_reader_same(one, other))
  end)

  local function refuses(what, status, make)
    it("refuses " .. what, function()
      local _, got = open(make())
      assert.equal(status, got)
    end)
  end

  refuses("what could shrink", ECORRUPT, function() return marks.segment({ sealed = false }) end)
  refuses("another size", ECORRUPT, function() return marks.segment({ bytes = 4096 }) end)
  refuses("a larger one", ECORRUPT, function() return marks.segment({ bytes = ffi.sizeof("lupe_marks") + 8192 }) end)
  refuses("another magic", ECORRUPT, function()
    segment.at.magic = 1
    return segment
  end)
  refuses("another version", EVERSION, function()
    segment.at.version = 2
    return segment
  end)
  refuses("another size said", ECORRUPT, function()
    segment.at.bytes = 1
    return segment
  end)
  refuses("what is no memfd", ECORRUPT, function() return { fd = 0 } end)
end)
