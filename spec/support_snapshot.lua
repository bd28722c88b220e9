--- Snapshots from literal data, for specs: writes heap_v2 dumps and tiny ELF files with the wanted
-- names, and feeds them through the real store (parser, symbolizer, aggregator). No process is profiled.
--
--    local snapshots = require("spec.support_snapshot")
--    local built = snapshots.build {
--      ticks = { 0, 1000, 2000 },                      -- ms after 1,700,000,000,000
--      sites = {
--        { stack = { "malloc", "leaky", "main" }, space = { 100, 200, 300 }, objects = { 1, 2, 3 } },
--        { stack = { "libz.so!inflate", "main" }, space = function(i) return 64 * i end, size = 64 },
--      },
--      wrappers = { { "name", "malloc" } },
--    }
--    built.header     -- const lupe_snapshot_header *; stays valid as long as `built` is referenced
--
-- A stack's frames are names, leaf first; "module!name" puts one in another module than "app".
-- Call `support.cleanup()` at the end as ever.
local ffi = require("ffi")
local support = require("spec.support")

support.declare("core/store/aggregator.h")
support.declare("core/wire/message.h")
ffi.cdef([[
int memfd_create(const char *name, unsigned flags);
intptr_t write(int fd, const void *bytes, size_t count);
int close(int fd);
]])

local snapshots = {}

--- Unix milliseconds that tick and time offsets are counted from.
snapshots.epoch_ms = 1700000000000

local function check(status, what)
  if status ~= 0 then
    error(what .. ": " .. ffi.string(support.core().lupe_status_text(status)), 3)
  end
end

