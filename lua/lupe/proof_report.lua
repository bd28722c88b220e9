--- Leak proofs as the API tells them: of one leak, and of the whole view.
-- @module lupe.proof_report

local json = require("lupe.json")
local proof_words = require("lupe.proof_words")
local time = require("lupe.time")

local proof_report = {}

local MOST_SITES, MOST_FRAMES = 200, 32
local STATES = "proven|unreferenced|reachable|unknown"

--- Of one leak.
proof_report.LEAK = json.shape({
  "state " .. STATES, "reasons string[]", "proven_objects integer", "proven_bytes integer",
  "proven_bytes_error integer", "share number", "sampled_objects integer", "groups integer", "largest_behind integer",
  "holder string?", "time time", "lost_objects integer", "lost_bytes integer", "lost_bytes_error integer",
})

local TARGET = json.shape({
  "pid integer", "name string", "outcome string", "why string?", "hidden string[]", "time time?", "threads integer?",
  "registers integer?", "pause_ms number?", "elapsed_ms number?", "read_bytes integer?", "scan_bytes_per_sec integer?",
  "heap_bytes integer?", "heap_objects integer?", "unreachable_bytes integer?", "unreachable_objects integer?",
  "interval_ms integer?", "table_bytes integer?", "anonymous_bytes integer?", "scan_time time?",
})
local SITE = json.shape({
  "component string", "module string?", "state " .. STATES, "reasons string[]", "sampled_objects integer",
  "unreachable integer", "reachable integer", "interior integer", "stack_only integer", "unsettled integer",
  "groups integer", "proven_objects integer", "proven_bytes integer", "total_bytes integer", "holder string?",
  "stack string[]", "proven_bytes_error integer", "share number", "largest_behind integer", "head string?",
  "lost_objects integer", "lost_bytes integer", "lost_bytes_error integer",
})

--- Of a view: all that its proofs found.
proof_report.VIEW = json.shape({
  "status complete|refused|gave_up", "reason string?", "time time?", "targets Target[]", "unreachable_bytes integer?",
  "unreachable_objects integer?", "sites Site[]", "age_seconds number?", Target = TARGET, Site = SITE,
})

local function whole(number) return number and math.floor(number + 0.5) end

local function name_of(site) return type(site) == "table" and site.name or site end

--- @param proof of a site (lupe.site_proof), or of a finding's (lupe.rule), which has names in place of sites
-- @return of shape LEAK, or nil where there is none
function proof_report.leak(proof)
  if not proof then return nil end
  return proof_report.LEAK({
    state = proof.state, reasons = proof.reasons, proven_objects = whole(proof.proven_objects or 0),
    proven_bytes = whole(proof.proven_bytes or 0), proven_bytes_error = whole(proof.proven_bytes_error or 0),
    share = json.round(proof.share or 0, 4), sampled_objects = proof.sampled_objects or 0, groups = proof.groups or 0,
    largest_behind = proof.largest_behind or 0, holder = name_of(proof.holder),
    time = time.rfc3339(proof.time_ms or 0), lost_objects = whole(proof.lost_objects or 0),
    lost_bytes = whole(proof.lost_bytes or 0), lost_bytes_error = whole(proof.lost_bytes_error or 0),
  })
end

--- Why a leak has no proof.
-- @param[opt] view that it was found in
function proof_report.missing(view)
  local proof = view and view.proof
  if not proof then return view and view.proof_reason or proof_words.NEVER_RUN end
  return not proof.unreachable_bytes and proof.reason or proof_words.NOT_SAMPLED
end

