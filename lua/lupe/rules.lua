--- The registry of rules: which files there are, what is wrong with which, and which one an id stands for.
-- Directories come in order, later ones shadow earlier ones by id. A broken file is an entry with an error:
-- the others are in force all the same, and where the file held a working rule before, that one stays.
--
-- Entries are those of lupe.script_files, with `rule`: what is known of the version in force, at least `id`, `kind`,
-- `title` and where it has them `version`, `needs`, `params`. lupe.live_scripts has new texts tried in the worker
-- process before it says `adopt`.
-- @module lupe.rules

local script_files = require("lupe.script_files")

local rules = {}
rules.__index = rules

--- @tparam {table,...} directories { path, shipped } each; one that is missing is a complaint
-- @tparam function log function(level, message)
function rules.new(directories, log)
  local files = script_files.new(directories, "rule", log)
  return setmetatable({
    files = files, by_path = files.by_path, complaints = files.complaints, active = {}, revision = 0, log = log,
  }, rules)
end

--- What changed since the last look: see lupe.script_files. Nothing of it is in force before `adopt` and `settle`.
function rules:look(final) return self.files:look(final) end

--- This text is in force, as `loaded`.
-- @bool untried it never ran: `proved` or `fall_back` is to be called after it did
function rules.adopt(_, entry, loaded, text, now_ms, untried)
  local before = { rule = entry.rule, source = entry.source, loaded_ms = entry.loaded_ms }
  script_files.adopt(entry, loaded, text, now_ms)
  entry.rule, entry.before = loaded, untried and before or nil
end

--- See lupe.script_files:reject.
function rules:reject(entry, message) self.files:reject(entry, message) end

--- It ran, and answered.
function rules.proved(_, entry) entry.before = nil end

--- Its first run failed: the version before it is in force again.
-- @return false where there is none
function rules:fall_back(entry, message)
  local before = entry.before
  entry.before = nil
  if not before or not before.rule then return false end
  entry.rule, entry.loaded, entry.source, entry.loaded_ms = before.rule, before.rule, before.source, before.loaded_ms
  self:reject(entry, message)
  self:settle()
  return true
end

function rules:entries() return self.files:entries() end

--- Which file each id stands for, after something changed.
function rules:settle()
  self.revision = self.revision + 1
  self.active = {}
  for _, entry in ipairs(self:entries()) do
    entry.shadowed_by = nil
    local clash
    if entry.rule then
      local other = self.active[entry.rule.id]
      if other and other.order == entry.order and not other.missing then
        -- One whose file is missing has another name by now, or is about to be gone.
        clash = not entry.missing
          and ("%s: field 'id': '%s' is also the id of %s"):format(entry.path, entry.rule.id, other.path) or nil
        entry.shadowed_by = other.path
      else
        if other then other.shadowed_by = entry.path end
        self.active[entry.rule.id] = entry
      end
    end
    if clash and clash ~= entry.clash then self.log("error", "rule " .. clash) end
    entry.clash = clash
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
