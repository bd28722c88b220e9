--- Files of Lua in directories: which there are, what they hold, which version of each is in force.
-- Directories come in order. Only regular files named *.lua (and not *.test.lua) are looked at, of a bounded size and
-- number, and none that others could have written. Nothing is run here: who uses this checks an entry's `text` and
-- says `adopt` or `reject`; what was adopted last stays in force until the file is gone.
--
-- Beside those there are texts that the program gives that lupe is a part of (`give`); their `path` is a name.
--
-- An entry: `path`, `order` (of its directory), `shipped`, `text` (as last read; nil where it cannot be: then `error`
-- says why), and of the version in force `loaded` (what was made of it), `source`, `loaded_ms`; `error` says what is
-- wrong with the file, nil: nothing.
-- @module lupe.script_files

local files = require("lupe.ffi")
local time = require("lupe.time")

local script_files = {}
script_files.__index = script_files

local LARGEST_FILE = 262144
local MOST_FILES = 500
local OTHERS_MAY_WRITE = 2
-- A clock of files ticks some milliseconds apart: what was changed just now may change again and look the same.
local SETTLED_SECS = 2

local function writable_by_others(stat) return math.floor(stat.mode / OTHERS_MAY_WRITE) % 2 == 1 end

local function read_text(path, stat)
  if stat.kind ~= "file" then return nil, path .. ": not a regular file" end
  if writable_by_others(stat) then
    return nil, ("%s: others may write it (mode %03o), so it is not loaded: chmod o-w"):format(path, stat.mode % 512)
  end
  if stat.size > LARGEST_FILE then
    return nil, ("%s: %d bytes, at most %d are read"):format(path, stat.size, LARGEST_FILE)
  end
  local file = io.open(path, "rb")
  if not file then return nil, path .. ": cannot be opened" end
  local text = file:read(LARGEST_FILE + 1)
  file:close()
  if text and #text > LARGEST_FILE then return nil, ("%s: at most %d bytes are read"):format(path, LARGEST_FILE) end
  return text or ""
end

--- @tparam {table,...} directories { path, shipped } each
-- @string what in messages: "rule" or "route"
-- @tparam function log function(level, message)
function script_files.new(directories, what, log)
  return setmetatable({
    directories = directories, what = what, log = log, by_path = {},
    given = {}, -- name -> text of a file that is in no directory: see `give`
    complaints = {}, -- what is wrong with directories: path -> message
  }, script_files)
end

local function complain(self, entry, message)
  if entry.error ~= message then self.log("error", self.what .. " " .. message) end
  entry.error = message
end

--- This version is in force from now on.
-- @param loaded what was made of it
-- @string text that it was made of
-- @param now_ms Unix time
function script_files.adopt(entry, loaded, text, now_ms)
  entry.loaded, entry.source, entry.loaded_ms, entry.error = loaded, text, now_ms, nil
end

--- This version is not; the last good one, if there is one, stays.
-- @string message begins with the file
function script_files:reject(entry, message)
  if entry.loaded then
    message = ("%s (kept: the last good version, of %s)"):format(message, time.rfc3339(entry.loaded_ms))
  end
  complain(self, entry, message)
end

--- The next look takes the file for changed, whether it is or not.
function script_files.doubt(entry) entry.stamp, entry.text, entry.seen = nil, nil, false end

local function look_at(self, entry)
  local stat, message = files.stat(entry.path)
  local stamp = stat and stat.stamp or "gone"
  if entry.seen and entry.stamp == stamp then return false end
  local settled = stat and stat.changed_ms < (os.time() - SETTLED_SECS) * 1000
  entry.stamp = settled and stamp or nil
  local text
  if stat then
    text, message = read_text(entry.path, stat)
  else
    message = message:gsub("^%u+: ", "")
  end
  if entry.seen and entry.text == text and entry.unreadable == message then return false end
  entry.seen, entry.text, entry.unreadable = true, text, not text and message or nil
  if not text then self:reject(entry, message) end
  return true
end

local function names_in(self, directory)
  local stat = files.stat(directory.path)
  local names, message = files.list(directory.path)
  if stat and writable_by_others(stat) and math.floor(stat.mode / 512) % 2 == 0 then -- no sticky bit
    names, message = nil, ("%s: others may write into it, so nothing there is loaded: chmod o-w"):format(directory.path)
  end
  local kept = {}
  for _, name in ipairs(names or {}) do
    if name:match("%.lua$") and not name:match("%.test%.lua$") then -- those are tests of the file beside
      if #kept == MOST_FILES then
        message = ("%s: more than %d files, so %s and what follows it are not loaded"):format(directory.path,
          MOST_FILES, name)
        break
      end
      kept[#kept + 1] = name
    end
  end
  message = message and message:gsub("^%u+: ", "")
  if message and self.complaints[directory.path] ~= message then
    self.log("error", ("%ss: %s"):format(self.what, message))
  end
  self.complaints[directory.path] = message
  return kept
end

--- From the next look on there is a file of this name with this text, behind those of all directories; or there is
-- none any more, where `text` is nil.
-- @return its text before
function script_files:give(name, text)
  local before = self.given[name]
  self.given[name] = text
  return before
end

local function look_at_given(self, seen, changed)
  for name, text in pairs(self.given) do
    seen[name] = true
    local entry = self.by_path[name] or { path = name, shipped = false, order = #self.directories + 1 }
    self.by_path[name] = entry
    if entry.text ~= text then
      entry.text = text
      changed[#changed + 1] = entry
    end
  end
end

--- Looks at the directories again.
-- @bool final files that are not there are gone. Else they are given a second look first, as some editors put a new
--   file in the place of the old in two steps
-- @treturn table `changed`: the entries with another text, or none any more that can be read; `gone`: those without a
--   file; `unsettled`: look again soon
function script_files:look(final)
  local found, seen = { changed = {}, gone = {}, unsettled = false }, {}
  for order, directory in ipairs(self.directories) do
    for _, name in ipairs(names_in(self, directory)) do
      local path = directory.path .. "/" .. name
      seen[path] = true
      local entry = self.by_path[path] or { path = path, shipped = directory.shipped or false }
      self.by_path[path] = entry
      entry.order, entry.missing = order, nil
      if look_at(self, entry) then found.changed[#found.changed + 1] = entry end
    end
  end
  look_at_given(self, seen, found.changed)
  for path, entry in pairs(self.by_path) do
    if not seen[path] then
      if final or entry.missing then
        self.by_path[path] = nil
        found.gone[#found.gone + 1] = entry
      else
        entry.missing, found.unsettled = true, true
      end
    end
  end
  return found
end

--- All entries of which there is something to say, in the order of directories and names: not those of new files that
-- were neither adopted nor rejected yet.
function script_files:entries()
  local list = {}
  for _, entry in pairs(self.by_path) do
    if entry.loaded or entry.error then list[#list + 1] = entry end
  end
  table.sort(list, function(a, b)
    if a.order ~= b.order then return a.order < b.order end
    return a.path < b.path
  end)
  return list
end

return script_files
