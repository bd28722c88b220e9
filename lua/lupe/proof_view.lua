--- The newest leak proofs of the view's processes (`view.proof`): nil where none was run, and then `view.proof_reason`
-- says so. What they say of a site is `site.proof`: see lupe.site_proof.
--
-- * `status` how the newest ones ended. "complete": of one process at least; "refused": nothing was forked; "gave_up";
--   `reason` why one or more are not complete, nil where all are
-- * `time_ms` of what was found last; `unreachable_bytes`, `unreachable_objects` exact sums of what the later one of
--   the two scans found nothing to point to, sampled or not; nil where no proof ever was complete
-- * `targets` { { pid, name, outcome (a word), why (a sentence; nil where complete), time_ms (when it ended),
--   elapsed_ms, pause_ms (the longer of two), read_bytes (by the last scan), anonymous_bytes (its own) ... } ... }. And
--   of what the newest complete one found, which a later one that was refused takes nothing away from, `scanned_ms`
--   (when), `hidden` (sentences: where pointers may be that no reading finds), `threads`, `registers` (of its
--   threads, in no memory), `interval_ms` (between the two scans), `scan_bytes_per_sec` (of the newest; nil where too
--   short), `table_bytes`, `heap_bytes`, `heap_objects`, `unreachable_bytes`, `unreachable_objects`,
--   `sample_period_bytes`; nil where there is none
--
-- Methods: `sites(options)` iterates over the sites (functions) that have a proof: those with most bytes that nothing
-- points to first, then those that hold most. Option `limit`.
-- @module lupe.proof_view
-- @usage
-- local proof = view.proof
-- if not proof then return view.proof_reason end
-- return proof.status, words.bytes(proof.unreachable_bytes), proof.targets[1].outcome, proof.targets[1].pause_ms
-- --> complete, 29.4 MiB, complete, 6.5
-- @usage
-- local found = {}
-- for site in view.proof:sites() do found[#found + 1] = site.name .. " " .. site.proof.state end
-- return table.concat(found, "; ")
-- --> remember_session proven; load_page reachable

local largest = require("lupe.largest")
local lazy = require("lupe.lazy")
local numbers = require("lupe.ffi").numbers
local options_of = require("lupe.options")
local proof_words = require("lupe.proof_words")
local site = require("lupe.site")

local function target_of(columns, proof)
  local word, status, why = proof_words.outcome(proof.outcome, proof.error, proof.read_bytes,
    proof.anonymous_bytes)
  local target = columns.targets[proof.target]
  local one = {
    pid = target.pid, name = columns.text(target.name), outcome = word, why = why, time_ms = proof.time_ms,
    pause_ms = proof.pause_ns / 1e6, elapsed_ms = proof.elapsed_ns / 1e6, read_bytes = proof.read_bytes,
    anonymous_bytes = proof.anonymous_bytes,
  }
  if proof.scanned_ms > 0 then
    one.scanned_ms, one.hidden = proof.scanned_ms, proof_words.hidden(proof.hidden)
    one.threads, one.registers = proof.threads, proof.registers
    one.interval_ms, one.table_bytes = proof.interval_ms, proof.table_bytes
    local timed = status == "complete" and proof.scan_ns > 0
    one.scan_bytes_per_sec = timed and proof.read_bytes / proof.scan_ns * 1e9 or nil
    one.heap_bytes, one.heap_objects = proof.heap_bytes, proof.heap_objects
    one.unreachable_bytes, one.unreachable_objects = proof.unreachable_bytes, proof.unreachable_objects
    one.sample_period_bytes = proof.sample_period_bytes
  end
  return one, status
end

--- Those not complete in one sentence.
local function reason_of(targets, statuses)
  local list, seen = {}, {}
  for i, target in ipairs(targets) do
    if statuses[i] ~= "complete" and not seen[target.why] then
      seen[target.why] = true
      list[#list + 1] = #targets == 1 and target.why or ("process %d (%s): %s"):format(target.pid, target.name,
        target.why)
    end
  end
  return list[1] and table.concat(list, "; ")
end

local BEST_FIRST = { "complete", "gave_up", "refused" }

local function best(statuses)
  local has = {}
  for _, status in ipairs(statuses) do has[status] = true end
  for _, status in ipairs(BEST_FIRST) do
    if has[status] then return status end
  end
end

--- The numbers of all sites that have rows, those first that have what nothing points to; and how many.
local function ordered(columns, limit)
  local lost, live, sites = numbers(columns.count.sites), numbers(columns.count.sites), columns.count.sites
  local sampled, unreachable = numbers(sites), numbers(sites)
  for i = 0, columns.count.proof_rows - 1 do
    local row = columns.proof_rows[i]
    local number = row.stack < columns.count.stacks and columns.stack_site[row.stack] or sites
    if number < sites then
      lost[number], live[number] = lost[number] + row.unreachable_bytes, live[number] + row.bytes
      sampled[number], unreachable[number] = 1, unreachable[number] + row.unreachable
    end
  end
  local first, second = {}, {}
  for number = 0, sites - 1 do
    if sampled[number] > 0 then
      local list = unreachable[number] > 0 and first or second
      list[#list + 1] = number
    end
  end
  local list, count = largest(first, #first, lost, limit)
  local others, more = largest(second, #second, live, limit - count)
  for i = 1, more do list[count + i] = others[i] end
  return list, count + more
end

--- @tparam table groups of lupe.site_groups
-- @return the proofs, or nil
return function(groups)
  local columns = groups.columns
  if columns.count.proofs == 0 then return nil end
  local targets, statuses = {}, {}
  local sums, ended_ms = { time_ms = 0 }, 0
  for i = 0, columns.count.proofs - 1 do
    local proof = columns.proofs[i]
    if proof.target < columns.count.targets then
      local one, status = target_of(columns, proof)
      targets[#targets + 1], statuses[#statuses + 1] = one, status
      ended_ms = math.max(ended_ms, one.time_ms)
      if one.scanned_ms then
        sums.time_ms = math.max(sums.time_ms, one.scanned_ms)
        sums.unreachable_bytes = (sums.unreachable_bytes or 0) + one.unreachable_bytes
        sums.unreachable_objects = (sums.unreachable_objects or 0) + one.unreachable_objects
      end
    end
  end
  if not targets[1] then return nil end

  local function sites(_, options)
    local limit = options_of.check("view.proof:sites", options, { limit = "number" }).limit or columns.count.sites
    local list, count = ordered(columns, math.max(0, math.floor(limit)))
    local group, at = groups.group("function"), 0
    return function()
      at = at + 1
      if at <= count then return site.new(groups, group, list[at]) end
    end
  end

  return lazy({}, {
    status = best(statuses), reason = reason_of(targets, statuses), targets = targets,
    time_ms = sums.unreachable_bytes and sums.time_ms or ended_ms,
    unreachable_bytes = sums.unreachable_bytes, unreachable_objects = sums.unreachable_objects, sites = sites,
  }, "view.proof")
end
