local ffi = require("ffi")
local support = require("spec.support")
local snapshots = require("spec.support_snapshot")

ffi.cdef([[
void *mmap(void *where, size_t bytes, int protection, int flags, int fd, long offset);
int open(const char *path, int flags, ...);
]])
local core = support.core()

local function validate(bytes, size)
  local why = ffi.new("const char *[1]")
  local status = tonumber(core.lupe_snapshot_validate(bytes, size, why))
  return status, ffi.string(why[0])
end

describe("a snapshot", function()
  local built, copy
  before_each(function()
    built = snapshots.build {
      ticks = { 0, 1000, 2000 },
      wrappers = { { "name", "malloc" } },
      sites = {
        { stack = { "malloc", "leak", "main" }, space = { 64, 128, 192 }, samples = 9 },
        { stack = { "lib.so!buffer", "main" }, space = 6400 },
        { stack = { "malloc", "leak", "run", "main" }, space = { 0, 64, 64 } },
      },
      memory = { { rss_bytes = 1 }, { rss_bytes = 2 } },
      classes = { { 64, 3 } },
      losses = { 4, 5 },
    }
    copy = ffi.new("uint64_t[?]", built.bytes / 8)
    ffi.copy(copy, built.address, built.bytes)
  end)
  after_each(support.cleanup)

  local function header() return ffi.cast("lupe_snapshot_header *", copy) end

  it("holds what went in", function()
    local h = built.header
    assert.are.equal(3, h.tick_count)
    assert.are.equal(3, tonumber(h.generation))
    assert.are.equal(1000, h.heap_interval_ms)
    assert.are.equal(4, tonumber(h.dropped_records))
    assert.are.equal(5, tonumber(h.truncated_stacks))
    assert.are.equal(snapshots.epoch_ms, h.started_ms)
    assert.are.equal(snapshots.epoch_ms + 2000, h.time_ms)
    local sites = snapshots.sites(h)
    assert.are.same({ 64, 192, 256 }, sites.leak.history)
    local first = snapshots.column(h, "stack_first", "uint32_t")
    local frames = snapshots.column(h, "stack_frames", "uint32_t")
    local all = snapshots.column(h, "frames", "lupe_snapshot_frame")
    local functions = snapshots.column(h, "functions", "lupe_snapshot_function")
    local modules = snapshots.column(h, "modules", "lupe_snapshot_module")
    local names, s = {}, sites.buffer.top_stack
    for i = first[s], first[s + 1] - 1 do
      local f = functions[all[frames[i]]["function"]]
      names[#names + 1] = snapshots.string(h, f.name)
      assert.are.equal(1, f.named)
    end
    assert.are.same({ "buffer", "main" }, names)
    local f = functions[all[frames[first[s]]]["function"]]
    assert.is_truthy(snapshots.string(h, modules[f.module].path):match("/lib%.so$"))
    assert.are.equal(0x1000, tonumber(f.start))
    assert.are.equal(0x1010, tonumber(all[frames[first[s]]].address))
  end)

  it("cannot be written by anyone who gets its descriptor", function()
    assert.are.equal(-1, tonumber(ffi.C.write(built.fd, "x", 1)))
    local map = ffi.C.mmap(nil, 4096, 3, 1, built.fd, 0)
    assert.are.equal(ffi.cast("void *", -1), map)
  end)

  it("is the same in a process that maps its descriptor", function()
    local out = ffi.new("lupe_snapshot *[1]")
    assert.are.equal(0, tonumber(core.lupe_snapshot_map(built.fd, true, out)))
    local s = ffi.gc(out[0], core.lupe_snapshot_release)
    assert.are.equal(built.bytes, tonumber(core.lupe_snapshot_bytes(s)))
    assert.are.equal(ffi.string(built.address, built.bytes),
      ffi.string(ffi.cast("const char *", core.lupe_snapshot_block(s)), built.bytes))
  end)

  it("outlives the aggregator that made it", function()
    built.run.a = ffi.gc(built.run.a, nil)
    core.lupe_aggregator_free(built.run.a)
    assert.are.equal(0, (validate(built.address, built.bytes)))
  end)

  it("is not taken from a descriptor that someone may still write to", function()
    local out = ffi.new("lupe_snapshot *[1]")
    local fd = snapshots.memfd(ffi.string(built.address, built.bytes))
    assert.are.equal(core.LUPE_ECORRUPT, core.lupe_snapshot_map(fd, true, out))
    assert.are.equal(0, tonumber(core.lupe_snapshot_map(fd, false, out)))
    core.lupe_snapshot_release(out[0])
    snapshots.close(fd)
    local path = support.temp_dir() .. "/snapshot" -- of what cannot be sealed
    local file = assert(io.open(path, "w"))
    file:write(ffi.string(built.address, built.bytes))
    file:close()
    fd = ffi.C.open(path, 0)
    assert.are.equal(core.LUPE_ECORRUPT, core.lupe_snapshot_map(fd, true, out))
    snapshots.close(fd)
    fd = snapshots.memfd("not a snapshot")
    assert.are.equal(core.LUPE_ECORRUPT, core.lupe_snapshot_map(fd, false, out))
    snapshots.close(fd)
  end)

  local function breaks(name, what, change)
    it("is refused with " .. name, function()
      assert.are.equal(0, (validate(copy, built.bytes)))
      change(header())
      local status, why = validate(copy, built.bytes)
      assert.are_not.equal(0, status)
      assert.is_truthy(why:find(what, 1, true), why)
    end)
  end

  local function at(h, name, ctype) return ffi.cast(ctype .. " *", ffi.cast("char *", h) + h[name].offset) end

  breaks("another magic", "magic", function(h) h.magic = 1 end)
  breaks("another version", "version", function(h) h.version = 1 end)
  breaks("a size that is not its own", "total_bytes", function(h) h.total_bytes = h.total_bytes + 8 end)
  breaks("a time that is no number", "header", function(h) h.time_ms = 0 / 0 end)
  breaks("more ticks than columns", "tick_count", function(h) h.tick_count = 4 end)
  breaks("a column behind its end", "frames", function(h) h.frames.offset = built.bytes + 8 end)
  breaks("a column inside the header", "frames", function(h) h.frames.offset = 8 end)
  breaks("a crooked column", "stack_site", function(h) h.stack_site.offset = h.stack_site.offset + 4 end)
  breaks("a column that is too long", "site_inuse_space", function(h) h.site_inuse_space.count = 2 ^ 62 end)
  breaks("columns of different lengths", "stack_alloc_space", function(h) h.stack_alloc_space.count = 1 end)
  breaks("strings without an end", "strings", function(h) h.strings.count = 2 end)
  breaks("no strings", "strings", function(h) h.strings.count = 0 end)
  breaks("a name out of bounds", "functions", function(h)
    at(h, "functions", "lupe_snapshot_function")[1].name = 1e6
  end)
  breaks("a module out of bounds", "functions", function(h)
    at(h, "functions", "lupe_snapshot_function")[1].module = 99
  end)
  breaks("a function out of bounds", "frames", function(h)
    at(h, "frames", "lupe_snapshot_frame")[1]["function"] = 99
  end)
  breaks("a path out of bounds", "modules", function(h) at(h, "modules", "lupe_snapshot_module")[1].path = 1e6 end)
  breaks("a target's name out of bounds", "targets", function(h)
    at(h, "targets", "lupe_snapshot_target")[0].name = 1e6
  end)
  breaks("a frame out of bounds", "stack_frames", function(h) at(h, "stack_frames", "uint32_t")[0] = 99 end)
  breaks("a site out of bounds", "stack_site", function(h) at(h, "stack_site", "uint32_t")[0] = 99 end)
  breaks("a stack of another site", "site_top_stack", function(h)
    local top = at(h, "site_top_stack", "uint32_t")
    top[0], top[1] = top[1], top[0]
  end)
  breaks("stacks that run backwards", "stack_first", function(h) at(h, "stack_first", "uint32_t")[1] = 9 end)
  breaks("a stack without a frame", "stack_first", function(h) at(h, "stack_first", "uint32_t")[1] = 0 end)
  breaks("NaN in a figure", "site_inuse_space", function(h) at(h, "site_inuse_space", "double")[0] = 0 / 0 end)
  breaks("infinity in a history", "site_history_space", function(h)
    at(h, "site_history_space", "float")[0] = math.huge
  end)
  breaks("a negative figure", "stack_inuse_space", function(h) at(h, "stack_inuse_space", "double")[0] = -1 end)
  breaks("ticks that go back", "tick_time_ms", function(h) at(h, "tick_time_ms", "double")[2] = 5 end)

  it("is refused when it is cut off, wherever", function()
    for size = 0, built.bytes - 1 do assert.are_not.equal(0, (validate(copy, size))) end
  end)
end)
