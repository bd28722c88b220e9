--- What the checks of a run found, with first and last time.
-- @module lupe.known_findings

local bit = require("bit")

local json = require("lupe.json")

local known_findings = {}
known_findings.__index = known_findings

local MOST = 500

local UNITS = {}
for unit in ("B bytes kB KiB MB MiB GB GiB TB TiB ns us ms s min h"):gmatch("%S+") do
  for _, per in ipairs({ "", "/s", "/min", "/h" }) do UNITS[unit .. per], UNITS[per] = true, true end
end

--- A sentence without its figures and their units, which differ from one check to the next. Digits in names stay.
local function without_figures(summary)
  local words, after_figure = {}, false
  for word in summary:gmatch("%S+") do
    local bare = word:gsub("^%p+", ""):gsub("%p+$", "")
    local is_figure = UNITS[bare:match("^%d[%d.,]*(.*)$")] or false
    if not is_figure and not (after_figure and UNITS[bare]) then words[#words + 1] = word end
    after_figure = is_figure
  end
  return table.concat(words, " ")
end

--- What makes two findings the same one: their rule, and the function they speak of, or else their words but for the
-- figures in them; and what they ask for.
-- @param finding as lupe.analysis has it, or with `component` and `module` in the place of its site
function known_findings.key(finding)
  local place = finding.site or finding.hotspot
  return table.concat({
    finding.rule, (place or finding).module or "",
    place and place.name or finding.component or without_figures(finding.summary),
    finding.action and finding.action.name,
  }, "\0")
end

--- Where several programs are watched, the same in another one is another finding.
local function with_target(key, finding)
  return finding.target and table.concat({ key, finding.target.name, finding.target.pid }, "\0") or key
end

--- The keys of what one check found, in order. Where several are the same but for their figures, they are told apart
-- by their order.
-- @param findings array
-- @tparam[opt] table counts of keys so far, where there are several arrays
function known_findings.keys(findings, counts)
  local keys = {}
  counts = counts or {}
  for i, finding in ipairs(findings) do
    local key = known_findings.key(finding)
    counts[key] = (counts[key] or 0) + 1
    keys[i] = counts[key] == 1 and key or ("%s\0%d"):format(key, counts[key])
  end
  return keys
end

--- A short name for a key, the same in every run: its FNV-1a hash.
local function id_of(key)
  local hash = 0xcbf29ce484222325ULL
  for i = 1, #key do hash = bit.bxor(hash, key:byte(i)) * 0x100000001b3ULL end
  return bit.tohex(hash)
end

--- As an entry of `list`, of a finding that no check of the whole run found.
function known_findings.alone(finding, now_ms)
  return {
    id = id_of(known_findings.key(finding)), finding = finding, first_ms = now_ms, last_ms = now_ms, times = 1,
    current = true,
  }
end

--- @param now_ms function() that gives Unix time
function known_findings.new(now_ms)
  return setmetatable({
    now_ms = now_ms,
    entries = {}, -- key -> { finding, first_ms, last_ms, times, id_key }
    current = {}, -- program, or "" where there is one only -> set of keys: those of its newest check
  }, known_findings)
end

local function newest_first(entries)
  local keys = {}
  for key in pairs(entries) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    local at, bt = entries[a].last_ms, entries[b].last_ms
    if at ~= bt then return at > bt end
    return a < b
  end)
  return keys
end

--- Takes the findings of one check; past 500 those go that were there longest ago.
-- @tparam ?string program whose, where several are watched; the findings have a `target` then
-- @tparam table ... lists of them
function known_findings:add(program, ...)
  local now, entries, counts = self.now_ms(), self.entries, {}
  local current = {}
  self.current[program or ""] = current
  for _, findings in ipairs({ ... }) do
    local keys = known_findings.keys(findings, counts)
    for i, finding in ipairs(findings) do
      local key = with_target(keys[i], finding)
      local known = entries[key] or { first_ms = now, times = 0 }
      known.finding, known.last_ms, known.times = finding, now, known.times + 1
      -- The same finding has the same id, whatever number the process has this time.
      known.id_key = finding.target and keys[i] .. "\0" .. finding.target.name or keys[i]
      entries[key], current[key] = known, true
    end
  end
  local keys = newest_first(entries)
  for i = MOST + 1, #keys do entries[keys[i]] = nil end
end

--- Nothing is found in a program any more: it has ended. What was found stays known.
function known_findings:ended(program) self.current[program] = nil end

--- Whether the newest check of a program has found something.
function known_findings:has(program) return next(self.current[program] or {}) ~= nil end

--- @return array of { id, finding, first_ms, last_ms, times, current }, newest first; `id`: the same for the same
--   finding in every run; `current`: the newest check found it too
function known_findings:list()
  local list, now_found = json.array(), {}
  for _, keys in pairs(self.current) do
    for key in pairs(keys) do now_found[key] = true end
  end
  for i, key in ipairs(newest_first(self.entries)) do
    local known = self.entries[key]
    list[i] = {
      id = id_of(known.id_key), finding = known.finding, first_ms = known.first_ms, last_ms = known.last_ms,
      times = known.times, current = now_found[key] or false,
    }
  end
  return list
end

return known_findings
