--- The shared segment: what goes in comes out whole, and nothing that the other side writes does harm.
local ffi = require("ffi")
local support = require("spec.support")

support.declare("core/lupe.h")
support.declare("core/wire/record.h")
support.declare("core/wire/ring.h")
ffi.cdef([[
int memfd_create(const char *name, unsigned flags);
int ftruncate(int fd, long bytes);
int fcntl(int fd, int command, ...);
void *mmap(void *at, size_t bytes, int protection, int flags, int fd, long offset);
int munmap(void *at, size_t bytes);
]])
local C, core = ffi.C, support.core()

local OK, AGAIN, CORRUPT, VERSION = 0, 4, 5, 6
local HEAP, TRUNCATED = 2, 1
local RING_BYTES, RING_OFFSET = 2 ^ 20, tonumber(core.LUPE_RING_OFFSET)
local SEGMENT_BYTES = tonumber(core.LUPE_SEGMENT_BYTES)

local function new_segment()
  local fd, segment = ffi.new("int[1]"), ffi.new("lupe_segment *[1]")
  assert.are.equal(OK, tonumber(core.lupe_segment_create(fd, segment)))
  return segment[0], fd[0]
end

local function new_reader(fd)
  local reader = ffi.new("lupe_ring_reader *[1]")
  local status = tonumber(core.lupe_ring_reader_create(reader, fd))
  return status == OK and reader[0] or nil, status
end

local function push(segment, depth, options)
  options = options or {}
  local fields = ffi.new("lupe_record")
  fields.kind, fields.depth, fields.tid = HEAP, depth, options.tid or 7
  fields.weight, fields.time_ns = 1, options.time_ns or 1
  local frames = ffi.new("uint64_t[?]", math.max(depth, 1))
  for i = 0, depth - 1 do frames[i] = 1000 + i end
  return core.lupe_ring_push(segment, fields, frames)
end

