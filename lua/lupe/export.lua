--- A snapshot as JSON, written in pieces: memory stays bounded however large it is.
--
-- One object; records refer to each other by 0-based index. Bytes and objects are corrected for sampling, times are
-- Unix ms, what is not known is null. Its members, in order:
--
-- * `format` "lupe-heap-snapshot", `version` 1 (counts changes that break readers; members may be added)
-- * `time_ms`, `started_ms`, `generation`, `sample_period_bytes`, `heap_interval_ms`, `dropped_records`,
--   `truncated_stacks`, `stack_overflows`
-- * `targets` {pid, ppid, name, live, allocator, sample_period_bytes, first_ms, last_ms}
-- * `modules` {path, build_id}
-- * `functions` {name, module, start, named, wrapper}: symbols; `start` is an address in the module's file
-- * `frames` {function, module, address, file, line}; where calls are inlined there also `inlined`: {name, file, line},
--   innermost first
-- * `classes` {size_bytes, live_count}: exact counts per size class of the allocator
-- * `memory`: the series of readings, oldest first
-- * `ticks` {time_ms, inuse_space, allocated}: times of the history
-- * `sites` {function, inuse_space, inuse_objects, alloc_space, alloc_objects, first_seen_ms, last_grown_ms,
--   history_space, history_objects, history_alloc}: a value per tick
-- * `profile` {from_ms, to_ms, cpu_hz, wall_hz}: the window of the CPU and wall samples
-- * `stacks` {site, frames (leaf first), inuse_space, inuse_objects, alloc_space, alloc_objects}: the heap profile;
--   those with samples have `cpu_ns io_ns lock_ns idle_ns` too, the time spent on a core and waiting, and where they
--   have nothing else `site` is null
-- * `proofs` {target, outcome, error, time_ms, elapsed_ns, pause_ns, anonymous_bytes, read_bytes, hidden (bits of
--   core/wire/proof.h), scanned_ms, interval_ms, scan_ns, table_bytes, threads, registers, sample_period_bytes,
--   heap_objects, heap_bytes, unreachable_objects, unreachable_bytes}: how the newest leak proof of each process that
--   was asked for one ended; from `hidden` on what the newest complete one found, 0 where there is none
-- * `proof_rows` {proof, stack, holder_stack, head_stack, held, reachable, interior, stack_only, unreachable,
--   unsettled, groups, largest_behind, objects, bytes, unreachable_objects, unreachable_bytes, objects_variance,
--   bytes_variance}: what they found of each stack (lupe_snapshot_proof_row of core/store/snapshot_layout.h)
-- * `findings`, and members of the caller's after it
-- @module lupe.export

local json = require("lupe.json")
local proof_words = require("lupe.proof_words")
local sums_of = require("lupe.profile_sums")

local export = {}

local floor = math.floor
local PIECE_BYTES = 64 * 1024

local MEMORY_FIELDS = {
  "time_ms", "rss_bytes", "virtual_bytes", "shared_bytes", "allocated_bytes", "active_bytes", "metadata_bytes",
  "resident_bytes", "mapped_bytes", "retained_bytes", "cached_bytes", "sampling_bytes",
  "user_ns", "system_ns", "minor_faults", "major_faults", "threads",
}
local ALLOCATOR_FIELDS = {
  allocated_bytes = true, active_bytes = true, metadata_bytes = true, resident_bytes = true, mapped_bytes = true,
  retained_bytes = true, cached_bytes = true, sampling_bytes = true,
}

--- Collects text and hands it on in pieces. The first failure is thrown, to be caught in `write`.
local function new_output(write)
  local out = { parts = {}, count = 0, pending = 0, bytes = 0 }
  function out.flush()
    if out.count == 0 then return end
    local text = table.concat(out.parts, "", 1, out.count)
    out.count, out.pending = 0, 0
    out.bytes = out.bytes + #text
    local ok, message = write(text)
    if not ok then error({ refused = message }, 0) end
  end
  function out.add(text)
    out.count = out.count + 1
    out.parts[out.count] = text
    out.pending = out.pending + #text
    if out.pending >= PIECE_BYTES then out.flush() end
  end
  return out
end

local function number(value)
  value = tonumber(value)
  if value ~= value or value == math.huge or value == -math.huge then return "null" end
  return ((value % 1 == 0) and "%.0f" or "%.9g"):format(value)
end

local function known_time(value) return value > 0 and number(value) or "null" end

