--- The report at exit in words, for a terminal: first the answer, then what it rests on.
-- Takes the data that `lupe.report` assembles (the same that `--report json` writes) and knows nothing else.
-- @module lupe.text_report

local format = require("lupe.format")
local wrap = require("lupe.wrap")

local NARROWEST, WIDEST = 60, 120
local INDENT = 2
local STACK_ROWS = 8
local MOST_LEAKS, MOST_OTHERS, MOST_ALLOCATORS, MOST_NAMES = 5, 5, 10, 8

local COLORS = { strong = "1", dim = "2", bad = "1;31", warn = "1;33", good = "1;32" }

local page = {}
page.__index = page

local function new_page(options)
  local width = math.max(NARROWEST, math.min(WIDEST, options.columns or 80))
  return setmetatable({
    width = width, color = options.color, lines = {},
    line_char = options.unicode and "─" or "-",
  }, page)
end

function page:paint(style, text)
  if not self.color or text == "" then return text end
  return ("\27[%sm%s\27[0m"):format(COLORS[style], text)
end

function page:line(text) self.lines[#self.lines + 1] = text or "" end

--- Cut to so many columns, the middle left out. (Names are cut at bytes: they are ASCII but for a few.)
local function fit(text, columns)
  if #text <= columns then return text end
  local head = math.ceil((columns - 3) * 0.6)
  return text:sub(1, head) .. "..." .. text:sub(#text - (columns - 3 - head) + 1)
end

--- Words, a number and its unit being one.
local function pieces(text)
  local list, number = {}, nil
  for word in text:gmatch("%S+") do
    if number then word = number .. " " .. word end
    number = word:match("^[%d.,]*%d$")
    if not number then list[#list + 1] = word end
  end
  list[#list + 1] = number
  return list
end

--- Words, broken at the width; `first` stands before the first line, blanks before the others.
function page:paragraph(first, text, style)
  for i, words in ipairs(wrap(pieces(text), self.width - #first)) do
    local head = i == 1 and first or (" "):rep(#first)
    self:line(head .. (style and self:paint(style, words) or words))
  end
end

function page:heading(text, aside)
  self:line()
  self:line(self:paint("strong", text) .. (aside and self:paint("dim", ", " .. aside) or ""))
end

local function title(out, report)
  local outcome = report.outcome
  local ending
  if outcome.signal then
    ending = ("ended by SIG%s"):format(outcome.signal_name or tostring(outcome.signal))
  else
    ending = ("exit code %s"):format(outcome.exit_code or "unknown")
  end
  if outcome.timed_out then ending = ending .. " after --duration" end
  local name = fit(report.name, out.width - 45)
  local text = ("lupe: %s ran for %s, %s "):format(name, format.duration(report.duration_seconds * 1000), ending)
  out:line(out:paint("strong", text) .. out:paint("dim", out.line_char:rep(math.max(0, out.width - #text))))
end

local ANSWER_STYLES = {
  leak = "bad", growing = "warn", alert = "warn", unprofiled = "warn", unknown = "warn", none = "good",
}

local function answers(out, report)
  out:line()
  for _, answer in ipairs(report.answer) do
    out:paragraph("", answer.text, ANSWER_STYLES[answer.kind])
  end
end

--- Who calls the site, nearest first. What lies beyond main is the start of the C library.
local function callers(stack)
  local list = {}
  for i = 2, #stack do
    list[#list + 1] = stack[i]
    if stack[i] == "main" then break end
  end
  return list
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
  local module = leak.module or ""
  out:line(head .. out:paint("strong", fit(leak.component, out.width - #head - #module - 2))
    .. "  " .. out:paint("dim", module))
  local facts = {}
  if leak.growth_rate_mb_per_hour then facts[1] = "grows " .. format.rate(leak.growth_rate_mb_per_hour) end
  local each = leak.average_size_bytes and (" of %s"):format(format.bytes(leak.average_size_bytes)) or ""
  facts[#facts + 1] = ("%s live in %s%s"):format(format.bytes(leak.total_size_bytes),
    format.plural(leak.allocation_count, "object"), each)
  if leak.confidence then facts[#facts + 1] = ("%s sure"):format(format.percent(100 * leak.confidence)) end
  out:paragraph(margin, leak.severity .. ": " .. table.concat(facts, ", "))
  if #leak.reasons > 0 then out:paragraph(margin, table.concat(leak.reasons, "; "), "dim") end
  stack_rows(out, margin, callers(leak.stack))
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

local function sentences(out, heading, aside, list, most)
  if #list == 0 then return end
  out:heading(heading, aside)
  for i, text in ipairs(list) do
    if i > most then
      out:line((" "):rep(INDENT) .. ("... and %d more"):format(#list - most))
      break
    end
    out:paragraph((" "):rep(INDENT) .. "- ", text)
  end
end

--- As many callers as fit on the row; of those without a name only the module, once.
local function caller_chain(stack, columns)
  local text, before = "", nil
  for _, frame in ipairs(callers(stack)) do
    local shown = frame:match("^(.+)%+0x%x+$") or frame
    if shown ~= before then
      if #text + 3 + #shown > columns then break end
      text = text .. " < " .. shown
    end
    before = shown
  end
  return text
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
    local chain = caller_chain(site.stack, room - #name)
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
    facts[#facts + 1] = rate < 0 and "heap shrinks " .. format.rate(-rate) or "heap grows " .. format.rate(rate)
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
  out:paragraph((" "):rep(INDENT), ("lupe's own cost: %.2f s of CPU (%s of one core), %.2f s of it in the program; "
    .. "%s resident"):format(own.cpu_seconds, format.percent(own.cpu_percent), own.agent_cpu_seconds,
    format.bytes(own.rss_bytes)))
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
  local out = new_page(options)
  title(out, report)
  answers(out, report)
  leaks(out, report)
  advice(out, report)
  sentences(out, "Also seen", nil, report.suspicious_patterns, MOST_OTHERS)
  sentences(out, "Grew", "and judged not to leak", report.settled, MOST_OTHERS)
  allocators(out, report)
  memory(out, report)
  measured(out, report)
  out:line()
  return table.concat(out.lines, "\n")
end
