--- The one place that knows FFI: snapshots as columns, and what the registry asks the file system.
-- Nothing of FFI leaves here but columns, which are indexed like arrays (from 0, unchecked: a count
-- stands beside each). Rules never see them; they see lupe.view.
-- @module lupe.ffi

local ffi = require("ffi")
local bit = require("bit")

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"

--- The layout is declared once, in C: installed beside this file, in the source tree under core/.
local function read_layout()
  local tried = { here .. "snapshot_layout.h", here .. "../../core/store/snapshot_layout.h" }
  for _, path in ipairs(tried) do
    local file = io.open(path, "rb")
    if file then
      local text = file:read("*a")
      file:close()
      return (text:gsub("^%s*#[^\n]*", ""):gsub("\n%s*#[^\n]*", "\n"))
    end
  end
  error("snapshot_layout.h is neither at " .. table.concat(tried, " nor at "), 0)
end

ffi.cdef(read_layout())
ffi.cdef([[
typedef struct { int64_t seconds; uint32_t nanoseconds; int32_t pad; } lupe_ffi_time;
typedef struct {
  uint32_t mask, blksize; uint64_t attributes; uint32_t nlink, uid, gid; uint16_t mode, pad;
  uint64_t ino, size, blocks, attributes_mask;
  lupe_ffi_time atime, btime, ctime, mtime;
  uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
  uint64_t rest[30];
} lupe_ffi_statx;
typedef struct { uint64_t ino; int64_t off; uint16_t reclen; uint8_t type; char name[256]; } lupe_ffi_dirent;
int statx(int directory, const char *path, int flags, unsigned mask, lupe_ffi_statx *out);
void *opendir(const char *path);
lupe_ffi_dirent *readdir(void *directory);
int closedir(void *directory);
unsigned geteuid(void);
char *strerror(int error);
]])

local C = ffi.C
local M = {}

-- Snapshots ---------------------------------------------------------------------------------

local MAGIC_TEXT = "LUPESNP1"
local VERSION = 6

-- Column -> the C type of an element. The order is the layout's.
local COLUMNS = {
  strings = "char", targets = "lupe_snapshot_target", modules = "lupe_snapshot_module",
  functions = "lupe_snapshot_function", frames = "lupe_snapshot_frame", classes = "lupe_snapshot_size_class",
  memory = "lupe_memory_figures", tick_time_ms = "double", tick_inuse_space = "double",
  tick_allocated = "double", stack_first = "uint32_t", stack_frames = "uint32_t", stack_site = "uint32_t",
  stack_inuse_space = "double", stack_inuse_objects = "double", stack_alloc_space = "double",
  stack_alloc_objects = "double", site_function = "uint32_t", site_inuse_space = "double",
  site_inuse_objects = "double", site_alloc_space = "double", site_alloc_objects = "double",
  site_first_seen_ms = "double", site_last_grown_ms = "double", site_history_space = "float",
  site_history_objects = "float", site_history_alloc = "float", site_top_stack = "uint32_t",
  inlines = "lupe_snapshot_inline",
  threads = "lupe_snapshot_thread", sample_stack = "uint32_t", sample_thread = "uint32_t",
  sample_state = "uint32_t", sample_count = "double", sample_ns = "double",
  spans = "lupe_snapshot_span", span_buckets = "double", span_totals = "lupe_snapshot_span_total",
  proofs = "lupe_snapshot_proof",
  proof_rows = "lupe_snapshot_proof_row",
}

local SCALARS = {
  "time_ms", "started_ms", "generation", "tick_count", "heap_interval_ms", "sample_period_bytes",
  "dropped_records", "truncated_stacks", "stack_overflows", "profile_from_ms", "profile_to_ms", "cpu_hz", "wall_hz",
  "span_from_ms", "span_to_ms", "mark_names_lost", "spans_lost",
}