local function list(out, name, count, record)
  out.add((',\n"%s":['):format(name))
  for i = 0, count - 1 do
    if i > 0 then out.add(",\n") end
    record(i)
  end
  out.add("]")
end

local function write_header(out, columns)
  out.add('{"format":"lupe-heap-snapshot","version":1')
  for _, name in ipairs({
    "time_ms", "started_ms", "generation", "sample_period_bytes", "heap_interval_ms", "dropped_records",
    "truncated_stacks", "stack_overflows",
  }) do
    out.add((',"%s":%s'):format(name, number(columns[name])))
  end
end

--- File and line of a frame or an inlined call, as JSON.
local function place(text, of)
  return of.file > 0 and text(of.file) or "null", of.line > 0 and tostring(of.line) or "null"
end

local function write_symbols(out, columns, text)
  list(out, "targets", columns.count.targets, function(i)
    local t = columns.targets[i]
    out.add(('{"pid":%d,"ppid":%d,"name":%s,"live":%s,"allocator":%s'):format(
      t.pid, t.ppid, text(t.name), tostring(t.live == 1), text(t.allocator)))
    out.add((',"sample_period_bytes":%s,"first_ms":%s,"last_ms":%s}'):format(
      number(t.sample_period_bytes), number(t.first_ms), number(t.last_ms)))
  end)
  list(out, "modules", columns.count.modules, function(i)
    local m = columns.modules[i]
    out.add(('{"path":%s,"build_id":%s}'):format(text(m.path), m.build_id > 0 and text(m.build_id) or "null"))
  end)
  list(out, "functions", columns.count.functions, function(i)
    local f = columns.functions[i]
    out.add(('{"name":%s,"module":%d,"start":%s,"named":%s,"wrapper":%s}')
      :format(text(f.name), f.module, number(f.start), tostring(f.named == 1), tostring(f.wrapper == 1)))
  end)
  list(out, "frames", columns.count.frames, function(i)
    local f = columns.frames[i]
    out.add(('{"function":%d,"module":%d,"address":%s,"file":%s,"line":%s')
      :format(f["function"], f.module, number(f.address), place(text, f)))
    local inlined = {}
    for n = 1, f.inline_count do
      local call = columns.inlines[f.inline_first + n - 1]
      inlined[n] = ('{"name":%s,"file":%s,"line":%s}'):format(text(call.name), place(text, call))
    end
    if inlined[1] then out.add((',"inlined":[%s]'):format(table.concat(inlined, ","))) end
    out.add("}")
  end)
end

local function write_memory(out, columns)
  list(out, "classes", columns.count.classes, function(i)
    local c = columns.classes[i]
    out.add(('{"size_bytes":%s,"live_count":%s}'):format(number(c.size_bytes), number(c.live_count)))
  end)
  list(out, "memory", columns.count.memory, function(i)
    local row, fields = columns.memory[i], {}
    for n, name in ipairs(MEMORY_FIELDS) do
      local known = row.has_allocator == 1 or not ALLOCATOR_FIELDS[name]
      fields[n] = ('"%s":%s'):format(name, known and number(row[name]) or "null")
    end
    out.add("{" .. table.concat(fields, ",") .. "}")
  end)
end

local values = {} -- reused: there can be millions

local function write_history(out, columns, name, source, site)
  local ticks, column = columns.tick_count, columns[source]
  local offset = site * ticks
  if offset + ticks > columns.count[source] then ticks = 0 end
  for i = 0, ticks - 1 do values[i + 1] = floor(column[offset + i] + 0.5) end
  out.add((',"%s":[%s]'):format(name, table.concat(values, ",", 1, ticks)))
end

local function write_sites(out, columns)
  list(out, "ticks", columns.tick_count, function(i)
    out.add(('{"time_ms":%s,"inuse_space":%s,"allocated":%s}'):format(number(columns.tick_time_ms[i]),
      number(columns.tick_inuse_space[i]), known_time(columns.tick_allocated[i])))
  end)
  list(out, "sites", columns.count.sites, function(i)
    out.add(('{"function":%d,"inuse_space":%s,"inuse_objects":%s,"alloc_space":%s,"alloc_objects":%s'):format(
      columns.site_function[i], number(columns.site_inuse_space[i]), number(columns.site_inuse_objects[i]),
      number(columns.site_alloc_space[i]), number(columns.site_alloc_objects[i])))
    out.add((',"first_seen_ms":%s,"last_grown_ms":%s'):format(known_time(columns.site_first_seen_ms[i]),
      known_time(columns.site_last_grown_ms[i])))
    write_history(out, columns, "history_space", "site_history_space", i)
    write_history(out, columns, "history_objects", "site_history_objects", i)
    write_history(out, columns, "history_alloc", "site_history_alloc", i)
    out.add("}")
  end)
