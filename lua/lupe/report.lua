--- The report at the end of a run: what `--report json` writes, and what `lupe.text_report` puts in words.
-- @module lupe.report

local bottlenecks = require("lupe.bottlenecks")
local format = require("lupe.format")
local json = require("lupe.json")
local leaks = require("lupe.leaks")
local marks_report = require("lupe.marks_report")
local notes_of = require("lupe.report_notes")
local proof_report = require("lupe.proof_report")
local targets = require("lupe.targets")
local text_report = require("lupe.text_report")
local tags = require("lupe.tags")
local time = require("lupe.time")
local view_of = require("lupe.view").from_snapshot

local report = {}

local MOST_ALLOCATORS, MOST_FRAMES, MOST_HOTSPOTS = 20, 32, 20
local NEARLY_ALL = 0.995
local SAME_TIME_MS = 2000
local FEWEST_COMPARED = 5 -- profiles
local MOST_BOUNDS, MOST_SUPPRESSED = 2, 3
local OF_ALLOCATOR = { "allocated_bytes", "active_bytes", "resident_bytes" }

local OUTCOME = json.shape({
  "exit_code integer?", "signal integer?", "signal_name string?", "timed_out boolean", "reason string?",
})
local ANSWER = json.shape({ "kind string", "text string" })
local MEMORY = json.shape({
  "rss_bytes integer", "heap_bytes integer?", "resident_bytes integer?", "fragmentation_percent number?",
  "efficiency_score number?",
})
local ALLOCATOR = json.shape({
  "name string", "module string", "inuse_space integer", "inuse_objects integer", "alloc_space integer?",
  "share_percent number", "sampling_error_bytes integer", "stack string[]",
})
local TARGET = json.shape({
  "pid integer", "name string", "heap_state string", "reason string?", "allocator string", "first_seen string?",
  "last_profile string?",
})
local MEASUREMENT = json.shape({
  "profiles integer", "seconds number", "sample_period_bytes integer?", "profiled_bytes integer",
  "allocated_bytes integer?", "coverage_percent number?", "sampling_error_percent number?",
})
local PROFILER = json.shape({
  "cpu_seconds number", "cpu_percent number?", "agent_cpu_seconds number", "rss_bytes integer?", "rss_reason string?",
  "heap_samples integer",
  "dropped_records integer", "truncated_stacks integer", "stack_overflows integer",
})
local REPORT = json.shape({
  "timestamp string", "name string", "pid integer", "outcome object", "duration_seconds number", "answer object[]",
  "status string", "reason string?", "needed_seconds number?", "potential_leaks object[]", "observed object[]",
  "growth_rate_mb_per_hour number?", "highest_risk_component string?", "suspicious_patterns string[]",
  "settled string[]", "recommendations string[]", "allocators object[]", "memory object?", "targets object[]",
  "measurement object", "profiler object", "rule_errors string[]", "notes string[]", "bottlenecks object?",
  "suppressed integer", "proof object?", "proof_reason string?", "spans object[]", "tags object[]",
})
local BOTTLENECKS = json.shape(bottlenecks.FIELDS)

local function whole(number) return math.floor((number or 0) + 0.5) end

local function allocators_of(view)
  local list = {}
  for site in view.heap:sites({ by = "inuse_space", limit = MOST_ALLOCATORS }) do
    if site.inuse_space <= 0 then break end
    local stack = {}
    for i = 1, math.min(#site.stack, MOST_FRAMES) do stack[i] = site.stack[i] end
    list[#list + 1] = ALLOCATOR({
      name = site.name, module = site.module, inuse_space = whole(site.inuse_space),
      inuse_objects = whole(site.inuse_objects), alloc_space = site.alloc_space > 0 and whole(site.alloc_space) or nil,
      share_percent = json.round(100 * site.share, 2), sampling_error_bytes = whole(site.sampling_error_bytes),
      stack = stack,
    })
  end
  return list
end

