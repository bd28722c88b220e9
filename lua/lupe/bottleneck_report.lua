--- "Where the time goes": the part of the report at exit that tells what bounds the program, in words and rows.
-- Takes what `lupe.bottlenecks` describes, as `--report json` has it under `bottlenecks`.
-- @module lupe.bottleneck_report

local callers = require("lupe.callers")
local format = require("lupe.format")
local fit = require("lupe.page").fit
local places = require("lupe.places")

local INDENT = "  "
local MOST_HOTSPOTS, MOST_PATTERNS = 10, 5
local FEWEST_FAULTS = 100 -- a second; each takes a microsecond or less, unless the page is read from disk
local SMALLEST_PERCENT, SMALLEST_SHARE = 0.5, 0.1 -- a row, or a share, of less says nothing

local PARTS = {
  { "cpu_bound_percent", "computing" }, { "io_bound_percent", "waiting for I/O" },
  { "lock_bound_percent", "waiting for locks" }, { "memory_bound_percent", "moving or managing memory" },
}

local function shares(data)
  local parts = {}
  for _, part in ipairs(PARTS) do
    if data[part[1]] >= SMALLEST_SHARE then parts[#parts + 1] = { share = data[part[1]], what = part[2] } end
  end
  table.sort(parts, function(a, b) return a.share > b.share end)
  local words = {}
  for i, part in ipairs(parts) do words[i] = format.percent(part.share) .. " " .. part.what end
  return table.concat(words, ", ")
end

local function summary(out, data)
  if data.cpu_bound_percent then
    out:paragraph(INDENT, ("threads were idle for %s of their time; of the rest they spent %s"):format(
      format.percent(data.idle_percent), shares(data)))
  elseif data.bound_reason then
    out:paragraph(INDENT, "what bounds the program is not known: " .. data.bound_reason, "warn")
  end
  local faults = data.page_faults
  if faults.minor and (faults.major > 0 or faults.minor_per_second >= FEWEST_FAULTS) then
    out:paragraph(INDENT, ("page faults: %s/s, and %s from disk"):format(format.count(faults.minor_per_second),
      faults.major == 0 and "none" or format.plural(faults.major, "page")))
  end
end

local function share(value) return value and format.percent(value) or "-" end

local function worth_a_row(hotspot)
  return math.max(hotspot.cpu_time_percent or 0, hotspot.wall_time_percent or 0) >= SMALLEST_PERCENT
end

local function one_hotspot(out, hotspot)
  local row = ("%s%6s  %6s  "):format(INDENT, share(hotspot.cpu_time_percent), share(hotspot.wall_time_percent))
  local room = out.width - #row
  local place = "  " .. places.short(hotspot.file_location, hotspot.line_number)
  if #place > room / 2 or place == "  " then place = "" end
  local name = fit(hotspot.function_name, room - #place)
  local chain = callers.chain(hotspot.stack, room - #name - #place)
  out:line(row .. out:paint("strong", name) .. place .. out:paint("dim", chain))
end

local function hotspots(out, data)
  local rows = {}
  for _, hotspot in ipairs(data.hotspots) do
    if #rows < MOST_HOTSPOTS and worth_a_row(hotspot) then rows[#rows + 1] = hotspot end
  end
  if not rows[1] then
    if data.hotspots_reason then out:paragraph(INDENT, "no hotspots: " .. data.hotspots_reason) end
    return
  end
  out:line(INDENT .. out:paint("dim", ("%6s  %6s  function  line < its callers"):format("cpu", "wall")))
  for _, hotspot in ipairs(rows) do one_hotspot(out, hotspot) end
end

--- Half of it missing is worth a warning, unless the operator switched it off.
local function gaps(out, data)
  for _, part in ipairs({ { data.cpu_profile, "CPU" }, { data.wall_profile, "wall" } }) do
    local state, reason = part[1].state, part[1].reason
    if state ~= "on" then
      out:paragraph(INDENT, ("no %s profile: %s"):format(part[2], tostring(reason)), state ~= "off" and "warn" or nil)
    end
  end
end

--- @param out lupe.page
-- @param data as above, or nil where nothing was recorded
return function(out, data)
  if not data then return end
  local aside
  if data.cpu_seconds then
    aside = ("%.3g s of CPU in %s"):format(data.cpu_seconds, format.duration(1000 * data.window_seconds))
  end
  out:heading("Where the time goes", aside)
  if data.reason then return out:paragraph(INDENT, data.reason) end
  summary(out, data)
  hotspots(out, data)
  for i = 1, math.min(#data.patterns, MOST_PATTERNS) do out:paragraph(INDENT .. "- ", data.patterns[i]) end
  gaps(out, data)
end
