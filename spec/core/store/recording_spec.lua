--- Recordings: what is written is read again, and what is cut off or damaged is told from what is whole.
local ffi = require("ffi")
local support = require("spec.support")
local snapshots = require("spec.support_snapshot")

support.declare("core/store/recording.h")
ffi.cdef([[
typedef struct { unsigned long soft, hard; } spec_limit;
int getrlimit(int resource, spec_limit *out);
int setrlimit(int resource, const spec_limit *limit);
void (*signal(int number, void (*handler)(int)))(int);
void free(void *memory);
int chmod(const char *path, unsigned mode);
]])

local C = ffi.C
local core = support.core()
local OK, EINVAL, ECORRUPT, EVERSION, EIO, ENOSPC = 0, 1, 5, 6, 9, 10
local HEAD, PIECE = 24, 40
local RLIMIT_FSIZE, SIGXFSZ = 1, 25
local ABOUT = '{"lupe":"0.1.0"}'

describe("a recording", function()
  local dir, path, built, crc32

  before_each(function()
    dir = support.temp_dir()
    path = dir .. "/run.lupe"
    built = snapshots.build { sites = { { stack = { "leak", "main" }, space = { 64, 128, 192 } } } }
  end)
  after_each(support.cleanup)

  local function recorder(about, at)
    local out = ffi.new("lupe_recorder *[1]")
    local status = tonumber(core.lupe_recorder_create(out, at or path, about or ABOUT, #(about or ABOUT)))
    return status == OK and ffi.gc(out[0], core.lupe_recorder_free) or nil, status
  end

  local function write(r, notes, last, snapshot)
    return tonumber(core.lupe_recorder_write(r, snapshot or (not last and built.snapshot or nil), notes, #notes,
      last or false))
  end

  --- Three frames, the last one without a snapshot, unless told otherwise.
  local function record(frames)
    local r = assert(recorder())
    for _, frame in ipairs(frames or { { "one" }, { "two" }, { "end", true } }) do
      assert.equal(OK, write(r, unpack(frame)))
    end
    local bytes = tonumber(core.lupe_recorder_bytes(r))
    core.lupe_recorder_free(ffi.gc(r, nil))
    return bytes
  end

  local function open(at)
    local out, why = ffi.new("lupe_recording *[1]"), ffi.new("const char *[1]")
    local status = tonumber(core.lupe_recording_open(out, at or path, why))
    if status ~= OK then return nil, status, ffi.string(why[0]) end
    return ffi.gc(out[0], core.lupe_recording_free)
  end

  local function ending(r)
    local text = core.lupe_recording_ending(r)
    return text ~= nil and ffi.string(text) or nil
  end

  --- Status, notes, and the snapshot's bytes as a string.
  local function read(r, index)
    local s, notes = ffi.new("lupe_snapshot *[1]"), ffi.new("char *[1]")
    local why = ffi.new("const char *[1]")
    local status = tonumber(core.lupe_recording_read(r, index - 1, s, notes, why))
    if status ~= OK then return status, ffi.string(why[0]) end
    local text = ffi.string(notes[0])
    C.free(notes[0])
    if s[0] == nil then return OK, text, nil end
    local block = ffi.string(ffi.cast("const char *", core.lupe_snapshot_block(s[0])),
      core.lupe_snapshot_bytes(s[0]))
    core.lupe_snapshot_release(s[0])
    return OK, text, block
  end

  local function count(r) return tonumber(core.lupe_recording_count(r)) end

  --- The file as it is, and written back in parts or changed.
  local function content() return assert(support.read_file(path)) end
  local function put(text) support.write_file(path, text) end
  local function with_byte(text, at, byte) return text:sub(1, at) .. string.char(byte) .. text:sub(at + 2) end
  local function number_at(text, at, ctype)
    return tonumber(ffi.cast(ctype .. " *", ffi.cast("const char *", text) + at)[0])
  end

  local function offsets()
    local r, list = open(), {}
    for i = 1, count(r) do list[i] = tonumber(core.lupe_recording_at(r, i - 1).offset) end
    return list
  end

  --- Places in the file: all of the heads, and some of what is packed between them.
  local function samples(whole, places)
    local list, head = {}, { [0] = HEAD + #ABOUT, [#whole - PIECE] = PIECE }
    for _, at in ipairs(places) do head[at] = PIECE end
    local left = 0
    for at = 0, #whole - 1 do
      left = math.max(left - 1, head[at] or 0)
      if left > 0 or at % 37 == 0 then list[#list + 1] = at end
    end
    return list
  end

  --- A piece's head with another field, and a checksum that is right again.
  local function with_field(text, at, field, value)
    local piece = ffi.new("lupe_recording_piece")
    ffi.copy(piece, text:sub(at + 1, at + PIECE), PIECE)
    piece[field] = value
    crc32 = crc32 or ffi.load("z")
    piece.head_crc32 = crc32.crc32(0, ffi.cast("const char *", piece), PIECE - 4)
    return text:sub(1, at) .. ffi.string(piece, PIECE) .. text:sub(at + PIECE + 1)
  end
  ffi.cdef("unsigned long crc32(unsigned long crc, const char *bytes, unsigned count);")

  it("gives back what was written, frame by frame", function()
    local bytes = record()
    assert.equal(bytes, #content())
    local r = assert(open())
    local size = ffi.new("size_t[1]")
    assert.equal(ABOUT, ffi.string(core.lupe_recording_about(r, size)))
    assert.equal(3, count(r))
    assert.is_nil(ending(r))
    local block = ffi.string(ffi.cast("const char *", built.address), built.bytes)
    for i, notes in ipairs({ "one", "two" }) do
      assert.same({ OK, notes, block }, { read(r, i) })
      local frame = core.lupe_recording_at(r, i - 1)
      assert.equal(built.header.time_ms, frame.time_ms)
      assert.is_false(frame.last)
      assert.is_true(frame.packed_bytes < frame.block_bytes)
    end
    assert.same({ OK, "end" }, { read(r, 3) })
    assert.is_true(core.lupe_recording_at(r, 2).last)
  end)

  it("keeps a last snapshot too, empty notes, and none but the last", function()
    record({ { "", true, built.snapshot } })
    local r = assert(open())
    assert.equal(1, count(r))
    local status, notes, block = read(r, 1)
    assert.same({ OK, "", built.bytes }, { status, notes, #block })
  end)

  it("makes no file before its first frame, and leaves what was there until that is whole", function()
    put("precious")
    local r = assert(recorder())
    assert.equal("precious", content())
    assert.equal(OK, write(r, "one"))
    assert.equal(1, count(assert(open())))
    local names = io.popen("ls -A " .. dir):read("*a")
    assert.equal("run.lupe\n", names)
  end)

  it("is for its owner's eyes only", function()
    record()
    assert.equal("600\n", io.popen("stat -c %a " .. path):read("*a"))
  end)

  it("can be read while it is written", function()
    local r = assert(recorder())
    write(r, "one")
    local reading = assert(open())
    assert.equal(1, count(reading))
    assert.equal("it ends without an end mark", ending(reading))
    write(r, "two")
    assert.equal(2, count(assert(open())))
    assert.equal(OK, (read(reading, 1)))
  end)

  it("takes nothing after its last frame, no empty frame, and no endless notes", function()
    local r = assert(recorder())
    assert.equal(EINVAL, tonumber(core.lupe_recorder_write(r, nil, "x", 1, false)))
    assert.equal(EINVAL, tonumber(core.lupe_recorder_write(r, nil, "x", 2 ^ 24 + 1, true)))
    assert.equal(OK, write(r, "end", true))
    assert.equal(EINVAL, write(r, "more"))
  end)

  it("refuses at once a file that could not be made", function()
    local function refusal(at)
      local _, status = recorder(nil, at)
      return status, ffi.errno()
    end
    assert.same({ EIO, 2 }, { refusal(dir .. "/missing/run.lupe") })
    assert.same({ EIO, 21 }, { refusal(dir) })
    assert.same({ EIO, 22 }, { refusal("/dev/null") })
    assert.same({ EIO, 36 }, { refusal("/" .. ("x"):rep(5000)) })
    assert.same({ EIO, 20 }, { refusal(support.write_file(dir .. "/plain", "") .. "/run.lupe") })
  end)

  it("gives what it holds, wherever it is cut", function()
    record()
    local whole, places = content(), offsets()
    local ends = { places[2], places[3], #whole - PIECE }
    for _, bytes in ipairs(samples(whole, places)) do
      put(whole:sub(1, bytes))
      local r, status, why = open()
      if bytes < places[1] then
        assert.same({ nil, ECORRUPT, "it is cut off within its head" }, { r, status, why })
      else
        local expected = 0
        for i, last in ipairs(ends) do
          if bytes >= last then expected = i end
        end
        assert.equal(expected, count(r))
        local between = bytes == places[1] or bytes == ends[1] or bytes == ends[2] or bytes == ends[3]
        assert.equal(between and "it ends without an end mark" or "it is cut off within a frame", ending(r))
        if expected > 0 then assert.equal(OK, (read(r, expected))) end
      end
      if r then core.lupe_recording_free(ffi.gc(r, nil)) end
    end
  end)

  it("finds every byte that was changed", function()
    record()
    local whole, places = content(), offsets()
    for _, at in ipairs(samples(whole, places)) do
      put(with_byte(whole, at, (whole:byte(at + 1) + 1) % 256))
      local r, status = open()
      local noticed
      if not r then
        noticed = status == ECORRUPT or status == EVERSION
      else
        noticed = ending(r) ~= nil
        for i = 1, count(r) do noticed = noticed or read(r, i) == ECORRUPT end
        -- The others are there still.
        if at >= places[2] then assert.equal(OK, (read(r, 1))) end
        core.lupe_recording_free(ffi.gc(r, nil))
      end
      assert.is_true(noticed, "byte " .. at)
    end
  end)

  it("says what a file is that is none", function()
    put(("no recording at all, but long enough "):rep(9))
    assert.same({ nil, ECORRUPT, "it is no recording (--record makes one): it does not begin with LUPEREC1" },
      { open() })
    assert.same({ nil, EIO, "" }, { open(dir .. "/missing") })
    assert.equal(2, ffi.errno())
    assert.same({ nil, EIO, "" }, { open(dir) })
    assert.equal(21, ffi.errno())
    os.execute("mkfifo " .. dir .. "/pipe")
    assert.same({ nil, EIO, "" }, { open(dir .. "/pipe") })
  end)

  it("tells another version of the format from damage", function()
    record()
    local whole = content()
    assert.equal(1, number_at(whole, 8, "const uint32_t"))
    put(with_byte(whole, 8, 2))
    assert.same({ nil, EVERSION, "it is of another version of the format than this lupe reads" }, { open() })
  end)

  it("believes no length that cannot be", function()
    record()
    local whole, at = content(), HEAD + #ABOUT
    for field, case in pairs({
      notes_bytes = { 2 ^ 24 + 1, "a frame is too long" }, block_bytes = { 2 ^ 30 + 1, "a frame is too long" },
      packed_bytes = { 2 ^ 40, "a frame is too long" }, time_ms = { 0 / 0, "a frame's time is no number" },
      tag = { 0x4b4e554a, "a piece of an unknown kind" },
    }) do
      put(with_field(whole, at, field, case[1]))
      local r = assert(open())
      assert.same({ 0, case[2] }, { count(r), ending(r) }, field)
    end
    put(with_field(whole, at, "block_bytes", 2 ^ 30)) -- of some hundred packed ones
    assert.equal("a frame's length is impossible", ending(assert(open())))
  end)

  it("believes no snapshot before it was looked at", function()
    record()
    local whole, at = content(), HEAD + #ABOUT
    for _, bytes in ipairs({ built.bytes - 8, built.bytes + 8 }) do
      put(with_field(whole, at, "block_bytes", bytes))
      local status, why = read(assert(open()), 1)
      assert.equal(ECORRUPT, status)
      assert.is_true(why ~= "", why)
    end
  end)

  it("stays whole where the disk is full", function()
    local limit, before = ffi.new("spec_limit"), ffi.new("spec_limit")
    local r = assert(recorder())
    assert.equal(OK, write(r, "one"))
    local bytes = tonumber(core.lupe_recorder_bytes(r))
    C.getrlimit(RLIMIT_FSIZE, before)
    C.signal(SIGXFSZ, ffi.cast("void (*)(int)", 1)) -- ignored: writes say EFBIG instead
    limit.soft, limit.hard = bytes + 100, before.hard
    C.setrlimit(RLIMIT_FSIZE, limit)
    local status, code = write(r, "two"), ffi.errno()
    limit.soft = 100
    C.setrlimit(RLIMIT_FSIZE, limit)
    local first = write(recorder(nil, dir .. "/other.lupe"), "one")
    C.setrlimit(RLIMIT_FSIZE, before)
    assert.same({ ENOSPC, 27 }, { status, code })
    assert.equal(bytes, #content())
    assert.equal(ENOSPC, first)
    assert.equal("run.lupe\n", io.popen("ls -A " .. dir):read("*a"))
    assert.equal(OK, write(r, "end", true)) -- there is room again
    local reading = assert(open())
    assert.same({ 2, nil }, { count(reading), ending(reading) })
  end)
end)