--- The newest reading of each process that was there at the end, summed: the series may end seconds earlier.
-- jemalloc's figures are the series' last where the newest readings are without.
local function last_figures(view)
  local newest_ms, sum = 0, nil
  for _, target in ipairs(view.targets) do newest_ms = math.max(newest_ms, target.memory.time_ms) end
  local series_end = view.memory.latest
  if series_end and series_end.time_ms >= newest_ms then return series_end end
  for _, target in ipairs(view.targets) do
    local row = target.memory
    if row.time_ms > 0 and newest_ms - row.time_ms < SAME_TIME_MS then
      sum = sum or { rss_bytes = 0 }
      sum.rss_bytes = sum.rss_bytes + row.rss_bytes
      for _, field in ipairs(OF_ALLOCATOR) do
        if row.has_allocator then sum[field] = (sum[field] or 0) + row[field] end
      end
    end
  end
  if sum and series_end and not sum.allocated_bytes then
    for _, field in ipairs(OF_ALLOCATOR) do sum[field] = series_end[field] end
  end
  return sum or series_end
end

local function memory_of(view)
  local row = last_figures(view)
  if not row then return nil end
  local allocated = row.allocated_bytes
  return MEMORY({
    rss_bytes = row.rss_bytes, heap_bytes = allocated, resident_bytes = row.resident_bytes,
    fragmentation_percent = allocated and json.round(100 * (1 - allocated / row.active_bytes), 2),
    efficiency_score = allocated and json.round(allocated / row.resident_bytes, 4),
  })
end

local function targets_of(host)
  local list = {}
  for i, target in ipairs(host.targets()) do
    list[i] = TARGET({
      pid = target.pid, name = target.name, heap_state = target.heap_state, reason = targets.heap_reason(target),
      allocator = target.allocator, first_seen = time.rfc3339(target.first_ms),
      last_profile = time.rfc3339(target.last_ms),
    })
  end
  return list
end

--- The sum of the sites beside what jemalloc itself counted at the same tick, the last one: agents read both at the
-- same moment. Not of a run so short that it has only begun: it has few samples.
local function measurement_of(view)
  local tick = view.heap.profiles >= FEWEST_COMPARED and view.heap.ticks[view.heap.profiles]
  local allocated = tick and tick.allocated or nil
  local profiled, period = view.heap.total_inuse_space, view.sample_period_bytes
  return MEASUREMENT({
    profiles = view.heap.profiles,
    seconds = json.round(view.heap.seconds),
    sample_period_bytes = view.sampled and view.sample_period_bytes or nil,
    profiled_bytes = whole(profiled),
    allocated_bytes = allocated and whole(allocated),
    coverage_percent = allocated and json.round(100 * tick.inuse_space / allocated, 1),
    sampling_error_percent = profiled > 0 and json.round(100 * math.sqrt(period / profiled), 1) or nil,
  })
end

local function profiler_of(host, duration_seconds)
  local own = host.profiler()
  local agent_seconds = (own.agent.hook_ns + own.agent.thread_cpu_ns) / 1e9
  local seconds = own.runtime_cpu_ns / 1e9 + agent_seconds
  return PROFILER({
    cpu_seconds = json.round(seconds),
    cpu_percent = json.round(100 * seconds / duration_seconds),
    agent_cpu_seconds = json.round(agent_seconds, 6),
    rss_bytes = own.rss_bytes,
    rss_reason = own.rss_reason,
    heap_samples = own.agent.heap_samples,
    dropped_records = own.agent.dropped_records,
    truncated_stacks = own.agent.truncated_stacks,
    stack_overflows = own.stack_overflows,
  })
end

