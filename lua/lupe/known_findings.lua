--- What the checks of a run found, with first and last time.
-- @module lupe.known_findings

local bit = require("bit")

local json = require("lupe.json")

local known_findings = {}
known_findings.__index = known_findings

local MOST = 500

--- What makes two findings the same one: their rule, and the function they speak of, or else their words; and what
-- they ask for.
function known_findings.key(finding)
  local place = finding.site or finding.hotspot
  return table.concat({
    finding.rule, place and place.module or "", place and place.name or finding.summary,
    finding.action and finding.action.name,
  }, "\0")
end

local key_of = known_findings.key

--- A short name for a key, the same in every run: its FNV-1a hash.
local function id_of(key)
  local hash = 0xcbf29ce484222325ULL
  for i = 1, #key do hash = bit.bxor(hash, key:byte(i)) * 0x100000001b3ULL end
  return bit.tohex(hash)
end

--- @param now_ms function() that gives Unix time
function known_findings.new(now_ms)
  return setmetatable({
    now_ms = now_ms,
    entries = {}, -- key -> { finding, first_ms, last_ms, times }
    current = {}, -- set of keys: those of the newest check
  }, known_findings)
end

--- Takes the findings of one check; past 500 those go that were there longest ago.
-- @tparam table ... lists of them
function known_findings:add(...)
  local now, keys, entries = self.now_ms(), {}, self.entries
  self.current = {}
  for _, findings in ipairs({ ... }) do
    for _, finding in ipairs(findings) do
      local key = key_of(finding)
      local known = entries[key] or { first_ms = now, times = 0 }
      known.finding, known.last_ms, known.times = finding, now, known.times + 1
      entries[key], self.current[key] = known, true
    end
  end
  for key in pairs(entries) do keys[#keys + 1] = key end
  if #keys <= MOST then return end
  table.sort(keys, function(a, b)
    local at, bt = entries[a].last_ms, entries[b].last_ms
    if at ~= bt then return at > bt end
    return a < b
  end)
  for i = MOST + 1, #keys do entries[keys[i]] = nil end
end

--- @return array of { id, finding, first_ms, last_ms, times, current }, newest first; `id`: the same for the same
--   finding in every run; `current`: the newest check found it too
function known_findings:list()
  local list = json.array()
  for key, known in pairs(self.entries) do
    list[#list + 1] = {
      id = id_of(key), finding = known.finding, first_ms = known.first_ms, last_ms = known.last_ms, times = known.times,
      current = self.current[key] or false,
    }
  end
  table.sort(list, function(a, b)
    if a.last_ms ~= b.last_ms then return a.last_ms > b.last_ms end
    return key_of(a.finding) < key_of(b.finding)
  end)
  return list
end

return known_findings
