--- The leak proofs of a literal snapshot (lupe.view_literal), one for each process that was asked for one:
--
--     proofs = { { pid = 1, outcome = "complete", error = 0, hidden = { "luajit" ... }, time_ms = of the snapshot,
--                  scanned_ms = time_ms (where not complete 0: nothing was ever found), threads = 1, registers = 0,
--                  interval_ms = 2000, pause_ms = 1, elapsed_ms = 2000, read_bytes = 0, scan_ms = 0, table_bytes = 0,
--                  anonymous_bytes = 0, heap_objects = 0, heap_bytes = 0,
--                  unreachable_objects, unreachable_bytes = sums of the sites',
--                  sites = { { name = "leak", stack = 1 (which of its stacks), unreachable = 0, reachable = 0,
--                              interior = 0, stack_only = 0, unsettled = 0, groups = unreachable, largest_behind = 0,
--                              holder = "cache", held = all that are reachable, head = itself,
--                              objects, bytes = the stack's live ones, unreachable_objects, unreachable_bytes = by the
--                              share of its samples, objects_variance, bytes_variance = by their number } ... } } ... }
--
-- `outcome` is a word of lupe.proof_words, `hidden` its short names. A site's name may be "module!name".
-- @module lupe.proof_literal

local proof_words = require("lupe.proof_words")

local NOTHING = 0xffffffff
local COUNTS = { "unreachable", "reachable", "interior", "stack_only", "unsettled" }

local function hidden_of(names)
  local bits = 0
  for _, name in ipairs(names or {}) do
    bits = bits + (proof_words.hidden_bit(name) or error(("proofs: nothing is hidden by %q"):format(name), 0))
  end
  return bits
end

--- @param given of a site's
-- @param stack_of function(name, which) that gives the number of a site's stack
-- @param live function(stack) its objects and bytes
local function row_of(given, proof, stack_of, live)
  local stack = stack_of(given.name, given.stack or 1)
  local row = { proof = proof, stack = stack, holder_stack = NOTHING, head_stack = NOTHING }
  local sampled = 0
  for _, name in ipairs(COUNTS) do
    row[name] = given[name] or 0
    sampled = sampled + row[name]
  end
  local reachable = row.reachable + row.interior + row.stack_only
  if given.holder then row.holder_stack, row.held = stack_of(given.holder, 1), given.held or reachable end
  row.groups, row.largest_behind = given.groups or row.unreachable, given.largest_behind or 0
  if row.groups > 0 then row.head_stack = stack_of(given.head or given.name, given.head and 1 or given.stack or 1) end
  local objects, bytes = live(stack)
  row.objects, row.bytes = given.objects or objects, given.bytes or bytes
  local share = row.unreachable / math.max(1, sampled)
  row.unreachable_objects = given.unreachable_objects or row.objects * share
  row.unreachable_bytes = given.unreachable_bytes or row.bytes * share
  local count = math.max(1, row.unreachable)
  row.objects_variance = given.objects_variance or row.unreachable_objects ^ 2 / count
  row.bytes_variance = given.bytes_variance or row.unreachable_bytes ^ 2 / count
  return row
end

--- @tparam table list `proofs` of the literal
-- @tparam table arrays of lupe.ffi.build: `proofs` and `proof_rows` are added to
-- @tparam table about `target_of(pid)`, `stack_of(name, which)`, `live(stack)`, `time_ms`, `sample_period_bytes`
return function(list, arrays, about)
  for i, given in ipairs(list) do
    local word = given.outcome or "complete"
    local proof = {
      target = about.target_of(given.pid), outcome = proof_words.outcome_number(word)
        or error(("proofs: no outcome is called %q"):format(word), 0),
      error = given.error or 0, hidden = hidden_of(given.hidden), time_ms = given.time_ms or about.time_ms,
      elapsed_ns = (given.elapsed_ms or 2000) * 1e6, pause_ns = (given.pause_ms or 1) * 1e6,
      anonymous_bytes = given.anonymous_bytes or 0, read_bytes = given.read_bytes or 0,
    }
    local rows, objects, bytes = {}, 0, 0
    for k, site in ipairs(given.sites or {}) do
      rows[k] = row_of(site, i - 1, about.stack_of, about.live)
      objects, bytes = objects + rows[k].unreachable_objects, bytes + rows[k].unreachable_bytes
    end
    table.sort(rows, function(a, b) return a.stack < b.stack end)
    for _, row in ipairs(rows) do arrays.proof_rows[#arrays.proof_rows + 1] = row end
    proof.scanned_ms = given.scanned_ms or word == "complete" and proof.time_ms or 0
    if proof.scanned_ms > 0 then
      proof.interval_ms, proof.scan_ns = given.interval_ms or 2000, (given.scan_ms or 0) * 1e6
      proof.threads, proof.registers = given.threads or 1, given.registers or 0
      proof.table_bytes, proof.sample_period_bytes = given.table_bytes or 0, about.sample_period_bytes
      proof.heap_objects, proof.heap_bytes = given.heap_objects or 0, given.heap_bytes or 0
      proof.unreachable_objects = given.unreachable_objects or objects
      proof.unreachable_bytes = given.unreachable_bytes or bytes
    end
    arrays.proofs[i] = proof
  end
end
