--- The report at exit in words, for a terminal: first the answer, then what it rests on.
-- Takes the data that `lupe.report` assembles (the same that `--report json` writes) and knows nothing else.
-- @module lupe.text_report

local bottleneck_report = require("lupe.bottleneck_report")
local callers = require("lupe.callers")
local format = require("lupe.format")
local marks_text = require("lupe.marks_report").text
local page = require("lupe.page")
local places = require("lupe.places")
local proof_text = require("lupe.proof_text")

local INDENT = 2
local STACK_ROWS = 8
local MOST_LEAKS, MOST_OTHERS, MOST_ALLOCATORS, MOST_NAMES = 5, 5, 10, 8

local STEADY = format.rate(0)

local fit = page.fit

local function title(out, report)
  local outcome = report.outcome
  local ending
  if outcome.signal then
    ending = ("ended by SIG%s"):format(outcome.signal_name or tostring(outcome.signal))
  else
    ending = outcome.reason or ("exit code %d"):format(outcome.exit_code)
  end
  if outcome.timed_out then ending = ending .. " after --duration" end
  local name = fit(report.name, out.width - 45)
  local text = ("lupe: %s ran for %s, %s "):format(name, format.duration(report.duration_seconds * 1000), ending)
  out:line(out:paint("strong", text) .. out:paint("dim", out.line_char:rep(math.max(0, out.width - #text))))
end

local ANSWER_STYLES = {
  leak = "bad", growing = "warn", alert = "warn", unprofiled = "warn", unknown = "warn", none = "good",
  time = "strong",
}

local function answers(out, report)
  out:line()
  for _, answer in ipairs(report.answer) do
    out:paragraph("", answer.text, ANSWER_STYLES[answer.kind])
  end
end

local function stack_rows(out, margin, frames)
  local shown = #frames > STACK_ROWS and STACK_ROWS - 1 or #frames
  for i = 1, shown do
    local head = margin .. (i == 1 and "called by " or "          ")
    out:line(head .. out:paint("dim", fit(frames[i], out.width - #head)))
  end
  if #frames > shown then
    out:line(out:paint("dim", ("%s          ... and %d more"):format(margin, #frames - shown)))
  end
end

local function one_leak(out, index, leak)
  local head = ("%s%d. "):format((" "):rep(INDENT), index)
  local margin = (" "):rep(#head)
  local module, place = leak.module or "", places.short(leak.file_location, leak.line_number)
  local aside = place == "" and module or module .. "  " .. place
  out:line(head .. out:paint("strong", fit(leak.component, out.width - #head - #aside - 2))
    .. "  " .. out:paint("dim", aside))
  local facts = {}
  if leak.growth_rate_mb_per_hour then facts[1] = "grows " .. format.rate(leak.growth_rate_mb_per_hour) end
  local each = leak.average_size_bytes and (" of %s"):format(format.bytes(leak.average_size_bytes)) or ""
  facts[#facts + 1] = ("%s live in %s%s"):format(format.bytes(leak.total_size_bytes),
    format.plural(leak.allocation_count, "object"), each)
  if leak.confidence then facts[#facts + 1] = ("%s sure"):format(format.percent(100 * leak.confidence)) end
  out:paragraph(margin, leak.severity .. ": " .. table.concat(facts, ", "))
  if #leak.reasons > 0 then out:paragraph(margin, table.concat(leak.reasons, "; "), "dim") end
  stack_rows(out, margin, callers.list(leak.stack))
end

local function leaks(out, report)
  if #report.potential_leaks == 0 then return end
  out:heading("Leaks", "most urgent first")
  for i, leak in ipairs(report.potential_leaks) do
    if i > MOST_LEAKS then
      local rest = #report.potential_leaks - MOST_LEAKS
      out:line((" "):rep(INDENT) .. ("... and %d more; --report json has all"):format(rest))
      break
    end
    one_leak(out, i, leak)
  end
end

local function allocators(out, report)
  if #report.allocators == 0 then return end
  local total = format.bytes(report.measurement.profiled_bytes)
  out:heading("Live heap", ("%s by the function that allocated it"):format(total))
  local columns = "%10s  %6s  %10s  "
  local left = INDENT + #columns:format("", "", "")
  local head = columns:format("live", "share", "objects") .. "function < its callers"
  out:line((" "):rep(INDENT) .. out:paint("dim", head))
  for i, site in ipairs(report.allocators) do
    if i > MOST_ALLOCATORS then break end
    local row = columns:format(format.bytes(site.inuse_space), format.percent(site.share_percent),
      format.count(site.inuse_objects))
    local room = out.width - left
    local name = fit(site.name, room)
    local chain = callers.chain(site.stack, room - #name)
    out:line((" "):rep(INDENT) .. row .. name .. out:paint("dim", chain))
  end
end

local function memory(out, report)
  local figures = report.memory
  if not figures then return end
  local facts = { "resident " .. format.bytes(figures.rss_bytes) }
  if figures.heap_bytes then facts[#facts + 1] = "heap " .. format.bytes(figures.heap_bytes) end
  if figures.fragmentation_percent then
    facts[#facts + 1] = "fragmentation " .. format.percent(figures.fragmentation_percent)
  end
  if report.growth_rate_mb_per_hour then
    local rate = report.growth_rate_mb_per_hour
    local told = format.rate(math.abs(rate))
    facts[#facts + 1] = told == STEADY and "heap steady" or (rate < 0 and "heap shrinks " or "heap grows ") .. told
  end
  out:heading("Memory")
  out:paragraph((" "):rep(INDENT), table.concat(facts, ", "))
end

local function advice(out, report)
  if #report.recommendations == 0 then return end
  out:heading("What to do")
  for _, text in ipairs(report.recommendations) do
    out:paragraph((" "):rep(INDENT) .. "> ", text)
  end
end

--- "7 processes: nginx x6, sh".
local function processes(list)
  local count_of, names, words = {}, {}, {}
  for _, target in ipairs(list) do
    if not count_of[target.name] then names[#names + 1] = target.name end
    count_of[target.name] = (count_of[target.name] or 0) + 1
  end
  for i = 1, math.min(#names, MOST_NAMES) do
    words[i] = names[i] .. (count_of[names[i]] > 1 and " x" .. count_of[names[i]] or "")
  end
  if #names > MOST_NAMES then words[#words + 1] = "..." end
  return ("%s processes: %s"):format(format.count(#list), table.concat(words, ", "))
end

--- How often time was sampled, or nil where it was not.
local function sampled(data)
  if not data or data.total_samples == 0 then return nil end
  local ways = {}
  if data.cpu_profile.state == "on" then
    ways[1] = ("%d samples per second of CPU time"):format(data.cpu_profile.hz)
  end
  if data.wall_profile.state == "on" then
    ways[#ways + 1] = ("%d looks a second at what threads wait for"):format(data.wall_profile.hz)
  end
  return ("%s; %s"):format(table.concat(ways, ", "), format.plural(data.total_samples, "sample"))
end

local function measured(out, report)
  local how, own = report.measurement, report.profiler
  local facts = {}
  if how.sample_period_bytes then
    facts[1] = ("one sample per %s"):format(format.bytes(how.sample_period_bytes))
    facts[2] = ("%s, %s kept%s"):format(format.plural(own.heap_samples, "sample"),
      format.plural(how.profiles, "heap profile"),
      how.profiles > 1 and " over " .. format.duration(how.seconds * 1000) or "")
    if how.profiled_bytes == 0 then
      facts[3] = "nothing that lives was sampled; a smaller --sample-bytes sees more"
    elseif how.coverage_percent then
      facts[3] = ("the functions sum to %s of jemalloc's own figure (sampling error: +-%s)"):format(
        format.percent(how.coverage_percent), format.percent(how.sampling_error_percent))
    end
  end
  out:heading("How this was measured")
  if #report.targets > 1 then out:paragraph((" "):rep(INDENT), processes(report.targets)) end
  if facts[1] then out:paragraph((" "):rep(INDENT), table.concat(facts, "; ")) end
  local time = sampled(report.bottlenecks)
  if time then out:paragraph((" "):rep(INDENT), time) end
  out:paragraph((" "):rep(INDENT), ("lupe's own cost: %.2f s of CPU (%s of one core), %.2f s of it in the program; "
    .. "%s"):format(own.cpu_seconds, format.percent(own.cpu_percent), own.agent_cpu_seconds,
    own.rss_bytes and format.bytes(own.rss_bytes) .. " resident" or "its memory is not known: " .. own.rss_reason))
  local losses = {}
  local function lost(count, noun, what)
    if count > 0 then losses[#losses + 1] = format.plural(count, noun) .. " " .. what end
  end
  lost(own.dropped_records, "sample", "dropped")
  lost(own.stack_overflows, "stack", "beyond the limit")
  local style = losses[1] and "warn" or nil
  lost(own.truncated_stacks, "stack", "cut short")
  out:paragraph((" "):rep(INDENT), "lost: " .. (losses[1] and table.concat(losses, ", ") or "nothing"), style)
  for _, note in ipairs(report.notes) do out:paragraph((" "):rep(INDENT), note, "warn") end
  for _, failure in ipairs(report.rule_errors) do
    out:paragraph((" "):rep(INDENT), "rule error: " .. failure, "warn")
  end
end

--- @param report  what `lupe.report` assembled
-- @param options { columns, color, unicode }
-- @return the text, with a line feed at its end
return function(report, options)
  local out = page.new(options)
  title(out, report)
  answers(out, report)
  leaks(out, report)
  proof_text(out, report.proof, report.targets)
  bottleneck_report(out, report.bottlenecks)
  marks_text(out, report)
  advice(out, report)
  out:sentences("Also seen", nil, report.suspicious_patterns, MOST_OTHERS)
  out:sentences("Grew", "and judged not to leak", report.settled, MOST_OTHERS)
  allocators(out, report)
  memory(out, report)
  measured(out, report)
  out:line()
  return table.concat(out.lines, "\n")
end