--- A descriptor with this text; close it with `snapshots.close`.
function snapshots.memfd(text)
  local fd = ffi.C.memfd_create("spec", 1)
  assert(fd >= 0, "memfd_create")
  local at, bytes = 0, ffi.cast("const char *", text)
  while at < #text do
    local n = tonumber(ffi.C.write(fd, bytes + at, #text - at))
    assert(n > 0, "write")
    at = at + n
  end
  return fd
end

function snapshots.close(fd) ffi.C.close(fd) end

-- ELF ----------------------------------------------------------------------------------------

local FUNCTION_BYTES = 256
local TEXT = 4096 -- offset and address of the first function

local function u16(x) return string.char(x % 256, math.floor(x / 256) % 256) end
local function u32(x) return u16(x % 65536) .. u16(math.floor(x / 65536)) end
local function u64(x) return u32(x % 4294967296) .. u32(math.floor(x / 4294967296)) end

--- The bytes of an ELF file with these functions, FUNCTION_BYTES each, in this order. One whose name begins
-- with "?" has no symbol.
local function elf(names)
  local text_bytes = #names * FUNCTION_BYTES
  local strings, symbols = { "\0" }, { ("\0"):rep(24) }
  local at = 1
  for i, name in ipairs(names) do
    if name:sub(1, 1) ~= "?" then
      symbols[#symbols + 1] = u32(at) .. string.char(0x12, 0) .. u16(1)
        .. u64(TEXT + (i - 1) * FUNCTION_BYTES) .. u64(FUNCTION_BYTES)
      strings[#strings + 1] = name .. "\0"
      at = at + #name + 1
    end
  end
  local symtab, strtab = table.concat(symbols), table.concat(strings)
  local shstrtab = "\0.text\0.symtab\0.strtab\0.shstrtab\0"
  local symtab_at = TEXT + text_bytes
  local strtab_at = symtab_at + #symtab
  local shstrtab_at = strtab_at + #strtab
  local sections_at = shstrtab_at + #shstrtab
  sections_at = sections_at + (-sections_at) % 8
  local function section(name, kind, flags, address, offset, bytes, link, info, entry)
    return u32(name) .. u32(kind) .. u64(flags) .. u64(address) .. u64(offset) .. u64(bytes) .. u32(link)
      .. u32(info) .. u64(8) .. u64(entry)
  end
  local header = "\127ELF\2\1\1" .. ("\0"):rep(9) .. u16(3) .. u16(62) .. u32(1) .. u64(TEXT) .. u64(64)
    .. u64(sections_at) .. u32(0) .. u16(64) .. u16(56) .. u16(1) .. u16(64) .. u16(5) .. u16(4)
  local segment = u32(1) .. u32(5) .. u64(TEXT) .. u64(TEXT) .. u64(TEXT) .. u64(text_bytes) .. u64(text_bytes)
    .. u64(4096)
  local head = header .. segment
  local body = head .. ("\0"):rep(TEXT - #head) .. ("\144"):rep(text_bytes) .. symtab .. strtab .. shstrtab
  return body .. ("\0"):rep(sections_at - #body)
    .. ("\0"):rep(64)
    .. section(1, 1, 6, TEXT, TEXT, text_bytes, 0, 0, 0)
    .. section(7, 2, 0, 0, symtab_at, #symtab, 3, 1, 24)
    .. section(15, 3, 0, 0, strtab_at, #strtab, 0, 0, 0)
    .. section(23, 3, 0, 0, shstrtab_at, #shstrtab, 0, 0, 0)
end

-- Programs: modules with functions, mapped somewhere ------------------------------------------

--- Modules for these frame names, as files of a fresh folder.
-- Returns a function that gives a frame's return address, and the text of /proc/PID/maps.
function snapshots.program(frame_names)
  local folder = support.temp_dir()
  local modules, order, places = {}, {}, {}
  for _, frame in ipairs(frame_names) do
    local module, name = frame:match("^([^!]+)!(.+)$")
    module, name = module or "app", name or frame
    local m = modules[module]
    if not m then
      m = { name = module, base = 0x100000000 * (#order + 1), names = {}, index = {} }
      modules[module], order[#order + 1] = m, m
    end
    if not m.index[name] then
      m.names[#m.names + 1] = name
      m.index[name] = #m.names
    end
    places[frame] = { module = m, index = m.index[name] }
  end
  local lines = {}
  for _, m in ipairs(order) do
    local path = support.write_file(folder .. "/" .. m.name, elf(m.names))
    lines[#lines + 1] = ("%x-%x r-xp %08x 00:01 1 %s\n"):format(m.base + TEXT,
      m.base + TEXT + math.ceil(#m.names * FUNCTION_BYTES / 4096) * 4096, TEXT, path)
  end
  local function address(frame)
    local place = places[frame] or error("no such frame: " .. tostring(frame), 2)
    return place.module.base + TEXT + (place.index - 1) * FUNCTION_BYTES + 17
  end
  return address, table.concat(lines)
end

--- The text of a dump. `rows`: { { addresses = {...}, objects =, bytes = }, ... }, figures as printed.
function snapshots.dump(period_bytes, rows, maps)
  local lines = { ("heap_v2/%d\n  t*: 0: 0 [0: 0]\n"):format(period_bytes) }
  for _, row in ipairs(rows) do
    lines[#lines + 1] = "@"
    for _, address in ipairs(row.addresses) do lines[#lines + 1] = (" 0x%x"):format(address) end
    lines[#lines + 1] = ("\n  t*: %d: %d [0: 0]\n"):format(row.objects, row.bytes)
  end
  lines[#lines + 1] = "\nMAPPED_LIBRARIES:\n" .. maps
  return table.concat(lines)
end

-- Runs ---------------------------------------------------------------------------------------

local run = {}
run.__index = run

--- An aggregator. `options`: heap_interval_ms, series_capacity, stack_bytes, started_ms.
function snapshots.run(options)
  local o = ffi.new("lupe_aggregator_options", options or {})
  if o.started_ms == 0 then o.started_ms = snapshots.epoch_ms end
  local out = ffi.new("lupe_aggregator *[1]")
  check(support.core().lupe_aggregator_create(out, o), "aggregator")
  local a = ffi.gc(out[0], support.core().lupe_aggregator_free)
  return setmetatable({ a = a, cpu_hz = options and options.cpu_hz }, run)
end

--- The same with a store that is somebody else's.
function snapshots.run_on(a) return setmetatable({ a = a }, run) end

local WRAPPER_KINDS = { name = 0, prefix = 1, module = 2 }

--- `list`: { { "name" | "prefix" | "module", text }, ... }
function run:set_wrappers(list)
  local wrappers = ffi.new("lupe_wrapper[?]", #list + 1)
  for i, w in ipairs(list) do
    wrappers[i - 1].kind = WRAPPER_KINDS[w[1]] or error("a wrapper's kind: name, prefix or module", 2)
    wrappers[i - 1].text = w[2]
  end
  check(support.core().lupe_aggregator_set_wrappers(self.a, wrappers, #list), "wrappers")
end

--- A process. `info`: the fields of lupe_target_info, all optional. Returns a lupe_target *.
function run:add(info)
  info = info or {}
  local i = ffi.new("lupe_target_info")
  i.pid, i.ppid, i.start_ticks = info.pid or 4242, info.ppid or 1, info.start_ticks or 1
  i.heap_state, i.forked = info.heap_state or 0, info.forked or 0
  i.sample_period_bytes = info.sample_period_bytes or 1
  i.time_ms = info.time_ms or snapshots.epoch_ms
  i.memory_functions = info.memory_functions
  local name, allocator = info.name or "app", info.allocator or "jemalloc 5.3.0"
  i.name, i.allocator = name, allocator
  local out = ffi.new("lupe_target *[1]")
  check(support.core().lupe_aggregator_add(self.a, i, out), "target")
  return out[0]
end

--- One round at `time_ms`: `dumps` is a list of { target, text }.
function run:round(time_ms, dumps)
  local core, tick = support.core(), ffi.new("uint64_t[1]")
  check(core.lupe_aggregator_begin_round(self.a, time_ms, tick), "round")
  for _, dump in ipairs(dumps) do self:ingest(dump[1], dump[2], tick[0]) end
  core.lupe_aggregator_end_round(self.a)
end

--- Returns the status and what was wrong instead of an error.
function run.try_ingest(_, target, text, tick)
  local why = ffi.new("const char *[1]")
  local fd = snapshots.memfd(text)
  local status = support.core().lupe_target_ingest(target, fd, tick or 0, why)
  snapshots.close(fd)
  return tonumber(status), ffi.string(why[0])
end

function run:ingest(target, text, tick)
  local status, why = self:try_ingest(target, text, tick)
  check(status, "ingest: " .. why)
end

--- `count` sampled allocations of a stack (a list of return addresses).
function run.sample(_, target, addresses, count)
  local raw = ffi.new("uint64_t[?]", #addresses + 1, addresses)
  support.core().lupe_target_sample(target, raw, #addresses, count or 1)
end

--- A reading of memory; `fields` of lupe_memory_figures. Returns the row.
function run.figures(_, target, fields)
  local row = ffi.new("lupe_memory_figures", fields)
  support.core().lupe_target_figures(target, row)
  return row
end

--- One CPU or wall sample. `sample`: { kind = "cpu" | "wall", tid, weight, state, switches, time_ms (after the
-- epoch) }; `addresses`: the first one was interrupted.
function run:thread_sample(target, sample, addresses)
  local s = ffi.new("lupe_thread_sample", {
    kind = sample.kind == "wall" and 4 or 3, -- LUPE_RECORD_WALL, LUPE_RECORD_CPU
    tid = sample.tid or 1, weight = sample.weight or 1, state = sample.state or 0,
    time_ms = snapshots.epoch_ms + (sample.time_ms or 0),
  })
  if sample.kind == "wall" then
    s.switches = sample.switches or 0
  else
    s.period_ns = sample.period_ns or 1e9 / (self.cpu_hz or 100)
  end
  local raw = ffi.new("uint64_t[?]", #addresses + 1, addresses)
  support.core().lupe_target_thread_sample(target, s, raw, #addresses)
end

--- What is asked for from then on; 0: off.
function run:set_rates(cpu_hz, wall_hz, time_ms)
  support.core().lupe_aggregator_set_rates(self.a, cpu_hz, wall_hz, snapshots.epoch_ms + time_ms)
end

--- Where a process's code lies: the text of its /proc/PID/maps.
function run.set_maps(_, target, text)
  check(support.core().lupe_target_set_maps(target, snapshots.memfd(text)), "maps")
end

--- A snapshot: { header, address, bytes, fd }. `pid`: default 0, all live targets; `window_ms`: of samples.
function run:snapshot(pid, time_ms, window_ms)
  local core, out = support.core(), ffi.new("lupe_snapshot *[1]")
  check(core.lupe_aggregator_snapshot(self.a, pid or 0, time_ms or snapshots.epoch_ms, window_ms or 0, out),
    "snapshot")
  local s = ffi.gc(out[0], core.lupe_snapshot_release)
  local header = core.lupe_snapshot_block(s)
  return {
    snapshot = s,
    header = header,
    address = ffi.cast("const char *", header),
    bytes = tonumber(core.lupe_snapshot_bytes(s)),
    fd = core.lupe_snapshot_fd(s),
  }
end

local function value(source, i)
  if type(source) == "function" then return source(i) end
  if type(source) == "table" then return source[i] end
  return source
end

--- What a dump prints for `objects` of together `bytes`; exact where the period is 1.
local function printed(objects, bytes, period)
  if objects <= 0 or bytes <= 0 then return 0, 0 end
  local seen = period <= 1 and 1 or 1 - math.exp(-bytes / objects / period)
  return math.max(1, math.floor(objects * seen + 0.5)), math.floor(bytes * seen + 0.5)
end

--- A snapshot from a literal. Fields, all optional but `sites`:
--   ticks     times in ms after the epoch; default 0, 1000, ... as many as the longest `space`
--   sites     { stack, space, objects | size, samples, target }: `space` live bytes and `objects` live
--             objects per tick: a list, a function of the tick's number, or one number; `size` bytes of one
--             object instead of `objects` (default 64); `samples` allocations seen by the hook;
--             `target` index into targets (default 1)
--   targets   { { pid, name, heap_state ... } }, as for run:add; default one of pid 4242
--   wrappers  as for run:set_wrappers
--   memory    rows of lupe_memory_figures of the first target; time_ms after the epoch, default at the ticks
--   classes   { { size_bytes, live_count }, ... } of the first target
--   losses    { dropped_records, truncated_stacks }
--   period_bytes  of the samples; default 1, where figures are exact for objects of 40 bytes or more
--   samples   CPU and wall samples: { stack, target } and the fields that run:thread_sample has; options.cpu_hz
--             or options.wall_hz must say that they are taken
--   pid, time_ms, window_ms  of the snapshot; default 0 (all), the last tick, a minute
function snapshots.build(literal)
  local core = support.core()
  local period = literal.period_bytes or 1
  local names, tick_count = {}, 0
  for _, sample in ipairs(literal.samples or {}) do
    for _, frame in ipairs(sample.stack) do names[#names + 1] = frame end
  end
  for _, site in ipairs(literal.sites) do
    for _, frame in ipairs(site.stack) do names[#names + 1] = frame end
    if type(site.space) == "table" then tick_count = math.max(tick_count, #site.space) end
  end
  local ticks = literal.ticks
  if not ticks then
    ticks = {}
    for i = 1, math.max(tick_count, 1) do ticks[i] = (i - 1) * 1000 end
  end
  local address, maps = snapshots.program(names)
  local self = snapshots.run(literal.options)
  if literal.wrappers then self:set_wrappers(literal.wrappers) end

  local targets = {}
  for i, info in ipairs(literal.targets or { {} }) do
    local copy = { sample_period_bytes = period, pid = 4241 + i }
    for k, v in pairs(info) do copy[k] = v end
    targets[i] = self:add(copy)
  end
  if literal.classes then
    local classes = ffi.new("lupe_snapshot_size_class[?]", #literal.classes, literal.classes)
    core.lupe_target_classes(targets[1], classes, #literal.classes)
  end
  if literal.losses then core.lupe_aggregator_set_losses(self.a, literal.losses[1], literal.losses[2]) end
  for i, row in ipairs(literal.memory or {}) do
    local fields = { time_ms = snapshots.epoch_ms + (row.time_ms or ticks[i] or (i - 1) * 1000) }
    for k, v in pairs(row) do if k ~= "time_ms" then fields[k] = v end end
    self:figures(targets[1], fields)
    core.lupe_aggregator_record_memory(self.a, fields.time_ms)
  end

  for i, time in ipairs(ticks) do
    local rows = {}
    for k = 1, #targets do rows[k] = {} end
    for _, site in ipairs(literal.sites) do
      local addresses = {}
      for k, frame in ipairs(site.stack) do addresses[k] = address(frame) end
      local bytes = value(site.space, i) or 0
      local live = site.objects and value(site.objects, i) or bytes / (site.size or 64)
      local objects, shown = printed(live, bytes, period)
      local of_target = rows[site.target or 1]
      if objects > 0 then
        of_target[#of_target + 1] = { addresses = addresses, objects = objects, bytes = math.max(shown, objects) }
      end
      if i == #ticks and site.samples then
        self:sample(targets[site.target or 1], addresses, site.samples)
      end
    end
    local dumps = {}
    for k, target in ipairs(targets) do dumps[k] = { target, snapshots.dump(period, rows[k], maps) } end
    self:round(snapshots.epoch_ms + time, dumps)
  end
  local with_maps = {}
  for _, sample in ipairs(literal.samples or {}) do
    local target, addresses = targets[sample.target or 1], {}
    for k, frame in ipairs(sample.stack) do addresses[k] = address(frame) end
    if not with_maps[target] then self:set_maps(target, maps) end
    with_maps[target] = true
    self:thread_sample(target, sample, addresses)
  end
  local last = literal.time_ms or ticks[#ticks] or 0
  local built = self:snapshot(literal.pid, snapshots.epoch_ms + last, literal.window_ms)
  built.run, built.targets = self, targets
  return built
end

--- A lupe_snapshot of a block that Lua has laid out (lupe.ffi, lupe.view_literal).
function snapshots.mapped(address, size)
  local fd = snapshots.memfd(ffi.string(ffi.cast("const char *", address), size))
  local out = ffi.new("lupe_snapshot *[1]")
  check(support.core().lupe_snapshot_map(fd, false, out), "map")
  snapshots.close(fd)
  return ffi.gc(out[0], support.core().lupe_snapshot_release)
end

--- The samples of a snapshot as plain tables: { stack = names leaf first (nil: none), thread, state, count, ns },
-- and its threads: { target (from 0), tid, name, switches }.
function snapshots.samples(header)
  local column = function(name, ctype) return (snapshots.column(header, name, ctype)) end
  local stack, thread = column("sample_stack", "uint32_t"), column("sample_thread", "uint32_t")
  local state = column("sample_state", "uint32_t")
  local counts, ns = column("sample_count", "double"), column("sample_ns", "double")
  local samples, threads = {}, {}
  for i = 0, tonumber(header.sample_thread.count) - 1 do
    samples[i + 1] = {
      stack = stack[i] ~= 0xffffffff and snapshots.stack(header, stack[i]) or nil,
      thread = thread[i], state = state[i], count = counts[i], ns = ns[i],
    }
  end
  local rows = column("threads", "lupe_snapshot_thread")
  for i = 0, tonumber(header.threads.count) - 1 do
    threads[i + 1] = {
      target = rows[i].target, tid = rows[i].tid, name = snapshots.string(header, rows[i].name),
      switches = rows[i].switches,
    }
  end
  return samples, threads
end

--- A stack of a snapshot: the names of its frames' functions, leaf first.
function snapshots.stack(header, index)
  local first = snapshots.column(header, "stack_first", "uint32_t")
  local frames = snapshots.column(header, "stack_frames", "uint32_t")
  local rows = snapshots.column(header, "frames", "lupe_snapshot_frame")
  local functions = snapshots.column(header, "functions", "lupe_snapshot_function")
  local names = {}
  for i = first[index], first[index + 1] - 1 do
    names[#names + 1] = snapshots.string(header, functions[rows[frames[i]]["function"]].name)
  end
  return names
end

--- A C string of the snapshot's string block.
function snapshots.string(header, offset)
  return ffi.string(ffi.cast("const char *", header) + header.strings.offset + offset)
end

--- A column as a pointer to its elements.
function snapshots.column(header, name, ctype)
  return ffi.cast("const " .. ctype .. " *", ffi.cast("const char *", header) + header[name].offset),
    tonumber(header[name].count)
end

--- The sites of a snapshot as plain tables, by name: what specs of the store look at.
function snapshots.sites(header)
  local functions = snapshots.column(header, "functions", "lupe_snapshot_function")
  local site_function, count = snapshots.column(header, "site_function", "uint32_t")
  local history = snapshots.column(header, "site_history_space", "float")
  local allocated = snapshots.column(header, "site_history_alloc", "float")
  local sites = {}
  for i = 0, count - 1 do
    local site = { index = i, history = {}, alloc_history = {} }
    for _, field in ipairs { "inuse_space", "inuse_objects", "alloc_space", "alloc_objects", "first_seen_ms",
      "last_grown_ms" } do
      site[field] = snapshots.column(header, "site_" .. field, "double")[i]
    end
    for t = 1, header.tick_count do
      local at = i * header.tick_count + t - 1
      site.history[t], site.alloc_history[t] = history[at], allocated[at]
    end
    site.top_stack = snapshots.column(header, "site_top_stack", "uint32_t")[i]
    site.name = snapshots.string(header, functions[site_function[i]].name)
    local other = sites[site.name] -- of two files of one path
    if not other or site.inuse_space >= other.inuse_space then sites[site.name] = site end
  end
  return sites
end

return snapshots
