--- The call sites whose live memory grows fastest, as JSON or CSV, with what the leak rules say of them.
local COLUMNS = { "name", "module", "mib_per_hour", "live_mib", "verdict" }

--- A text as a field of CSV.
local function quoted(value)
  local text = tostring(value == nil and "" or value)
  return text:find('[",\n]') and '"' .. text:gsub('"', '""') .. '"' or text
end

local function csv(rows)
  local lines = { table.concat(COLUMNS, ",") }
  for _, row in ipairs(rows) do
    local fields = {}
    for i, column in ipairs(COLUMNS) do fields[i] = quoted(row[column]) end
    lines[#lines + 1] = table.concat(fields, ",")
  end
  return table.concat(lines, "\n") .. "\n"
end

--- What the rules said of each site: name and module -> verdict.
local function verdicts_of(findings)
  local verdicts = {}
  for _, finding in ipairs(findings) do
    local site = finding.site
    if site and finding.kind == "leak" then verdicts[site.name .. " " .. (site.module or "")] = finding.verdict end
  end
  return verdicts
end

return {
  api = 1, method = "GET", path = "/api/x/top-growers",
  summary = "The call sites whose live memory grows fastest",
  params = {
    { name = "limit", type = "integer", default = 5, min = 1, max = 100, doc = "how many" },
    { name = "format", type = "choice", values = { "json", "csv" }, default = "json", doc = "of the answer" },
  },
  response = { "profile_seconds number", "status string", "growers object[]" },
  handler = function(req)
    local result, why_not = lupe.analyze { about = "memory" }
    if not result then return 503, nil, { profile_seconds = 0, status = why_not } end
    local view, rows = lupe.view(), {}
    local verdicts = verdicts_of(result.findings)
    for site in view.heap:sites { min_inuse_space = 1 } do
      local trend = site:trend("inuse_space")
      if trend and trend.slope > 0 then
        rows[#rows + 1] = {
          name = site.name, module = site.module, mib_per_hour = trend.slope, live_mib = site.inuse_space / 2 ^ 20,
          verdict = verdicts[site.name .. " " .. site.module],
        }
      end
    end
    table.sort(rows, function(a, b) return a.mib_per_hour > b.mib_per_hour end)
    for i = #rows, req.params.limit + 1, -1 do rows[i] = nil end
    if req.params.format == "csv" then return 200, { ["Content-Type"] = "text/csv; charset=utf-8" }, csv(rows) end
    return 200, nil, { profile_seconds = view.heap.seconds, status = result.status, growers = rows }
  end,
}
