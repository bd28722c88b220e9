--- Takes a heap snapshot to disk: profile, history, symbols, and what the rules find in it. Inside a task.
-- @module lupe.heap_snapshot

local ask_worker = require("lupe.ask_worker")
local json = require("lupe.json")
local problem = require("lupe.problem")

local heap_snapshot = {}

local DEADLINE_MS = 30000

--- Lets the worker write the view to a file, which it makes. Inside a task.
-- @return true; or nil, a message, a code
function heap_snapshot.write(app, view, pid, extra, path)
  local result = app.analysis:run(view, { pid = pid })
  local request = { op = "export", findings = json.array(result.findings), extra = extra }
  local answer, message, code = ask_worker.about(app.host, view, request, { file = path }, DEADLINE_MS)
  if not answer then return nil, message, code end
  return true
end

local function take(app, entry, pid, options)
  local view, reason
  if pid then
    view, reason = app.views:of(pid)
  else
    view, reason = app.views:fresh()
  end
  if not view then return nil, reason, "ENODATA" end
  return app.snapshots:finish(entry, function(path)
    return heap_snapshot.write(app, view, pid, options.extra, path)
  end, options.promised)
end

--- @param app as `lupe.server` builds it
-- @param entry what `app.snapshots:begin` gave; given up where nothing comes of it
-- @param[opt] pid of one process
-- @tparam[opt] table options `promised`: the id was told already; `extra`: members to add to the file
-- @return the file as `app.snapshots:files` lists it; or nil, a message, a code such as "ENOSPC" ("ENODATA": there is
--   no profile yet)
function heap_snapshot.take(app, entry, pid, options)
  local ok, file, message, code = pcall(take, app, entry, pid, options or {})
  if not ok then
    app.snapshots:abandon(entry, problem.is(file) and file.detail or tostring(file))
    error(file, 0)
  end
  if not file then app.snapshots:abandon(entry, message) end
  return file, message, code
end

return heap_snapshot
