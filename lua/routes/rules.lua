--- GET /api/rules, POST /api/rules/reload: which rules there are, from where, and how they fare.

local json = require("lupe.json")
local memo = require("lupe.memo")
local time = require("lupe.time")

local RULE = json.shape({
  "id string?", "kind string?", "title string?", "version string?", "path string", "shipped boolean",
  "state active|shadowed|disabled|broken|quarantined", "error string?", "shadowed_by string?", "runs integer",
  "errors integer", "elapsed_us integer?", "findings integer?", "params object", "set object", "loaded_at time?",
})
local LIST = json.shape({
  "timestamp time", "rules Rule[]", "complaints string[]", "confined boolean?", "confined_reason string?", Rule = RULE,
})
local FILE = json.shape({
  "path string", "result loaded|kept|error|gone|unchanged", "error string?", "findings integer?",
})
local RELOADED = json.shape({
  "timestamp time", "changed boolean", "rules Rule[]", "complaints string[]", "files RuleFile[]", Rule = RULE,
  RuleFile = FILE,
})

local KEEP_MS = 250 -- the list is long and changes with an analysis or an edit only
local remembered = setmetatable({}, { __mode = "k" }) -- app -> its list as it was last written

local function rules_of(app)
  local list = {}
  for i, rule in ipairs(app.analysis:rules()) do
    list[i] = RULE({
      id = rule.id, kind = rule.kind, title = rule.title, version = rule.version, path = rule.path,
      shipped = rule.shipped, state = rule.state, error = rule.error, shadowed_by = rule.shadowed_by,
      runs = rule.runs, errors = rule.errors, elapsed_us = rule.elapsed_us, findings = rule.findings,
      params = rule.params or {}, set = rule.set or {}, loaded_at = rule.loaded_ms and time.rfc3339(rule.loaded_ms),
    })
  end
  return json.array(list)
end

local function recent_rules_of(app)
  local recent = remembered[app]
  if not recent or recent.changes ~= app.analysis.live.changes then
    recent = {
      list = memo(app.host.monotonic_ms, KEEP_MS, function() return json.written(rules_of(app)) end),
      changes = app.analysis.live.changes,
    }
    remembered[app] = recent
  end
  return recent.list()
end

return {
  {
    method = "GET",
    path = "/api/rules",
    summary = "The rules: where from, in force or not and why, how long they take, what they find",
    params = {},
    response = LIST,
    handler = function(_, app)
      app.analysis.live:first()
      local confined, reason = app.analysis:confinement()
      return 200, {}, LIST({
        timestamp = time.rfc3339(app.host.now_ms()), rules = recent_rules_of(app),
        complaints = app.analysis:complaints(), confined = confined, confined_reason = reason,
      })
    end,
  },
  {
    method = "POST",
    path = "/api/rules/reload",
    summary = "Looks at the rules' files now, and tells what became of each",
    params = {},
    response = RELOADED,
    handler = function(_, app)
      local files, changed = app.analysis:reload(), false
      remembered[app] = nil
      for i, file in ipairs(files) do
        changed = changed or file.result == "loaded" or file.result == "gone"
        files[i] = FILE(file)
      end
      return 200, {}, RELOADED({
        timestamp = time.rfc3339(app.host.now_ms()), changed = changed, rules = rules_of(app),
        complaints = app.analysis:complaints(), files = files,
      })
    end,
  },
}
