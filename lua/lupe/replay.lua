--- `lupe rules replay`: the rules over the frames of a recording, by the analysis that a live run uses.
-- The same recording and rules give the same text, byte for byte: nothing here tells what time it is or how long
-- something took.
-- @module lupe.replay

local analysis = require("lupe.analysis")
local json = require("lupe.json")
local recorded_host = require("lupe.recorded_host")
local replay_text = require("lupe.replay_text")
local PARAMETER = require("lupe.rule_settings").PARAMETER.name

local replay = {}

local FRAME = json.shape({
  "seconds number", "last boolean", "status string", "needed_seconds number?", "findings object[]",
  "errors string[]",
})
local REPLAY = json.shape({
  "recording string", "program string?", "complete boolean", "ending string?", "skipped integer", "frames object[]",
})
local FINDING = json.shape({
  "rule string", "kind string", "component string?", "module string?", "verdict string?", "severity string?",
  "confidence number?", "score number?", "summary string", "evidence object", "reasons string[]", "advice string[]",
})

local function finding_of(found)
  return FINDING({
    rule = found.rule, kind = found.kind, component = found.component,
    module = (found.site or found.hotspot or {}).module, verdict = found.verdict, severity = found.severity,
    confidence = found.confidence, score = found.score, summary = found.summary, evidence = found.evidence or {},
    reasons = found.reasons or {}, advice = found.advice or {},
  })
end

--- Why one rule says nothing in any frame; nil where it runs.
-- @param options `only`, and `path` of its file where that was given
local function why_silent(runner, options)
  for _, listed in ipairs(runner:rules()) do
    local is_it = listed.path == options.path
    if not options.path then is_it = listed.id == options.only and listed.state ~= "shadowed" end
    if is_it and listed.state == "active" then return nil end
    if is_it then
      local why = listed.error or listed.shadowed_by or listed.state == "disabled" and "see rules_disabled"
      return ("%s: not run, it is %s%s"):format(options.only, listed.state, why and ": " .. why or "")
    end
  end
  return ("%s: not run, no rule with this id is in force"):format(options.only)
end

--- What was said of one rule alone.
local function narrowed(result, only)
  local kept = { findings = {}, errors = {}, needed_seconds = result.lacking[only] }
  for _, found in ipairs(result.findings) do
    if found.rule == only then kept.findings[#kept.findings + 1] = found end
  end
  for _, message in ipairs(result.errors) do
    if message:sub(1, #only + 1) == only .. ":" then kept.errors[#kept.errors + 1] = message end
  end
  kept.status = kept.errors[1] and "failed" or kept.needed_seconds and "insufficient_data" or "ok"
  return kept
end

--- What the rules find at one frame.
-- @param silent why the rule that was asked for does not run, or nil
local function run_frame(runner, one, frame, only, params, silent)
  local result = { findings = {}, errors = {}, status = "no_snapshot" }
  if one.view and silent then
    result.errors, result.status = { silent }, "failed"
  elseif one.view then
    result = runner:run(one.view, { params = params })
    if only then result = narrowed(result, only) end
  end
  local findings = {}
  for i, found in ipairs(result.findings) do findings[i] = finding_of(found) end
  return FRAME({
    seconds = frame.seconds, last = frame.last, status = result.status, needed_seconds = result.needed_seconds,
    findings = findings, errors = result.errors,
  })
end

--- Inside a task.
-- @param host what C offers where no program runs, with `config` and `rules_dir`
-- @param recorded a lupe.recording
-- @tparam table options `at` (seconds: only the frame nearest to it), `only` (id of a rule: its findings alone),
--   `path` (its file: where that is not in force, no other rule with its id stands in),
--   `params` (name -> text: see lupe.rule_settings.for_request), `format` "text" or "json", `columns`, `color`
-- @return the text; or nil and what is wrong with a param
function replay.run(host, recorded, options)
  local as_then, move = recorded_host.new(host, recorded.about)
  local runner = analysis.new(as_then)
  runner.live:first()
  local params, wrong = runner:params_of({ [PARAMETER] = options.params })
  if wrong then return nil, wrong end
  local silent = options.only and why_silent(runner, options)
  local first, last = 1, #recorded.frames
  if options.at then
    first = recorded:nearest(options.at) or 1
    last = math.min(first, last)
  end
  local frames, skipped, command = {}, 0, recorded.about.command or {}
  for index = first, last do
    local frame = recorded.frames[index]
    local one, message = recorded:read(index)
    if one then
      move(one.notes)
      skipped = one.notes.skipped or skipped
      frames[#frames + 1] = run_frame(runner, one, frame, options.only, params, silent)
    else
      frames[#frames + 1] = FRAME({
        seconds = frame.seconds, last = frame.last, status = "damaged", findings = {}, errors = { message },
      })
    end
  end
  local data = REPLAY({
    recording = recorded.path, program = command[1] and command[1]:match("[^/]+$"),
    complete = recorded.ending == nil, ending = recorded.ending, skipped = skipped, frames = frames,
  })
  if options.format == "json" then return json.encode(data) .. "\n" end
  return replay_text(data, options)
end

return replay
