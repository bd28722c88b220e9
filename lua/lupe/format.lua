--- Figures in words, as people read them. Rules have these functions as `words`.
-- @module lupe.format

local format = {}

local UNITS = { "B", "KiB", "MiB", "GiB", "TiB" }

--- Three digits that matter: 1234567 bytes are "1.18 MiB". Never "nan".
function format.bytes(bytes)
  if not bytes then return "unknown" end
  local sign, size, unit = bytes < 0 and "-" or "", math.abs(bytes), 1
  while size >= 999.5 and unit < #UNITS do size, unit = size / 1024, unit + 1 end
  if unit == 1 then return ("%s%.0f B"):format(sign, size) end
  local decimals = size < 9.995 and 2 or size < 99.95 and 1 or 0
  return ("%s%." .. decimals .. "f %s"):format(sign, size, UNITS[unit])
end

--- Bytes with their error in the same unit: "25.1 +- 2.4 MiB".
function format.estimate(bytes, error_bytes)
  if not bytes then return "unknown" end
  local figure, unit = format.bytes(bytes):match("^(%S+) (%S+)$")
  local scale, decimals = 1, #(figure:match("%.(%d+)$") or "")
  for _, name in ipairs(UNITS) do
    if name == unit then break end
    scale = scale * 1024
  end
  return ("%s +- %." .. decimals .. "f %s"):format(figure, (error_bytes or 0) / scale, unit)
end

--- Growth, in the unit that leaves a number one can imagine: "1.24 MiB/s", "3.00 MiB/min", "12.5 MiB/h".
function format.rate(mib_per_hour)
  if not mib_per_hour then return "unknown" end
  local per_second = mib_per_hour * 2 ^ 20 / 3600
  if math.abs(per_second) >= 100 * 2 ^ 10 then return format.bytes(per_second) .. "/s" end
  if math.abs(per_second * 60) >= 2 ^ 20 then return format.bytes(per_second * 60) .. "/min" end
  return format.bytes(per_second * 3600) .. "/h"
end

--- Counts with separators: "1,234,567".
function format.count(number)
  if not number then return "unknown" end
  local text = ("%.0f"):format(number)
  local sign, digits = text:match("^(%-?)(%d+)$")
  digits = digits:reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", "")
  return sign .. digits
end

--- "1 stack", "2,000 stacks".
function format.plural(number, noun) return format.count(number) .. " " .. noun .. (number == 1 and "" or "s") end

--- A span of time: "850 ms", "12.4 s", "3 min 20 s", "2 h 5 min".
function format.duration(ms)
  if not ms then return "unknown" end
  if ms < 1000 then return ("%.0f ms"):format(ms) end
  local secs = ms / 1000
  if secs < 99.95 then return (("%.1f"):format(secs):gsub("%.0$", "")) .. " s" end
  secs = math.floor(secs + 0.5)
  if secs < 3600 then return ("%d min %d s"):format(secs / 60, secs % 60) end
  return ("%d h %d min"):format(secs / 3600, secs % 3600 / 60)
end

function format.percent(value)
  if not value then return "unknown" end
  return (math.abs(value) < 9.95 and "%.1f %%" or "%.0f %%"):format(value)
end

return format
