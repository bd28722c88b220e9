--- What leak proofs say of one site (`site.proof`), put together from its stacks: nil where no complete proof has
-- sampled objects of it. Counts are of sampled objects; bytes and objects are scaled from them.
--
-- * `state` "proven": nothing in memory points to some of it, and nothing else can (no pointers are hidden, and it is
--   more structures than registers may hold); "unreferenced": nothing in memory does, but something else may;
--   "reachable": all that is known of it can still be reached; "unknown". `reasons` why it is less than proven
-- * `sampled_objects`, of which `unreachable`, `reachable`, `interior` (only by pointers into the middle), `stack_only`
--   (only from threads' stacks), `unsettled` (too young, or moved: nothing is known of them)
-- * `proven_objects`, `proven_bytes` how much is proven lost, 0 unless `state` is "proven"; `proven_bytes_error` 1.96
--   standard errors of that, by sampling
-- * `lost_objects`, `lost_bytes`, `lost_bytes_error` the same of all that nothing was found to point to, whatever the
--   state; `share` 0..1 that `lost_bytes` are of the site's `total_bytes` (`total_objects`) at that time
-- * `groups` that the unreachable ones hang together in, at least; `largest_behind` sampled objects behind the first
--   one of the largest; `head` the site that most of them begin at
-- * `holder` the site of the nearest sampled object that most of the reachable ones are reached through, another one
--   than itself where there is one; nil: it is not sampled, or a global. `held_share` 0..1 of the reachable ones
-- * `time_ms` when it was found out
-- @module lupe.site_proof
-- @usage
-- for site in view.heap:sites { by = "growth", limit = 1 } do
--   local proof = site.proof
--   return site.name, proof.state, words.estimate(proof.proven_bytes, proof.proven_bytes_error), proof.groups
-- end
-- --> remember_session, proven, 29.4 +- 2.6 MiB, 480

local numbers = require("lupe.ffi").numbers
local proof_words = require("lupe.proof_words")

local site_proof = {}

local NONE = 4294967295
local COUNTS = { "unreachable", "reachable", "interior", "stack_only", "unsettled" }
local BEST_FIRST = { "proven", "unreferenced", "reachable", "unknown" }

--- The rows of each stack as chains: head by stack, next by row, both plus 1. nil: there are no rows.
function site_proof.chains(columns)
  local count = columns.count.proof_rows
  if count == 0 then return nil end
  local rows, stacks = columns.proof_rows, columns.count.stacks
  local head, following = numbers(stacks), numbers(count)
  for i = count - 1, 0, -1 do
    local stack = rows[i].stack
    if stack < stacks then following[i], head[stack] = head[stack], i + 1 end
  end
  return { head = head, following = following }
end

local function new_sum(proof)
  return {
    proof = proof, unreachable = 0, reachable = 0, interior = 0, stack_only = 0, unsettled = 0, groups = 0,
    largest_behind = 0, objects = 0, bytes = 0, unreachable_objects = 0, unreachable_bytes = 0, bytes_variance = 0,
    holders = {}, heads = {},
  }
end

--- Counts a site under the stack that stands for it.
local function count_site(columns, counts, stack, count)
  if stack >= columns.count.stacks then return end
  local site = columns.stack_site[stack]
  if site < columns.count.sites then counts[site] = (counts[site] or 0) + count end
end

--- A group may span stacks, so what is known of several is the most that one has.
local function add_row(columns, sum, row)
  for _, name in ipairs(COUNTS) do sum[name] = sum[name] + row[name] end
  sum.groups = math.max(sum.groups, row.groups)
  sum.largest_behind = math.max(sum.largest_behind, row.largest_behind)
  sum.objects, sum.bytes = sum.objects + row.objects, sum.bytes + row.bytes
  sum.unreachable_objects = sum.unreachable_objects + row.unreachable_objects
  sum.unreachable_bytes = sum.unreachable_bytes + row.unreachable_bytes
  sum.bytes_variance = sum.bytes_variance + row.bytes_variance
  if row.holder_stack ~= NONE then count_site(columns, sum.holders, row.holder_stack, row.held) end
  if row.head_stack ~= NONE then count_site(columns, sum.heads, row.head_stack, row.groups) end
end

--- The processes that the stacks have rows of: a sum for each.
local function sums_of(columns, chains, stacks)
  local list, by_proof = {}, {}
  for _, stack in ipairs(stacks) do
    local at = chains.head[stack]
    while at > 0 do
      local row = columns.proof_rows[at - 1]
      local proof = row.proof
      if proof < columns.count.proofs then
        local sum = by_proof[proof]
        if not sum then
          sum = new_sum(columns.proofs[proof])
          by_proof[proof], list[#list + 1] = sum, sum
        end
        add_row(columns, sum, row)
      end
      at = chains.following[at - 1]
    end
  end
  return list
end

local function state_of(sum)
  if sum.unreachable > 0 then
    return sum.proof.hidden == 0 and sum.groups > sum.proof.registers and "proven" or "unreferenced"
  end
  return sum.reachable + sum.interior + sum.stack_only > 0 and "reachable" or "unknown"
end

--- Why what nothing points to is less than proven in one process.
local function doubts_of(sum)
  local list = proof_words.hidden(sum.proof.hidden)
  if sum.groups <= sum.proof.registers then
    list[#list + 1] = proof_words.registers(sum.groups, sum.proof.registers)
  end
  return list
end

local function reasons_of(whole, sums)
  local list, seen = {}, {}
  local function add(text)
    if not seen[text] then
      list[#list + 1], seen[text] = text, true
    end
  end
  for _, sum in ipairs(sums) do
    if sum.state == "unreferenced" then
      for _, text in ipairs(doubts_of(sum)) do add(text) end
    end
  end
  if whole.state == "reachable" then
    for _, text in ipairs(proof_words.reachable(whole)) do add(text) end
  end
  if whole.unsettled > 0 and whole.state ~= "proven" then add(proof_words.unsettled(whole.unsettled)) end
  return list
end

--- The site with the highest count, by its number; another one than those in `not_first`, where there is one.
local function most(counts, not_first)
  local best, other
  local function before(site, known)
    if not known or counts[site] ~= counts[known] then return not known or counts[site] > counts[known] end
    return site < known
  end
  for site in pairs(counts) do
    if before(site, best) then best = site end
    if not not_first[site] and before(site, other) then other = site end
  end
  local chosen = other or best
  return chosen, chosen and counts[chosen]
end

local function merge(into, counts)
  for site, count in pairs(counts) do into[site] = (into[site] or 0) + count end
end

--- @tparam table columns of lupe.ffi
-- @tparam table chains of the same
-- @tparam {number,...} stacks the site's
-- @tparam function site_at(number) makes a site of its number
-- @treturn table see above, or nil
function site_proof.of(columns, chains, stacks, site_at)
  local sums = sums_of(columns, chains, stacks)
  if not sums[1] then return nil end
  local has = {}
  for _, sum in ipairs(sums) do
    sum.state = state_of(sum)
    has[sum.state] = true
  end
  local whole = {
    sampled_objects = 0, unreachable = 0, reachable = 0, interior = 0, stack_only = 0, unsettled = 0,
    proven_objects = 0, proven_bytes = 0, lost_objects = 0, lost_bytes = 0, total_objects = 0, total_bytes = 0,
    groups = 0, largest_behind = 0, time_ms = 0,
  }
  for _, state in ipairs(BEST_FIRST) do
    if has[state] then
      whole.state = state
      break
    end
  end
  local proven_variance, lost_variance, holders, heads, own = 0, 0, {}, {}, {}
  for _, stack in ipairs(stacks) do own[columns.stack_site[stack]] = true end
  for _, sum in ipairs(sums) do
    for _, name in ipairs(COUNTS) do
      whole[name] = whole[name] + sum[name]
      whole.sampled_objects = whole.sampled_objects + sum[name]
    end
    whole.total_objects, whole.total_bytes = whole.total_objects + sum.objects, whole.total_bytes + sum.bytes
    whole.time_ms = math.max(whole.time_ms, sum.proof.scanned_ms)
    merge(holders, sum.holders)
    whole.lost_objects = whole.lost_objects + sum.unreachable_objects
    whole.lost_bytes = whole.lost_bytes + sum.unreachable_bytes
    lost_variance = lost_variance + sum.bytes_variance
    if sum.state == "proven" then
      whole.proven_objects = whole.proven_objects + sum.unreachable_objects
      whole.proven_bytes = whole.proven_bytes + sum.unreachable_bytes
      proven_variance = proven_variance + sum.bytes_variance
    end
    if sum.state == whole.state then
      whole.groups = whole.groups + sum.groups
      whole.largest_behind = math.max(whole.largest_behind, sum.largest_behind)
      merge(heads, sum.heads)
    end
  end
  whole.proven_bytes_error = 1.96 * math.sqrt(math.max(0, proven_variance))
  whole.lost_bytes_error = 1.96 * math.sqrt(math.max(0, lost_variance))
  whole.share = whole.total_bytes > 0 and math.min(1, whole.lost_bytes / whole.total_bytes) or 0
  local holder, held = most(holders, own)
  if holder then
    whole.holder = site_at(holder)
    whole.held_share = math.min(1, held / math.max(1, whole.reachable + whole.interior + whole.stack_only))
  end
  whole.reasons = reasons_of(whole, sums)
  local head = most(heads, {})
  whole.head = head and site_at(head)
  return whole
end

return site_proof