local NUMBERS = ffi.typeof("double[?]")
local SIZES, POINTERS = {}, {}
for name, ctype in pairs(COLUMNS) do
  SIZES[name] = ffi.sizeof(ctype)
  POINTERS[name] = ffi.typeof("const " .. ctype .. " *")
end

--- The columns of a snapshot in memory. Valid as long as the memory is; nothing is copied.
-- @param address light userdata (or pointer) of the header
-- @tparam number size bytes mapped there
-- @treturn table the header's scalars as numbers, one array (from 0) per column, `count` with the
--   elements of each, and `text(offset)` which gives a string of the string block.
--   nil and "ECORRUPT: ..." or "EVERSION: ..." where it is not a snapshot of this layout.
function M.snapshot(address, size)
  local header = ffi.cast("const lupe_snapshot_header *", address)
  if size < ffi.sizeof("lupe_snapshot_header") then
    return nil, ("ECORRUPT: a snapshot of %d bytes is shorter than its header"):format(size), "ECORRUPT"
  end
  if ffi.string(ffi.cast("const char *", header), 8) ~= MAGIC_TEXT then
    return nil, "ECORRUPT: not a snapshot: it does not begin with " .. MAGIC_TEXT, "ECORRUPT"
  end
  if header.version ~= VERSION then
    return nil, ("EVERSION: snapshot of version %d, expected %d"):format(header.version, VERSION), "EVERSION"
  end
  local total = tonumber(header.total_bytes)
  if total > size then
    return nil, ("ECORRUPT: the snapshot says %.0f bytes, %d are there"):format(total, size), "ECORRUPT"
  end

  local bytes = ffi.cast("const char *", header)
  local columns = { count = {} }
  for _, name in ipairs(SCALARS) do columns[name] = tonumber(header[name]) end
  for name in pairs(COLUMNS) do
    local column = header[name]
    local offset, count = tonumber(column.offset), tonumber(column.count)
    if offset + count * SIZES[name] > total then
      return nil, ("ECORRUPT: column %s ends behind the snapshot"):format(name), "ECORRUPT"
    end
    columns[name] = ffi.cast(POINTERS[name], bytes + offset)
    columns.count[name] = count
  end
  columns.count.sites = columns.count.site_function
  columns.count.stacks = columns.count.stack_site

  local known, limit = {}, columns.count.strings
  function columns.text(offset)
    local text = known[offset]
    if not text then
      text = offset < limit and ffi.string(columns.strings + offset) or ""
      known[offset] = text
    end
    return text
  end
  return columns
end

--- So many numbers from index 0, all 0: what is summed over columns in a compiled loop.
function M.numbers(count) return NUMBERS(math.max(1, count)) end

--- Buckets of each span in `span_buckets`; what they stand for is told in the layout.
M.SPAN_BUCKETS = C.LUPE_SNAPSHOT_SPAN_BUCKETS

-- Building one, for specs and recordings ------------------------------------------------------

local function align(n) return math.ceil(n / 8) * 8 end