end

local NO_SITE = 4294967295

local function write_stacks(out, columns)
  local frames = {}
  local sums = sums_of(columns).stack
  out.add((',\n"profile":{"from_ms":%s,"to_ms":%s,"cpu_hz":%d,"wall_hz":%d}'):format(number(columns.profile_from_ms),
    number(columns.profile_to_ms), columns.cpu_hz, columns.wall_hz))
  list(out, "stacks", columns.count.stacks, function(i)
    local first = columns.stack_first[i]
    local depth = columns.stack_first[i + 1] - first
    for n = 1, depth do frames[n] = columns.stack_frames[first + n - 1] end
    local site = columns.stack_site[i]
    out.add(('{"site":%s,"frames":[%s]'):format(site == NO_SITE and "null" or tostring(site),
      table.concat(frames, ",", 1, depth)))
    out.add((',"inuse_space":%s,"inuse_objects":%s,"alloc_space":%s,"alloc_objects":%s'):format(
      number(columns.stack_inuse_space[i]), number(columns.stack_inuse_objects[i]),
      number(columns.stack_alloc_space[i]), number(columns.stack_alloc_objects[i])))
    if sums.self[i] >= 0 then
      out.add((',"cpu_ns":%s,"io_ns":%s,"lock_ns":%s,"idle_ns":%s'):format(number(sums.cpu_ns[i]),
        number(sums.io_ns[i]), number(sums.lock_ns[i]), number(sums.idle_ns[i])))
    end
    out.add("}")
  end)
end

local PROOF_FIELDS = {
  "error", "time_ms", "elapsed_ns", "pause_ns", "anonymous_bytes", "read_bytes", "hidden", "scanned_ms",
  "interval_ms", "scan_ns", "table_bytes", "threads", "registers", "sample_period_bytes", "heap_objects", "heap_bytes",
  "unreachable_objects", "unreachable_bytes",
}
local PROOF_ROW_FIELDS = {
  "held", "reachable", "interior", "stack_only", "unreachable", "unsettled", "groups", "largest_behind", "objects",
  "bytes", "unreachable_objects", "unreachable_bytes", "objects_variance", "bytes_variance",
}

local function known_index(value) return value == NO_SITE and "null" or number(value) end

local function named_numbers(record, names)
  local parts = {}
  for i, name in ipairs(names) do parts[i] = ('"%s":%s'):format(name, number(record[name])) end
  return table.concat(parts, ",")
end

local function write_proofs(out, columns)
  list(out, "proofs", columns.count.proofs, function(i)
    local proof = columns.proofs[i]
    out.add(('{"target":%d,"outcome":%s,%s}'):format(proof.target, json.encode((proof_words.outcome(proof.outcome))),
      named_numbers(proof, PROOF_FIELDS)))
  end)
  list(out, "proof_rows", columns.count.proof_rows, function(i)
    local row = columns.proof_rows[i]
    out.add(('{"proof":%d,"stack":%d,"holder_stack":%s,"head_stack":%s,%s}'):format(row.proof, row.stack,
      known_index(row.holder_stack), known_index(row.head_stack), named_numbers(row, PROOF_ROW_FIELDS)))
  end)
end

local function write_all(columns, members, out)
  local function text(offset) return json.encode(columns.text(offset)) end
  write_header(out, columns)
  write_symbols(out, columns, text)
  write_memory(out, columns)
  write_sites(out, columns)
  write_stacks(out, columns)
  write_proofs(out, columns)
  out.add(',\n"findings":' .. json.encode(json.array(members.findings)))
  local names = {}
  for name in pairs(members.extra or {}) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    out.add((",\n%s:%s"):format(json.encode(name), json.encode(members.extra[name])))
  end
  out.add("}\n")
  out.flush()
end

--- @param columns of lupe.ffi
-- @tparam table members `findings` (array, plain), `extra` (name -> plain value: members to add)
-- @tparam function write(text): true; or nil and "ENAME: text"
-- @treturn number bytes written; or nil, "ENAME: text", "ENAME" as `write` gave it
function export.write(columns, members, write)
  local out = new_output(write)
  local ok, failed = pcall(write_all, columns, members, out)
  if ok then return out.bytes end
  if type(failed) ~= "table" then error(failed, 0) end
  return nil, failed.refused, failed.refused:match("^(%u+):")
end

return export
