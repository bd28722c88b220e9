--- `lupe rules list`: every file of rules, and what became of it.
-- @module lupe.rules_list

local analysis = require("lupe.analysis")
local json = require("lupe.json")

local ENTRY = json.shape({
  "id string?", "kind string?", "version string?", "title string?", "state string", "path string", "shipped boolean",
  "error string?",
})
local LIST = json.shape({ "rules object[]", "complaints string[]" })
local ROW = "%-30s %-14s %-8s %-11s %s"

local function text_of(data)
  local lines = { ROW:format("id", "kind", "version", "state", "file") }
  for _, entry in ipairs(data.rules) do
    lines[#lines + 1] = ROW:format(entry.id or "-", entry.kind or "-", entry.version or "-", entry.state,
      entry.shipped and entry.path:match("[^/]+$") .. " (shipped)" or entry.path)
    if entry.error then lines[#lines + 1] = "  " .. entry.error end
  end
  for _, message in ipairs(data.complaints) do lines[#lines + 1] = message end
  return table.concat(lines, "\n") .. "\n"
end

--- @param host what C offers where no program runs, with `config` and `rules_dir`
-- @string format "text" or "json"
-- @return the text, and the exit code: 1 where a file or a folder is broken
return function(host, format)
  local quiet = setmetatable({ log = function() end }, { __index = host }) -- the list says it all
  local runner = analysis.new(quiet)
  local list, broken = {}, false
  for i, known in ipairs(runner:rules()) do
    broken = broken or known.error ~= nil
    list[i] = ENTRY({
      id = known.id, kind = known.kind, version = known.version, title = known.title, state = known.state,
      path = known.path, shipped = known.shipped, error = known.error,
    })
  end
  local data = LIST({ rules = list, complaints = runner:complaints() })
  local text = format == "json" and json.encode(data) .. "\n" or text_of(data)
  return text, (broken or data.complaints[1]) and 1 or 0
end
