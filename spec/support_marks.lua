--- A segment of marks as an agent would share it, written by hand: for specs of those who read it.
--
--    local marks = require("spec.support_marks")
--    local segment = marks.segment()
--    segment:name(0, "request", 0x401100)      -- number, text, and where its spans are begun
--    segment:span(0, 1500, 2500)               -- two spans ended under it, so many ns long
--    segment:send(target)                      -- as the aggregator of spec.support_snapshot gets it
--    segment.tag(0)                            -- the frame of that name as a tag
local ffi = require("ffi")
local support = require("spec.support")

support.declare("core/store/marks.h")
ffi.cdef([[
int memfd_create(const char *name, unsigned flags);
int ftruncate(int fd, long bytes);
int fcntl(int fd, int command, ...);
int dup(int fd);
void *mmap(void *address, size_t bytes, int protection, int flags, int fd, long offset);
int munmap(void *address, size_t bytes);
]])

local marks = {}
local ADD_SEALS, SEAL_SHRINK, SEAL_GROW, ALLOW_SEALING = 1033, 2, 4, 2
local NAME_BYTES, TAG_FRAME = 96, 0xffffff7a60000000ULL

local segment = {}
segment.__index = segment

--- @tparam[opt] table options { bytes, sealed = false }
function marks.segment(options)
  options = options or {}
  local bytes = math.ceil(ffi.sizeof("lupe_marks") / 4096) * 4096
  local fd = ffi.C.memfd_create("marks", 1 + ALLOW_SEALING)
  assert(fd >= 0 and ffi.C.ftruncate(fd, options.bytes or bytes) == 0)
  local address = ffi.C.mmap(nil, bytes, 3, 1, fd, 0)
  assert(address ~= ffi.cast("void *", -1))
  if options.sealed ~= false then assert(ffi.C.fcntl(fd, ADD_SEALS, ffi.cast("int", SEAL_SHRINK + SEAL_GROW)) == 0) end
  local self = setmetatable({
    fd = fd, blocks = 0, block_of = {},
    at = ffi.gc(ffi.cast("lupe_marks *", address), function(at) ffi.C.munmap(at, bytes) end),
  }, segment)
  if not options.bytes or options.bytes >= bytes then
    self.at.magic, self.at.version, self.at.bytes = 0x314b52414d50554cULL, ffi.C.LUPE_MARKS_VERSION, bytes
  end
  return self
end

--- The frame of a tag.
function marks.tag(number) return TAG_FRAME + number end
segment.tag = marks.tag

function segment:name(number, text, place)
  local name = self.at.names[number]
  ffi.fill(name.text, NAME_BYTES)
  ffi.copy(name.text, text, math.min(#text, NAME_BYTES))
  name.place, name.state = place or 0, 2
  self.at.name_count = math.max(self.at.name_count, number + 1)
end

local function bucket_of(ns)
  if ns < 4 then return ns end
  local exponent = math.floor(math.log(ns) / math.log(2) + 1e-9)
  return math.min(159, 4 * (exponent - 1) + math.floor(ns / 2 ^ (exponent - 2)) - 4)
end

--- Block of a name on the thread with this number (0 where not given).
function segment:block(number, thread)
  local key = number * 1000 + (thread or 0)
  if not self.block_of[key] then
    self.block_of[key], self.blocks = self.blocks, self.blocks + 1
    self.at.blocks[self.block_of[key]].name = number + 1
    self.at.block_count = self.blocks
  end
  return self.at.blocks[self.block_of[key]]
end

--- Ends spans, so many ns long.
function segment:span(number, ...)
  local block = self:block(number)
  for _, ns in ipairs({ ... }) do
    block.count, block.total_ns = block.count + 1, block.total_ns + ns
    if block.epoch ~= self.at.epoch then block.epoch, block.longest_ns = self.at.epoch, 0 end
    if ns > block.longest_ns then block.longest_ns = ns end
    local b = bucket_of(ns)
    block.buckets[b] = block.buckets[b] + 1
  end
end

--- Gives it to a target; returns the status.
function segment:send(target)
  return tonumber(support.core().lupe_target_set_marks(target, ffi.C.dup(self.fd)))
end

return marks
