--- The registry of rules: which files there are, what is wrong with which, and which one an id stands for.
-- Directories come in order, later ones shadow earlier ones by id. A broken file is an entry with an error:
-- the others load all the same, and where the file held a working rule before, that one stays in force.
-- @module lupe.rules

local files = require("lupe.ffi")
local rule_loading = require("lupe.rule_loading")

local rules = {}
rules.__index = rules

local LARGEST_FILE = 262144
local MOST_FILES = 500
local OTHERS_MAY_WRITE = 2

local function writable_by_others(stat) return math.floor(stat.mode / OTHERS_MAY_WRITE) % 2 == 1 end

local function read_source(path)
  local stat, message = files.stat(path)
  if not stat then return nil, message:gsub("^%u+: ", "") end
  if stat.kind ~= "file" then return nil, path .. ": not a regular file" end
  if writable_by_others(stat) then
    return nil, ("%s: others may write it (mode %03o), so it is not loaded: chmod o-w"):format(path, stat.mode % 512)
  end
  if stat.size > LARGEST_FILE then
    return nil, ("%s: %d bytes, at most %d are read"):format(path, stat.size, LARGEST_FILE)
  end
  local file = io.open(path, "rb")
  if not file then return nil, path .. ": cannot be opened" end
  local source = file:read("*a")
  file:close()
  return source or "", nil, stat
end

--- @tparam {table,...} directories { path, shipped } each; one that is missing is an error entry unless shipped
-- @tparam function log function(level, message)
function rules.new(directories, log)
  return setmetatable({
    directories = directories, log = log, by_path = {}, active = {}, revision = 0,
    complaints = {}, -- what is wrong with directories: path -> message
  }, rules)
end

function rules:complain(entry, message)
  if entry.error ~= message then self.log("error", "rule " .. message) end
  entry.error = message
end

function rules:read(path, directory)
  local entry = self.by_path[path]
  local stat = files.stat(path)
  local stamp = stat and ("%.0f %.0f %d"):format(stat.mtime_ms, stat.size, stat.mode) or "gone"
  if entry and entry.stamp == stamp then return false end
  entry = entry or { path = path, shipped = directory.shipped or false }
  self.by_path[path] = entry
  entry.stamp = stamp

  local source, message = read_source(path)
  local loaded
  if source then loaded, message = rule_loading.load(path, source) end
  if loaded then
    entry.rule, entry.source, entry.error = loaded, source, nil
  else
    self:complain(entry, message)
  end
  return true
end

--- Looks at the directories again.
-- @return true where something changed; then `revision` is another one
function rules:refresh()
  local changed, seen = false, {}
  for order, directory in ipairs(self.directories) do
    local stat = files.stat(directory.path)
    local names, message = files.list(directory.path)
    if stat and writable_by_others(stat) and math.floor(stat.mode / 512) % 2 == 0 then -- no sticky bit
      names, message = nil, ("%s: others may write into it, so nothing there is loaded: chmod o-w")
        :format(directory.path)
    end
    local count = 0
    for _, name in ipairs(names or {}) do
      if name:match("%.lua$") and not name:match("%.test%.lua$") then -- those are lupe.rule_tests
        count = count + 1
        if count > MOST_FILES then
          message = ("%s: more than %d files, so %s and what follows it are not loaded"):format(directory.path,
            MOST_FILES, name)
          break
        end
        local path = directory.path .. "/" .. name
        seen[path] = true
        changed = self:read(path, directory) or changed
        self.by_path[path].order = order
      end
    end
    message = message and message:gsub("^%u+: ", "")
    if message and self.complaints[directory.path] ~= message then self.log("error", "rules: " .. message) end
    self.complaints[directory.path] = message
  end
  for path in pairs(self.by_path) do
    if not seen[path] then
      self.by_path[path] = nil
      changed = true
    end
  end
  if changed then
    self.revision = self.revision + 1
    self:settle()
  end
  return changed
end

function rules:entries()
  local list = {}
  for _, entry in pairs(self.by_path) do list[#list + 1] = entry end
  table.sort(list, function(a, b)
    if a.order ~= b.order then return a.order < b.order end
    return a.path < b.path
  end)
  return list
end

--- Which file each id stands for.
function rules:settle()
  self.active = {}
  for _, entry in ipairs(self:entries()) do
    entry.shadowed_by = nil
    if entry.rule then
      local other = self.active[entry.rule.id]
      if other and other.order == entry.order then
        self:complain(entry, ("%s: field 'id': '%s' is also the id of %s"):format(entry.path, entry.rule.id,
          other.path))
        entry.shadowed_by = other.path
      else
        if other then other.shadowed_by = entry.path end
        self.active[entry.rule.id] = entry
      end
    end
  end
end

--- The entries in force, by id.
-- @tparam[opt] table kinds set of kinds to keep
function rules:in_force(kinds)
  local list = {}
  for _, entry in pairs(self.active) do
    if not kinds or kinds[entry.rule.kind] then list[#list + 1] = entry end
  end
  table.sort(list, function(a, b) return a.rule.id < b.rule.id end)
  return list
end

return rules
