--- Heap snapshots on disk, and other files that are kept like them: names, listing, retention. The directory is private
-- (0700), the files too (0600); a file appears under its name only when it is whole.
-- @module lupe.snapshot_store

local async = require("lupe.async")

local snapshot_store = {}
snapshot_store.__index = snapshot_store

local MIB = 2 ^ 20
local MAX_SUFFIX = 1000
local MAX_FAILED = 20
local ABANDONED_MS = 3600000 -- a file that is still unfinished then: its lupe was killed

--- @param host   the host
-- @param config { state_dir, snapshot_keep, snapshot_max_mb }
-- @tparam[opt] table kind of other files: `folder` in state_dir, the `prefix` of their ids, the `ending` of their names
function snapshot_store.new(host, config, kind)
  kind = kind or { folder = "snapshots", prefix = "snapshot", ending = "json" }
  return setmetatable({
    host = host, prefix = kind.prefix, ending = kind.ending,
    directory = config.state_dir .. "/" .. kind.folder,
    keep = config.snapshot_keep,
    max_bytes = config.snapshot_max_mb * MIB,
    pending = {}, -- id -> { snapshot_id, status = "pending", created_ms }
    failed = {}, -- the last ones that could not be written, newest first: the same with `reason`
  }, snapshot_store)
end

--- Seconds and suffix of an id of exactly our form, or nil.
local function parse_id(self, id)
  local seconds, suffix = id:match("^" .. self.prefix .. "_(%d+)_([1-9]%d*)$")
  if seconds then return tonumber(seconds), tonumber(suffix) end
  seconds = id:match("^" .. self.prefix .. "_(%d+)$")
  return seconds and tonumber(seconds), 1
end

function snapshot_store:path(id) return ("%s/%s.%s"):format(self.directory, id, self.ending) end

local function newer(a, b)
  if a.seconds ~= b.seconds then return a.seconds > b.seconds end
  return a.suffix > b.suffix
end

--- What is on disk, newest first: array of { snapshot_id, size_bytes, created_ms }.
function snapshot_store:files()
  local list = {}
  for _, file in ipairs(self.host.list(self.directory) or {}) do
    local id = file.name:match("^(.*)%." .. self.ending .. "$")
    local seconds, suffix = nil, nil
    if id then seconds, suffix = parse_id(self, id) end
    if seconds then
      list[#list + 1] = {
        snapshot_id = id, size_bytes = file.size, created_ms = file.mtime_ms, seconds = seconds, suffix = suffix,
      }
    end
  end
  table.sort(list, newer)
  return list
end

--- One file by its id; nil where there is none, or the id is not of our form.
function snapshot_store:file(id)
  if not id or not parse_id(self, id) then return nil end
  for _, file in ipairs(self:files()) do
    if file.snapshot_id == id then return file end
  end
  return nil
end

--- An id that nothing has, and newer than all: `snapshot_<seconds>`, with `_2` and so on where that exists.
-- The gaps that retention leaves are not filled: what came there would be the oldest again.
local function free_id(self, seconds)
  local highest = 0
  local function see(id)
    local its_seconds, suffix = parse_id(self, id)
    if its_seconds == seconds then highest = math.max(highest, suffix) end
  end
  for _, file in ipairs(self:files()) do see(file.snapshot_id) end
  for id in pairs(self.pending) do see(id) end
  if highest >= MAX_SUFFIX then return nil end
  return ("%s_%d"):format(self.prefix, seconds) .. (highest > 0 and "_" .. highest + 1 or "")
end

--- Deletes the oldest beyond the limits, and what killed lupes left unfinished.
-- @string fresh the id that was just made: it stays, also where the clock was turned back
function snapshot_store:retain(fresh)
  for _, file in ipairs(self.host.list(self.directory) or {}) do
    local unfinished = file.name:match("^%." .. self.prefix .. "_[%d_]+%.part$")
    if unfinished and self.host.now_ms() - file.mtime_ms > ABANDONED_MS then
      self.host.unlink(("%s/%s"):format(self.directory, file.name))
    end
  end
  local files = self:files()
  local bytes, kept = 0, 1
  for _, file in ipairs(files) do
    if file.snapshot_id == fresh then bytes = file.size_bytes end
  end
  for _, file in ipairs(files) do
    if file.snapshot_id ~= fresh then
      bytes, kept = bytes + file.size_bytes, kept + 1
      if kept > self.keep or bytes > self.max_bytes then self.host.unlink(self:path(file.snapshot_id)) end
    end
  end
end

--- Makes the directory, where it is missing.
-- @return true; or nil, message, code
function snapshot_store:prepare()
  local ok, message, code = self.host.mkdir(self.directory, 448) -- 0700
  if not ok then return nil, ("%s cannot be used: %s"):format(self.directory, message), code end
  return true
end

--- Reserves a name and makes the directory.
-- @return an entry of `pending`; or nil, message, code
function snapshot_store:begin()
  local ok, message, code = self:prepare()
  if not ok then return nil, message, code end
  local now_ms = self.host.now_ms()
  local id = free_id(self, math.floor(now_ms / 1000))
  if not id then return nil, ("too many %ss in one second"):format(self.prefix), "EEXIST" end
  local entry = { snapshot_id = id, status = "pending", created_ms = now_ms }
  self.pending[id] = entry
  return entry
end

--- Writes and publishes one. Inside a task.
-- @param entry what `begin` gave
-- @param write function(path) that creates the file at `path` and fills it: true; or nil, message, code
-- @param promised true: the id was told already; else another is taken where someone else took it
-- @return the file as in `files`; or nil, message, code. Nothing is left behind then.
function snapshot_store:finish(entry, write, promised)
  local host, id = self.host, entry.snapshot_id
  local temporary = ("%s/.%s.part"):format(self.directory, id)
  local ok, message, code = write(temporary)
  local created = ok or code ~= "EEXIST"
  if ok then
    message, code = async.await(host.commit_file, temporary, self:path(id))
    ok = not message
  end
  if not ok and created then host.unlink(temporary) end
  self.pending[id] = nil
  if ok then
    self:retain(id)
    return self:file(id)
  end
  if code == "EEXIST" and not promised then
    local seconds, suffix = parse_id(self, id)
    if suffix < MAX_SUFFIX then
      entry.snapshot_id = ("%s_%d_%d"):format(self.prefix, seconds, suffix + 1)
      self.pending[entry.snapshot_id] = entry
      return self:finish(entry, write, promised)
    end
  end
  self:abandon(entry, message)
  return nil, message, code
end

--- Gives an entry up; the list tells why.
function snapshot_store:abandon(entry, reason)
  self.pending[entry.snapshot_id] = nil
  if entry.status == "failed" then return end
  entry.status, entry.reason = "failed", reason
  table.insert(self.failed, 1, entry)
  self.failed[MAX_FAILED + 1] = nil
end

return snapshot_store
