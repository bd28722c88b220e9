--- What `lupe rules replay` found, in words: at each frame's time what appeared, went or changed its verdict, and at
-- the end what the last frame has.
-- @module lupe.replay_text

local format = require("lupe.format")
local keys_of = require("lupe.known_findings").keys
local page = require("lupe.page")

local INDENT = 12

--- "leak.steady-growth, leak, 84 % sure".
local function told(found)
  local words = { found.rule, found.verdict }
  if found.confidence then words[#words + 1] = format.percent(100 * found.confidence) .. " sure" end
  return table.concat(words, ", ")
end

local function changes_of(before, frame)
  local now, lines, keys = {}, {}, keys_of(frame.findings)
  for i, found in ipairs(frame.findings) do
    local key = keys[i]
    local old = before[key]
    now[key] = found
    if not old then
      lines[#lines + 1] = { "+", told(found), found.summary }
    elseif old.verdict ~= found.verdict then
      lines[#lines + 1] = { "~", ("%s (was %s)"):format(told(found), old.verdict or "nothing"), found.summary }
    end
  end
  local gone = {}
  for key, found in pairs(before) do
    if not now[key] then gone[#gone + 1] = { key = key, line = { "-", found.rule, found.summary } } end
  end
  table.sort(gone, function(a, b) return a.key < b.key end)
  for _, each in ipairs(gone) do lines[#lines + 1] = each.line end
  return now, lines
end

local function row(out, time, mark, head, summary)
  out:line(("%10s  %s %s"):format(time, mark, head))
  if summary then out:paragraph((" "):rep(INDENT + 2), summary, "dim") end
end

--- @param data what lupe.replay assembled
-- @param options { columns, color, unicode }
-- @return the text, with a line feed at its end
return function(data, options)
  local out = page.new(options)
  local last = data.frames[#data.frames]
  out:line(("%s: %s, %s%s"):format(data.recording, data.program or "a program", format.plural(#data.frames, "frame"),
    last and (", the last at %s"):format(format.duration(last.seconds * 1000)) or ""))
  if data.ending then out:line("the recording is not whole: " .. data.ending) end
  if data.skipped > 0 then
    out:line(format.plural(data.skipped, "frame") .. " left out: it had reached its size (--record-max-mb)")
  end
  local before, status, errors = {}, nil, {}
  for _, frame in ipairs(data.frames) do
    local time, needed = ("%.1f s"):format(frame.seconds), frame.needed_seconds
    local now, lines = changes_of(before, frame)
    before = now
    if frame.status ~= "ok" and frame.status ~= status then
      needed = needed and (" (%s needed)"):format(format.duration(needed * 1000)) or ""
      row(out, time, " ", frame.status:gsub("_", " ") .. needed)
    end
    status = frame.status
    for _, line in ipairs(lines) do row(out, time, unpack(line)) end
    for _, message in ipairs(frame.errors) do
      if not errors[message] then row(out, time, "!", message) end
      errors[message] = true
    end
  end
  out:line()
  if not last then
    out:line("no frame")
  elseif #last.findings == 0 then
    out:line(("at %s: nothing found%s"):format(format.duration(last.seconds * 1000),
      last.errors[1] and ", and not all rules gave an answer" or ""))
  else
    out:line(("at %s: %s"):format(format.duration(last.seconds * 1000), format.plural(#last.findings, "finding")))
    for _, found in ipairs(last.findings) do out:paragraph("  - ", told(found) .. ": " .. found.summary) end
  end
  return table.concat(out.lines, "\n") .. "\n"
end