describe("the ring", function()
  local segment, fd, reader, copy

  before_each(function()
    segment, fd = new_segment()
    reader = assert(new_reader(fd))
    copy = ffi.new("lupe_record_copy")
  end)

  after_each(function()
    core.lupe_ring_reader_free(reader)
    core.lupe_segment_unmap(segment)
    C.close(fd)
  end)

  local function pop() return tonumber(core.lupe_ring_reader_pop(reader, copy)) end

  it("says that nothing is there while nothing is", function() assert.are.equal(AGAIN, pop()) end)

  it("gives a record back with every field and frame", function()
    assert.is_true(push(segment, 3, { tid = 42, time_ns = 99 }))
    assert.are.equal(OK, pop())
    assert.are.equal(3, copy.depth)
    assert.are.equal(42, copy.tid)
    assert.are.equal(1, copy.weight)
    assert.are.equal(99, tonumber(copy.time_ns))
    assert.are.equal(1002, tonumber(copy.frames[2]))
    assert.are.equal(AGAIN, pop())
  end)

  it("carries a record without frames", function()
    assert.is_true(push(segment, 0))
    assert.are.equal(OK, pop())
    assert.are.equal(0, copy.depth)
  end)

  it("keeps order and content over many turns of the ring", function()
    for turn = 1, 20000 do
      assert(push(segment, turn % 129, { time_ns = turn }))
      assert(pop() == OK and copy.time_ns == turn and copy.depth == turn % 129)
      assert(copy.depth == 0 or copy.frames[copy.depth - 1] == 1000 + copy.depth - 1)
    end
    assert.is_true(tonumber(segment.head) > 5 * RING_BYTES)
  end)

  it("cuts a stack that is too deep, and flags it", function()
    assert.is_true(push(segment, 200))
    assert.are.equal(OK, pop())
    assert.are.equal(128, copy.depth)
    assert.are.equal(TRUNCATED, copy.flags)
  end)

  it("drops and counts what does not fit, and takes more once there is room", function()
    local pushed = 0
    while push(segment, 100) do pushed = pushed + 1 end
    assert.are.equal(math.floor(RING_BYTES / 832), pushed)
    assert.is_false(push(segment, 100))
    assert.are.equal(2, tonumber(segment.counters.dropped_records))
    for _ = 1, 2 do assert.are.equal(OK, pop()) end
    assert.is_true(push(segment, 100))
    for _ = 1, pushed - 1 do assert.are.equal(OK, pop()) end
    assert.are.equal(AGAIN, pop())
  end)

  it("waits for a record that is reserved and not yet written", function()
    segment.head = 24
    assert.are.equal(AGAIN, pop())
    assert.are.equal(0, tonumber(core.lupe_ring_reader_corruptions(reader)))
  end)

  it("gives a record up that is never written, once half of the ring waits behind it", function()
    segment.head = 24
    while push(segment, 128) do end
    assert.are.equal(AGAIN, pop())
    support.eventually(function() return pop() == CORRUPT end, 5, "the stalled record to be given up")
    assert.is_true(push(segment, 5))
    assert.are.equal(OK, pop())
    assert.are.equal(5, copy.depth)
  end)

  it("throws away what cannot be a record, counts it and reads on", function()
    local function ring(type, offset)
      return ffi.cast(type .. " *", ffi.cast("char *", segment) + RING_OFFSET + offset)
    end
    local damages = {
      function(at) ring("uint32_t", at)[0] = 12 end, -- not a multiple of 8
      function(at) ring("uint32_t", at)[0] = 0x7ffffff8 end, -- beyond the head
      function(at) ring("uint32_t", at)[0] = 8 end, -- shorter than a header
      function(at) ring("uint8_t", at + 4)[0] = 77 end, -- unknown kind
      function(at) ring("uint8_t", at + 4)[0] = 1 end, -- padding that does not reach the end
      function(at) ring("uint16_t", at + 6)[0] = 129 end, -- deeper than can be
      function(at) ring("uint16_t", at + 6)[0] = 2 end, -- a depth that is not the size's
      function() segment.head = segment.head + 1 end,
      function() segment.head = segment.head + 2 * RING_BYTES end,
      function() segment.head = segment.tail - 8 end,
    }
    for i, damage in ipairs(damages) do
      assert(push(segment, 3))
      damage(tonumber(segment.tail) % RING_BYTES)
      assert.are.equal(CORRUPT, pop())
      assert.are.equal(i, tonumber(core.lupe_ring_reader_corruptions(reader)))
      segment.head = bit.band(segment.head, bit.bnot(7ULL))
      assert.are.equal(AGAIN, pop())
      assert.is_true(push(segment, 4))
      assert.are.equal(OK, pop())
      assert.are.equal(4, copy.depth)
    end
  end)

  it("survives any bytes in the shared memory, and hands out only records within bounds", function()
    math.randomseed(7)
    local bytes = ffi.cast("uint8_t *", segment)
    for _ = 1, 300 do
      for _ = 1, 50 do push(segment, math.random(0, 128)) end
      for _ = 1, 40 do
        local at = math.random(4) == 1 and math.random(0, RING_OFFSET - 1)
          or RING_OFFSET + math.random(0, 60000)
        bytes[at] = math.random(0, 255)
      end
      for _ = 1, 200 do
        local status = pop()
        assert(status == OK or status == AGAIN or status == CORRUPT)
        assert(status ~= OK or (copy.depth <= 128 and copy.kind == HEAP))
      end
      local figures = ffi.new("lupe_allocator_figures")
      local status = tonumber(core.lupe_ring_reader_figures(reader, figures))
      assert(status ~= OK or figures.class_count <= 256)
    end
  end)

  it("reports no figures until the agent has read some, and then the newest", function()
    local figures = ffi.new("lupe_allocator_figures")
    assert.are.equal(AGAIN, tonumber(core.lupe_ring_reader_figures(reader, figures)))
    local fresh = ffi.new("lupe_allocator_figures")
    for n = 1, 3 do
      fresh.time_ms, fresh.allocated_bytes, fresh.class_count = n, 10 * n, 1
      fresh.classes[0].live_count = n
      core.lupe_segment_publish_figures(segment, fresh)
      assert.are.equal(OK, tonumber(core.lupe_ring_reader_figures(reader, figures)))
      assert.are.equal(10 * n, tonumber(figures.allocated_bytes))
      assert.are.equal(n, tonumber(figures.classes[0].live_count))
    end
    segment.allocator.sequence = segment.allocator.sequence + 1 -- the agent died writing
    assert.are.equal(AGAIN, tonumber(core.lupe_ring_reader_figures(reader, figures)))
  end)

  it("reads the agent's counters live", function()
    local counters = core.lupe_ring_reader_counters(reader)
    segment.counters.heap_samples = 5
    assert.are.equal(5, tonumber(counters.heap_samples))
  end)
end)