--- Lays out plain tables as a snapshot.
-- @tparam table scalars header fields by name
-- @tparam table arrays column name -> array (from 1) of numbers or of tables with the struct's fields;
--   string fields are given as strings
-- @return address (light-userdata-like pointer), size, and the owner to keep alive beside them
function M.build(scalars, arrays)
  local parts, offsets, used = { "\0" }, { [""] = 0 }, 1
  local function intern(text)
    if type(text) ~= "string" then return text end
    if not offsets[text] then
      offsets[text] = used
      parts[#parts + 1] = text .. "\0"
      used = used + #text + 1
    end
    return offsets[text]
  end

  local blocks, names = {}, {}
  for name in pairs(COLUMNS) do
    if name ~= "strings" then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local given = arrays[name] or {}
    local block = ffi.new(COLUMNS[name] .. "[?]", math.max(1, #given))
    for i, value in ipairs(given) do
      if type(value) == "table" then
        for field, content in pairs(value) do
          if type(content) == "table" then
            for inner, number in pairs(content) do block[i - 1][field][inner] = number end
          else
            block[i - 1][field] = intern(content)
          end
        end
      else
        block[i - 1] = value
      end
    end
    blocks[name] = block
  end
  local strings = table.concat(parts)

  local size = align(ffi.sizeof("lupe_snapshot_header"))
  local places = {}
  for _, name in ipairs(names) do
    places[name] = size
    size = align(size + #(arrays[name] or {}) * SIZES[name])
  end
  places.strings = size
  size = align(size + #strings)

  local owner = ffi.new("uint64_t[?]", size / 8)
  local bytes = ffi.cast("char *", owner)
  local header = ffi.cast("lupe_snapshot_header *", owner)
  ffi.copy(bytes, MAGIC_TEXT, 8)
  header.version, header.header_bytes, header.total_bytes = VERSION, ffi.sizeof("lupe_snapshot_header"), size
  for name, value in pairs(scalars) do header[name] = value end
  for _, name in ipairs(names) do
    local count = #(arrays[name] or {})
    header[name].offset, header[name].count = places[name], count
    ffi.copy(bytes + places[name], blocks[name], count * SIZES[name])
  end
  header.strings.offset, header.strings.count = places.strings, #strings
  ffi.copy(bytes + places.strings, strings, #strings)
  return header, size, owner
end

--- The bytes of what `build` made, as a string.
function M.bytes(address, size) return ffi.string(ffi.cast("const char *", address), size) end

-- Files -------------------------------------------------------------------------------------

local KINDS = { [0x4] = "directory", [0x8] = "file" }

local function milliseconds(time) return tonumber(time.seconds) * 1000 + math.floor(time.nanoseconds / 1e6) end

--- What the system knows of a path; symbolic links are followed.
-- @treturn table { kind ("file", "directory" or "other"), mode (permission bits), uid, size, mtime_ms,
--   identity (a text: which file or directory of the system's), stamp (a text: another one as soon as content,
--   owner or mode may have changed; clocks tick some milliseconds apart), changed_ms (Unix ms, of the last such
--   change) }, or nil, "ENAME: text"
function M.stat(path)
  local out = ffi.new("lupe_ffi_statx")
  if C.statx(-100, path, 0, 0x7ff, out) ~= 0 then -- AT_FDCWD, STATX_BASIC_STATS
    return nil, ("ENOENT: %s: %s"):format(path, ffi.string(C.strerror(ffi.errno()))), "ENOENT"
  end
  local identity = ("%d.%d.%.0f"):format(out.dev_major, out.dev_minor, tonumber(out.ino))
  return {
    kind = KINDS[bit.rshift(out.mode, 12)] or "other",
    mode = bit.band(out.mode, 0xfff),
    uid = out.uid,
    size = tonumber(out.size),
    mtime_ms = milliseconds(out.mtime),
    identity = identity,
    stamp = ("%s %.0f %d %.0f.%d %.0f.%d"):format(identity, tonumber(out.size), out.mode,
      tonumber(out.mtime.seconds), out.mtime.nanoseconds, tonumber(out.ctime.seconds), out.ctime.nanoseconds),
    changed_ms = math.max(milliseconds(out.mtime), milliseconds(out.ctime)),
  }
end

--- Names in a directory, sorted, without those that begin with a dot; or nil, "ENAME: text".
function M.list(path)
  local directory = C.opendir(path)
  if directory == nil then
    return nil, ("ENOENT: %s: %s"):format(path, ffi.string(C.strerror(ffi.errno()))), "ENOENT"
  end
  local names = {}
  while true do
    local entry = C.readdir(directory)
    if entry == nil then break end
    local name = ffi.string(entry.name)
    if name:sub(1, 1) ~= "." then names[#names + 1] = name end
  end
  C.closedir(directory)
  table.sort(names)
  return names
end

--- What the system says of an error number.
function M.error_text(number) return ffi.string(C.strerror(number)) end

--- The user that this process acts as.
function M.effective_uid() return tonumber(C.geteuid()) end

return M
