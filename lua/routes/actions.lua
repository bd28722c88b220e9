--- GET /api/actions: what rules asked for, and what became of it.

local action_kinds = require("lupe.action_kinds")
local json = require("lupe.json")
local time = require("lupe.time")

local ACTION = json.shape({
  "time time", "action " .. table.concat(action_kinds.NAMES, "|"), "arguments object", "target string", "rule string",
  "why string", "state waiting|running|done|failed|not_allowed", "result string?",
})
local LIST = json.shape({
  "timestamp time", "allowed string[]", "cooldown_seconds number", "actions Action[]", Action = ACTION,
})

return {
  {
    method = "GET",
    path = "/api/actions",
    summary = "What rules of kind action asked for, the newest first, and whether it was done",
    params = {},
    response = LIST,
    handler = function(_, app)
      local list = {}
      for i, entry in ipairs(app.actions:list()) do
        list[i] = ACTION({
          time = time.rfc3339(entry.time_ms), action = entry.name, arguments = entry.arguments, target = entry.target,
          rule = entry.rule, why = entry.why, state = entry.state, result = entry.result,
        })
      end
      return 200, {}, LIST({
        timestamp = time.rfc3339(app.host.now_ms()), allowed = app.config.actions,
        cooldown_seconds = app.config.action_cooldown_secs, actions = list,
      })
    end,
  },
}