describe("a segment from another process", function()
  local function memfd(bytes, seals)
    local fd = C.memfd_create("spec", 3)
    C.ftruncate(fd, bytes)
    if seals then C.fcntl(fd, 1033, ffi.cast("int", seals)) end
    finally(function() C.close(fd) end)
    return fd
  end
  local function status_of(fd)
    local reader, status = new_reader(fd)
    if reader then core.lupe_ring_reader_free(reader) end
    return status
  end
  local function patched(patch)
    local segment, fd = new_segment()
    patch(segment)
    local status = status_of(fd)
    core.lupe_segment_unmap(segment)
    C.close(fd)
    return status
  end

  it("is refused when it could be cut short under the reader", function()
    assert.are.equal(CORRUPT, status_of(memfd(SEGMENT_BYTES)))
  end)

  it("is refused when it is not a memfd at all", function()
    local pipe = io.open("/dev/null")
    finally(function() pipe:close() end)
    ffi.cdef("int fileno(void *stream);")
    assert.are.equal(CORRUPT, status_of(C.fileno(pipe)))
  end)

  it("is refused when its size or its magic is wrong", function()
    assert.are.equal(CORRUPT, status_of(memfd(4096, 7)))
    assert.are.equal(CORRUPT, status_of(memfd(SEGMENT_BYTES, 7)))
    assert.are.equal(CORRUPT, patched(function(s) s.magic = 1 end))
  end)

  it("is refused when its layout differs from ours", function()
    assert.are.equal(CORRUPT, patched(function(s) s.ring_offset = 64 end))
    assert.are.equal(CORRUPT, patched(function(s) s.ring_bytes = 2 * RING_BYTES end))
    assert.are.equal(CORRUPT, patched(function(s) s.segment_bytes = 4096 end))
  end)

  it("is told apart when it is of another version", function()
    assert.are.equal(VERSION, patched(function(s) s.version = s.version + 1 end))
  end)

  it("cannot be cut short or grown", function()
    local segment, fd = new_segment()
    assert.are.equal(-1, C.ftruncate(fd, 4096))
    assert.are.equal(-1, C.ftruncate(fd, 2 * SEGMENT_BYTES))
    core.lupe_segment_unmap(segment)
    C.close(fd)
  end)
end)

describe("many producers and one reader", function()
  after_each(support.cleanup)

  local function stress(program, ...)
    local p = support.run({ support.built(program), ... }, { seconds = 60 })
    assert.are.equal("", p.err)
    assert.are.equal(0, p.code)
    assert.is_truthy(p.out:match("^popped %d+ dropped %d+"))
  end

  it("lose and tear nothing among threads", function()
    stress("spec/ring_stress", "threads", "4", "100000")
  end)

  it("lose and tear nothing among processes", function()
    stress("spec/ring_stress", "processes", "3", "100000")
  end)
end)
