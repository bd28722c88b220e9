--- /api/profiling/snapshot: heap snapshots on disk, made, listed and handed out.

local async = require("lupe.async")
local heap_snapshot = require("lupe.heap_snapshot")
local json = require("lupe.json")
local problem = require("lupe.problem")
local profiling_route = require("lupe.profiling_route")
local time = require("lupe.time")

local ENTRY = json.shape({
  "snapshot_id string", "timestamp time", "file_path string?", "size_bytes integer?",
  "status completed|pending|failed", "reason string?", "download_url string?",
})

-- Its other members are told in lupe.export.
local FILE = {
  type = "object", required = { "format", "version" },
  properties = { format = { const = "lupe-heap-snapshot" }, version = { type = "integer" } },
  additionalProperties = true,
}

local function download_url(id) return ("/api/profiling/snapshot/%s/download"):format(id) end

local NO_ROOM = { ENOSPC = true, EDQUOT = true, EFBIG = true }

local function refuse(message, code)
  if code == "ENODATA" then problem.raise(503, "no-profile", message) end
  if NO_ROOM[code] then
    problem.raise(507, "disk-full", ("the snapshot could not be written, and nothing of it was left behind: %s")
      :format(message))
  end
  problem.raise(500, "snapshot-failed", ("the snapshot could not be written: %s"):format(message))
end

local function make(request, app)
  local pid = request.params.target
  local entry, message, code = app.snapshots:begin()
  if not entry then refuse(message, code) end

  if not request.params.wait then
    async.spawn(function() return heap_snapshot.take(app, entry, pid, { promised = true }) end, function(_, _, trace)
      if trace then app.host.log("error", "a snapshot failed: " .. trace) end
    end)
    return {
      snapshot_id = entry.snapshot_id, status = "pending", download_url = download_url(entry.snapshot_id),
      reason = "it is being written; the list tells when it is there",
    }, 202
  end

  local file
  file, message, code = heap_snapshot.take(app, entry, pid)
  if not file then refuse(message, code) end
  return {
    snapshot_id = file.snapshot_id, file_path = app.snapshots:path(file.snapshot_id), size_bytes = file.size_bytes,
    status = "completed", download_url = download_url(file.snapshot_id),
  }, 201
end

local function listed(app)
  local list = {}
  local function add(entry, status)
    local there = status == "completed"
    list[#list + 1] = ENTRY({
      snapshot_id = entry.snapshot_id, timestamp = time.rfc3339(entry.created_ms), status = status,
      reason = entry.reason, size_bytes = entry.size_bytes,
      file_path = there and app.snapshots:path(entry.snapshot_id) or nil,
      download_url = there and download_url(entry.snapshot_id) or nil,
    })
  end
  for _, entry in pairs(app.snapshots.pending) do add(entry, "pending") end
  for _, file in ipairs(app.snapshots:files()) do add(file, "completed") end
  for _, entry in ipairs(app.snapshots.failed) do add(entry, "failed") end
  table.sort(list, function(a, b) return a.timestamp > b.timestamp end)
  return list
end

return {
  profiling_route({
    method = "POST",
    path = "/api/profiling/snapshot",
    summary = "Writes heap profile, history, symbols and findings to a file",
    rate = "snapshots",
    status = { [201] = "The snapshot is written", [202] = "It is being written, as with wait=false" },
    problems = { 507 },
    params = {
      { name = "wait", type = "boolean", default = true, doc = "false: answer 202 at once, write in the background" },
    },
    fields = {
      "snapshot_id string", "file_path string?", "size_bytes integer?", "status completed|pending",
      "download_url string", "reason string?",
    },
    report = make,
  }),
  profiling_route({
    method = "GET",
    path = "/api/profiling/snapshot",
    summary = "The snapshots on disk, newest first",
    any_target = true,
    fields = { "snapshots Snapshot[]", Snapshot = ENTRY },
    report = function(_, app) return { snapshots = listed(app) } end,
  }),
  {
    method = "GET",
    path = "/api/profiling/snapshot/{id}/download",
    tag = "profiling",
    summary = "One snapshot as a file",
    params = {},
    named = { id = "snapshot_id, as the list has it" },
    response = { ["application/json"] = FILE },
    problems = { 404 },
    handler = function(request, app)
      local file = app.snapshots:file(request.named.id)
      if not file then
        problem.raise(404, "no-such-snapshot", "no snapshot of this name; /api/profiling/snapshot lists them")
      end
      return 200, {
        ["Content-Type"] = "application/json",
        ["Content-Disposition"] = ('attachment; filename="%s.json"'):format(file.snapshot_id),
      }, { file = app.snapshots:path(file.snapshot_id) }
    end,
  },
}
