--- /api/reports: the last reports of programs that ended, as `lupe serve` keeps them.

local json = require("lupe.json")
local problem = require("lupe.problem")
local time = require("lupe.time")

local ENTRY = json.shape({
  "id string", "pid integer", "name string", "ended_at time", "how exited|lost", "lasted_seconds number",
  "size_bytes integer", "url string",
})
local LEFT_OUT = json.shape({ "short integer", "skipped integer" })
local LIST = json.shape({
  "timestamp time", "reports Report[]", "left_out LeftOut", Report = ENTRY, LeftOut = LEFT_OUT,
})

local JSON, TEXT = "application/json", "text/plain; charset=utf-8"

return {
  {
    method = "GET",
    path = "/api/reports",
    summary = "The last reports of programs that ended, the newest first",
    params = {},
    response = LIST,
    handler = function(_, app)
      local list = {}
      for i, head in ipairs(app.reports:list()) do
        list[i] = ENTRY({
          id = head.id, pid = head.pid, name = head.name, ended_at = time.rfc3339(head.ended_ms), how = head.how,
          lasted_seconds = json.round(head.lasted_ms / 1000), size_bytes = head.size_bytes,
          url = app.reports.url(head.id),
        })
      end
      return 200, {}, LIST({
        timestamp = time.rfc3339(app.host.now_ms()), reports = list, left_out = LEFT_OUT(app.reports:left_out()),
      })
    end,
  },
  {
    method = "GET",
    path = "/api/reports/{id}",
    summary = "The last report of one program: as lupe run --report=json writes it, or as text",
    params = {
      { name = "format", type = "choice", values = { "json", "text" }, default = "json", doc = "text: for reading" },
    },
    named = { id = "id, as the list has it" },
    response = {
      [JSON] = { type = "object", additionalProperties = true }, [TEXT] = { type = "string" },
    },
    problems = { 404 },
    handler = function(request, app)
      local body, text = app.reports:read(request.named.id)
      if not body then problem.raise(404, "no-such-report", "no report of this id; /api/reports lists them") end
      if request.params.format == "text" then return 200, { ["Content-Type"] = TEXT }, text end
      return 200, { ["Content-Type"] = JSON }, body
    end,
  },
}
