--- Blocks of leak proofs (core/wire/proof.h) from literal tables, for specs.
--
--    local proofs = require("spec.support_proof")
--    local text = proofs.block {
--      period = 4096, registers = 3,                        -- fields of lupe_proof_head; `period` of its samples
--      stacks = { { 0x1011, 0x2022 }, { 0x1033 } },         -- return addresses, leaf first
--      objects = { { stack = 1, size = 64, state = "unreachable", group = 0, head = true },
--                  { stack = 2, size = 128, holder = 1 } }, -- stacks and holders counted from 1; else reachable
--    }
--    local fd = proofs.sealed(text)                         -- close it with snapshots.close
local ffi = require("ffi")
local snapshots = require("spec.support_snapshot")
local support = require("spec.support")

support.declare("core/wire/proof.h")
ffi.cdef("int fcntl(int fd, int command, ...);")

local MAGIC = "LUPEPRF1"
local NONE = 0xffffffff
local ALLOW_SEALING, ADD_SEALS, SEALS = 3, 1033, 15

local proofs = {}

proofs.states = { reachable = 0, interior = 1, stack_only = 2, unreachable = 3, unsettled = 4 }
proofs.NONE = NONE

local HEAD = {
  version = 1, hidden = 0, time_ms = snapshots.epoch_ms, interval_ms = 2000, threads = 1, registers = 0,
  heap_objects = 1000, heap_bytes = 1e6, unreachable_objects = 10, unreachable_bytes = 1000, read_bytes = 2e6,
  scan_ns = 3e6, table_bytes = 4096,
}

--- The parts of a block: head, objects, pcs, stack_first; what a spec breaks before it joins them.
function proofs.parts(literal)
  local stacks, objects = literal.stacks or {}, literal.objects or {}
  local pcs, first = {}, { [0] = 0 }
  for i, stack in ipairs(stacks) do
    for _, pc in ipairs(stack) do pcs[#pcs + 1] = pc end
    first[i] = #pcs
  end
  local parts = {
    head = ffi.new("lupe_proof_head"),
    objects = ffi.new("lupe_proof_object[?]", #objects),
    pcs = ffi.new("uint64_t[?]", #pcs),
    first = ffi.new("uint32_t[?]", #stacks + 1),
  }
  ffi.copy(parts.head, MAGIC, 8)
  for name, value in pairs(HEAD) do parts.head[name] = literal[name] or value end
  parts.head.sample_period_bytes = literal.period or 1
  parts.head.object_count, parts.head.stack_count, parts.head.pc_count = #objects, #stacks, #pcs
  for i, o in ipairs(objects) do
    parts.objects[i - 1] = {
      address = o.address or 0x10000 * i, size_bytes = o.size or 64, stack = (o.stack or 1) - 1,
      holder = o.holder and o.holder - 1 or NONE, group = o.group or NONE, behind = o.behind or 0, tid = o.tid or 0,
      state = proofs.states[o.state or "reachable"], head = o.head and 1 or 0,
    }
  end
  for i, pc in ipairs(pcs) do parts.pcs[i - 1] = pc end
  for i = 0, #stacks do parts.first[i] = first[i] end
  return parts
end

--- Their bytes, one after the other.
function proofs.join(parts)
  return ffi.string(parts.head, ffi.sizeof(parts.head)) .. ffi.string(parts.objects, ffi.sizeof(parts.objects))
    .. ffi.string(parts.pcs, ffi.sizeof(parts.pcs)) .. ffi.string(parts.first, ffi.sizeof(parts.first))
end

function proofs.block(literal) return proofs.join(proofs.parts(literal)) end

--- A descriptor with this text, sealed as an agent sends it; `seals`: others than all of them.
function proofs.sealed(text, seals)
  local fd = ffi.C.memfd_create("spec-proof", ALLOW_SEALING)
  assert(fd >= 0, "memfd_create")
  local at, bytes = 0, ffi.cast("const char *", text)
  while at < #text do
    local n = tonumber(ffi.C.write(fd, bytes + at, #text - at))
    assert(n > 0, "write")
    at = at + n
  end
  assert(ffi.C.fcntl(fd, ADD_SEALS, ffi.cast("int", seals or SEALS)) == 0, "seals")
  return fd
end

--- Has a target take a proof in. `reply`: fields of lupe_proof_reply, `outcome` 0 (complete) where none is given;
-- `text`: its block, nil: none. Returns the status and what was wrong.
function proofs.take(target, reply, text)
  local fd = text and proofs.sealed(text) or -1
  local fields = { outcome = 0, time_ms = snapshots.epoch_ms + 1000, elapsed_ns = 5e9, pause_ns = 7e6 }
  for name, value in pairs(reply or {}) do fields[name] = value end
  local why = ffi.new("char[192]")
  local status = support.core().lupe_target_take_proof(target, ffi.new("lupe_proof_reply", fields), fd, why, 192)
  if fd >= 0 then snapshots.close(fd) end
  return tonumber(status), ffi.string(why)
end

local PROOF = {
  "target", "outcome", "error", "hidden", "time_ms", "elapsed_ns", "pause_ns", "anonymous_bytes", "read_bytes",
  "scanned_ms", "interval_ms", "scan_ns", "table_bytes", "threads", "registers", "sample_period_bytes", "heap_objects",
  "heap_bytes", "unreachable_objects", "unreachable_bytes",
}
local ROW = {
  "proof", "held", "reachable", "interior", "stack_only", "unreachable", "unsettled", "groups", "largest_behind",
  "objects", "bytes", "unreachable_objects", "unreachable_bytes", "objects_variance", "bytes_variance",
}

--- The proofs of a snapshot, and their rows, as plain tables; a row's stacks are names, leaf first ("stack",
-- "holder_stack", "head_stack": false where there is none), and `site` is the name of its site's function.
function proofs.shown(header)
  local list, rows = {}, {}
  local proof, proof_count = snapshots.column(header, "proofs", "lupe_snapshot_proof")
  for i = 0, proof_count - 1 do
    list[i + 1] = {}
    for _, name in ipairs(PROOF) do list[i + 1][name] = proof[i][name] end
  end
  local names = {}
  for name, site in pairs(snapshots.sites(header)) do names[site.index] = name end
  local site = snapshots.column(header, "stack_site", "uint32_t")
  local row, row_count = snapshots.column(header, "proof_rows", "lupe_snapshot_proof_row")
  for i = 0, row_count - 1 do
    local shown = { site = names[site[row[i].stack]] }
    for _, name in ipairs(ROW) do shown[name] = row[i][name] end
    for _, name in ipairs { "stack", "holder_stack", "head_stack" } do
      shown[name] = row[i][name] ~= NONE and table.concat(snapshots.stack(header, row[i][name]), " ")
    end
    rows[i + 1] = shown
  end
  return list, rows
end

return proofs