local function target_of(target)
  return TARGET({
    pid = target.pid, name = target.name, outcome = target.outcome, why = target.why, hidden = target.hidden or {},
    time = time.rfc3339(target.time_ms), threads = target.threads, registers = target.registers,
    pause_ms = json.round(target.pause_ms), elapsed_ms = json.round(target.elapsed_ms),
    read_bytes = whole(target.read_bytes), scan_bytes_per_sec = whole(target.scan_bytes_per_sec),
    heap_bytes = whole(target.heap_bytes), heap_objects = whole(target.heap_objects),
    unreachable_bytes = whole(target.unreachable_bytes), unreachable_objects = whole(target.unreachable_objects),
    interval_ms = whole(target.interval_ms), table_bytes = whole(target.table_bytes),
    anonymous_bytes = whole(target.anonymous_bytes), scan_time = time.rfc3339(target.scanned_ms),
  })
end

local function site_of(site)
  local proof, stack = site.proof, {}
  for i = 1, math.min(#site.stack, MOST_FRAMES) do stack[i] = site.stack[i] end
  return SITE({
    component = site.name, module = site.module, state = proof.state, reasons = proof.reasons,
    sampled_objects = proof.sampled_objects, unreachable = proof.unreachable, reachable = proof.reachable,
    interior = proof.interior, stack_only = proof.stack_only, unsettled = proof.unsettled, groups = proof.groups,
    proven_objects = whole(proof.proven_objects), proven_bytes = whole(proof.proven_bytes),
    total_bytes = whole(proof.total_bytes), holder = name_of(proof.holder), stack = stack,
    proven_bytes_error = whole(proof.proven_bytes_error), share = json.round(proof.share, 4),
    largest_behind = proof.largest_behind, head = name_of(proof.head), lost_objects = whole(proof.lost_objects),
    lost_bytes = whole(proof.lost_bytes), lost_bytes_error = whole(proof.lost_bytes_error),
  })
end

--- Of the processes that were asked just now, those that a view does not tell of: their agents never answered.
local function unanswered(proof, asked)
  local told, list = {}, {}
  for _, target in ipairs(proof and proof.targets or {}) do told[target.pid] = target end
  for _, one in ipairs(asked or {}) do
    if one.failure then
      list[#list + 1] = TARGET({
        pid = one.pid, name = one.name, outcome = "unanswered", why = one.failure, hidden = {},
      })
    elseif not told[one.pid] then
      local word, _, why = proof_words.outcome(one.reply.outcome, one.reply.error, one.reply.read_bytes,
        one.reply.anonymous_bytes)
      list[#list + 1] = TARGET({
        pid = one.pid, name = one.name, outcome = word, why = why, hidden = {},
        pause_ms = json.round(one.reply.pause_ms), elapsed_ms = json.round(one.reply.elapsed_ms),
        read_bytes = whole(one.reply.read_bytes),
      })
    end
  end
  return list
end

local function joined(a, b) return a and b and a .. "; " .. b or a or b end

--- @param[opt] view
-- @param[opt] asked what lupe.prover gave for this request
-- @return of shape VIEW; or nil and why there is none
function proof_report.of(view, asked)
  local proof = view and view.proof
  local more = unanswered(proof, asked)
  if not proof and not more[1] then return nil, proof_report.missing(view) end
  local told = { status = "refused", targets = {}, sites = {} }
  if proof then
    told.status, told.reason, told.time = proof.status, proof.reason, time.rfc3339(proof.time_ms)
    told.age_seconds = json.round(math.max(0, view.time_ms - proof.time_ms) / 1000)
    told.unreachable_bytes = whole(proof.unreachable_bytes)
    told.unreachable_objects = whole(proof.unreachable_objects)
    for i, target in ipairs(proof.targets) do told.targets[i] = target_of(target) end
    for site in proof:sites({ limit = MOST_SITES }) do told.sites[#told.sites + 1] = site_of(site) end
  end
  for _, target in ipairs(more) do
    told.targets[#told.targets + 1] = target
    local why = target.why and ("process %d (%s): %s"):format(target.pid, target.name, target.why)
    told.reason = joined(told.reason, why)
  end
  return proof_report.VIEW(told)
end

return proof_report
