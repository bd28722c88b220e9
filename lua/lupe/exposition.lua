--- Metrics as text: OpenMetrics 1.0, or Prometheus' older format 0.0.4, from one description.
-- @module lupe.exposition

local exposition = {}
exposition.__index = exposition

local TYPES = {
  openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8",
  prometheus = "text/plain; version=0.0.4; charset=utf-8",
}
exposition.TYPES = TYPES -- format -> content type

--- Which of the two the client asked for; Prometheus' own is what curl gets.
-- @param accept the Accept header, or nil
function exposition.negotiate(accept)
  local best, best_quality = "prometheus", 0
  for part in (accept or ""):lower():gmatch("[^,]+") do
    local kind = part:match("^%s*([^;%s]+)")
    local quality = tonumber(part:match(";%s*q%s*=%s*([%d.]+)")) or 1
    local format = kind == "application/openmetrics-text" and "openmetrics"
      or (kind == "text/plain" or kind == "*/*" or kind == "text/*") and "prometheus"
    if format and quality > best_quality then best, best_quality = format, quality end
  end
  return best
end

--- @param format "openmetrics" or "prometheus"
function exposition.new(format) return setmetatable({ format = format, lines = {} }, exposition) end

local function label_text(labels)
  if not labels or not labels[1] then return "" end
  local parts = {}
  for i, label in ipairs(labels) do
    local value = tostring(label[2]):gsub("[\\\"\n]", { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" })
    parts[i] = ('%s="%s"'):format(label[1], value)
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

local function number_text(number)
  if number % 1 == 0 and math.abs(number) < 2 ^ 53 then return ("%.0f"):format(number) end
  return ("%.14g"):format(number)
end

local SUFFIX = { counter = "_total", info = "_info" }

--- One family of metrics. Samples without a value are left out, and with them an empty family.
-- @param name    without `_total` or `_info`
-- @param kind    "gauge", "counter", "info" or "summary"
-- @param help    a sentence
-- @param samples a number, or an array of { value, labels = { { name, value }... }, suffix = "_sum" ... }
function exposition:add(name, kind, help, samples)
  if type(samples) ~= "table" then samples = { { samples } } end
  local out = self.lines
  local suffix = SUFFIX[kind] or ""
  local family, said = name, kind
  if self.format == "prometheus" then
    family = name .. suffix
    if kind == "info" then said = "gauge" end
  end
  local headed = false
  for _, sample in ipairs(samples) do
    local value = sample[1]
    if value and value == value then
      if not headed then
        out[#out + 1] = ("# HELP %s %s"):format(family, help)
        out[#out + 1] = ("# TYPE %s %s"):format(family, said)
        headed = true
      end
      out[#out + 1] = name .. (sample.suffix or suffix) .. label_text(sample.labels) .. " " .. number_text(value)
    end
  end
end

--- @return the text, and its content type
function exposition:text()
  if self.format == "openmetrics" then self.lines[#self.lines + 1] = "# EOF" end
  self.lines[#self.lines + 1] = ""
  return table.concat(self.lines, "\n"), TYPES[self.format]
end

return exposition