--- How many findings the operator does not want to be told, and which; nil where there are none.
local function suppressed_note(list)
  if #list == 0 then return nil end
  local said = {}
  for i = 1, math.min(#list, MOST_SUPPRESSED) do
    local one = list[i]
    said[i] = ("%s (%s, until %s)"):format(one.component or one.rule, one.suppressed.reason, one.suppressed.until_date)
  end
  if #list > #said then said[#said + 1] = "..." end
  return ("%d finding%s suppressed: %s"):format(#list, #list == 1 and "" or "s", table.concat(said, "; "))
end

local function leak_answer(leak)
  local who = leak.component
  if leak.module == tags.MODULE then
    who = "the tag " .. who
  elseif leak.module and not who:find(leak.module, 1, true) then -- else the function has no name, but its module's
    who = ("%s (%s)"):format(who, leak.module)
  end
  local rate = leak.growth_rate_mb_per_hour
  local figures = (rate and " grows " .. format.rate(rate) .. ":" or ":") .. " "
    .. format.bytes(leak.total_size_bytes) .. " live"
  local kept = leak.evidence.survivors
  local proof = leak.proof
  if leak.verdict == "leak" and proof and proof.state == "proven" and proof.proven_bytes > 0 then
    local part = proof.share < NEARLY_ALL or proof.proven_bytes < proof.lost_bytes
    local lost = part and format.bytes(proof.proven_bytes) .. " of it" or "it"
    return ANSWER({ kind = "leak", text = ("Leak: %s%s, and nothing points to %s any more."):format(who, figures,
      lost) })
  elseif leak.verdict == "leak" then
    return ANSWER({ kind = "leak", text = ("Leak: %s%s%s."):format(who, figures,
      kept and kept <= 1 and (", %s of all that it allocated"):format(format.percent(100 * kept)) or "") })
  end
  local doubt = leak.reasons[1] and "; " .. leak.reasons[1] or ""
  local head = leak.evidence.all_reachable and "Growing, and not lost" or "Perhaps a leak"
  return ANSWER({ kind = "growing", text = ("%s: %s%s%s."):format(head, who, figures, doubt) })
end

--- Of all samples that are still there: the last ten minutes at most.
local function bottlenecks_of(view, result)
  local seconds = view.profile.seconds
  local values = bottlenecks.describe(view, result, { limit = MOST_HOTSPOTS, seconds = seconds })
  values.analysis_duration_ms = json.round(result.elapsed_ms)
  return BOTTLENECKS(values)
end

--- What to do about memory, then about time.
local function recommendations_of(findings)
  local list = leaks.recommendations(findings)
  for _, text in ipairs(bottlenecks.recommendations(findings)) do list[#list + 1] = text end
  return list
end

--- What a reader wants to know, in sentences.
local function answer_of(data, findings)
  local answers = {}
  local function add(kind, text) answers[#answers + 1] = ANSWER({ kind = kind, text = text }) end
  for i, leak in ipairs(data.potential_leaks) do
    if i > 3 then break end
    answers[#answers + 1] = leak_answer(leak)
  end
  local seconds = format.duration(data.measurement.seconds * 1000)
  if data.status == "unprofiled" then
    add("unprofiled", "The heap was not profiled: " .. data.reason .. ".")
  elseif data.status == "insufficient_data" and not answers[1] then
    local seen = data.measurement.profiles < 2 and "there is one" or "these cover " .. seconds
    add("unknown", ("Too short to tell a leak from a start: that takes %s of heap profiles, and %s.")
      :format(format.duration((data.needed_seconds or 0) * 1000), seen))
  elseif data.status == "failed" then
    add("unknown", ("Whether it leaks is not known: %s."):format(data.reason))
  elseif not answers[1] then
    add("none", ("No leak: no function's live memory grew steadily in %s%s."):format(seconds,
      data.rule_errors[1] and ", by the rules that gave an answer" or ""))
  end
  for _, about in ipairs({ leaks, bottlenecks }) do
    for _, text in ipairs(about.summaries(findings, "alert")) do add("alert", text) end
  end
  local bounds = bottlenecks.bounds(findings)
  for i = 1, math.min(#bounds, MOST_BOUNDS) do add("time", bounds[i]) end
  return answers
end

--- The program's name: of what the process was at last, after what `sh -c` or `env` were before.
local function name_of(host, info)
  local name
  for _, target in ipairs(host.targets()) do
    if target.pid == info.pid then name = target.name end
  end
  return name or info.argv and info.argv[1]:match("[^/]+$") or ("process %d"):format(info.pid)
end

--- @param app    as `lupe.server` builds it
-- @param info   { pid, exit_code or signal and signal_name, timed_out, connected, reason, argv, columns, color }; of a
--   recording instead of how it ended `unknown_end` (why that is not known), and `notes` (texts)
-- @param view   of all processes that ever were, or nil where there is none
-- @param result what `lupe.analysis` found in it
function report.assemble(app, info, view, result)
  local host = app.host
  local duration_seconds = math.max(0.001, (host.now_ms() - host.started_ms) / 1000)
  local notes, reason = notes_of(app, info, view)
  local findings = result.findings
  local accused, observed = leaks.sort(findings, view)
  local proof, unproven = proof_report.of(view)
  local settled = json.array()
  for i, leak in ipairs(observed) do settled[i] = leak.summary end
  local suppressed = result.suppressed or {}
  notes[#notes + 1] = suppressed_note(suppressed)
  notes[#notes + 1] = view and marks_report.lost(view)
  local slope = view and view.heap:trend()
  local data = {
    timestamp = time.rfc3339(host.now_ms()),
    name = name_of(host, info),
    pid = info.pid,
    outcome = OUTCOME({
      exit_code = info.exit_code, signal = info.signal, signal_name = info.signal_name,
      timed_out = info.timed_out or false, reason = info.unknown_end,
    }),
    duration_seconds = json.round(duration_seconds),
    status = reason and "unprofiled" or result.status,
    reason = reason or result.reason,
    needed_seconds = result.needed_seconds,
    potential_leaks = accused,
    observed = observed,
    growth_rate_mb_per_hour = slope and json.round(slope.slope),
    highest_risk_component = accused[1] and accused[1].component,
    suspicious_patterns = leaks.patterns(findings),
    settled = settled,
    recommendations = recommendations_of(findings),
    allocators = view and allocators_of(view) or {},
    memory = view and memory_of(view),
    targets = targets_of(host),
    measurement = view and measurement_of(view) or MEASUREMENT({ profiles = 0, seconds = 0, profiled_bytes = 0 }),
    profiler = profiler_of(host, duration_seconds),
    rule_errors = result.errors,
    notes = notes,
    bottlenecks = view and bottlenecks_of(view, result),
    suppressed = #suppressed,
    proof = proof,
    proof_reason = unproven,
    spans = view and marks_report.spans(view) or json.array(),
    tags = view and marks_report.tags(view) or json.array(),
  }
  data.answer = answer_of(data, findings)
  return REPORT(data)
end

local function speaks_utf8()
  local locale = os.getenv("LC_ALL") or os.getenv("LC_CTYPE") or os.getenv("LANG") or ""
  return locale:lower():find("utf%-?8") ~= nil
end

--- The report on a view in the configured format. Inside a task.
-- @param info as for `assemble`
-- @param view or nil
function report.of(app, info, view)
  local result = view and app.analysis:run(view, { occasion = "exit" })
    or { findings = {}, errors = {}, status = "failed", reason = "there is no snapshot to run the rules on" }
  local data = report.assemble(app, info, view, result)
  if app.config.report == "json" then return json.encode(data) .. "\n" end
  return text_report(data, { columns = info.columns, color = info.color, unicode = speaks_utf8() })
end

--- That at the end of a run. Inside a task.
-- @param info also with `snapshot` { address, size, keepalive }
function report.at_exit(app, info)
  local snapshot, extras = info.snapshot, app.surroundings:of()
  extras.keepalive = snapshot and snapshot.keepalive
  info.notes = app.actions:notes()
  return report.of(app, info, snapshot and assert(view_of(snapshot.address, snapshot.size, extras)))
end

return report
