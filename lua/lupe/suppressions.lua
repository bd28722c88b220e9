--- Findings that the operator knows of and does not want to be told for now: by site or rule, with a reason, and until
-- a day. From `suppressions` in lupe.conf.lua:
--
--     suppressions = {
--       { site = "cache_page", rule = "leak.*", reason = "bounded by max_pages", until_date = "2027-01-31" },
--     }
--
-- `site` is the function's name as findings have it (`component`), `module` its file's, `rule` an id; each may have `*`
-- for any text, and all that are given must match. The day is the last one, in UTC: what was put aside for good would
-- be forgotten, so an end is not optional.
-- @module lupe.suppressions

local expect = require("lupe.expect")
local glob = require("lupe.glob")

local suppressions = {}
suppressions.__index = suppressions

local FIELDS = { "site", "rule", "module", "reason", "until_date" }
local MOST = 1000
local LONGEST_NAME = 1024
local DAY_MS = 86400000

--- Unix ms at which a day that is written YYYY-MM-DD ends; nil where there is no such day.
local function end_of_day(text)
  local year, month, day = text:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)$")
  if not year then return nil end
  year, month, day = tonumber(year), tonumber(month), tonumber(day)
  local leap = year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
  local lengths = { 31, leap and 29 or 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }
  if year < 1970 or not lengths[month] or day < 1 or day > lengths[month] then return nil end
  local days = 365 * (year - 1970) + math.floor((year - 1969) / 4) - math.floor((year - 1901) / 100)
    + math.floor((year - 1601) / 400) + day
  for i = 1, month - 1 do days = days + lengths[i] end
  return days * DAY_MS
end

local function check_one(where, given)
  if type(given) ~= "table" then
    error(("%s: expected a table, got %s"):format(where, expect.got(given)), 0)
  end
  expect.known(where, "", given, FIELDS)
  for _, field in ipairs({ "site", "rule", "module" }) do
    if given[field] ~= nil then
      expect.text(where, field, given[field], LONGEST_NAME)
      if given[field] == "" then expect.fail(where, field, "a name", "an empty text") end
    end
  end
  if not given.site and not given.rule then
    error(("%s: expected a site or a rule, got neither"):format(where), 0)
  end
  expect.text(where, "reason", given.reason)
  if not given.reason:find("%S") then expect.fail(where, "reason", "a reason", "an empty text") end
  expect.kind(where, "until_date", given.until_date, "string")
  local until_ms = end_of_day(given.until_date)
  if not until_ms then
    expect.fail(where, "until_date", "a day such as 2027-01-31", expect.shown(given.until_date))
  end
  return {
    site = given.site, rule = given.rule, module = given.module, reason = given.reason,
    until_date = given.until_date, until_ms = until_ms,
  }
end

--- Checks the setting.
-- @string where the setting, as messages call it
-- @param given an array of { site, rule, module, reason, until_date }
-- @return the same, checked, with `until_ms`; or nil and a message
function suppressions.check(where, given)
  local ok, result = pcall(function()
    if type(given) ~= "table" then
      error(("%s: expected an array of suppressions, got %s"):format(where, expect.got(given)), 0)
    end
    local count = 0
    for _ in pairs(given) do count = count + 1 end
    if count ~= #given then
      error(("%s: expected an array of suppressions, each in braces of its own, got a table with other keys")
        :format(where), 0)
    end
    if count > MOST then error(("%s: expected at most %d, got %d"):format(where, MOST, count), 0) end
    local list = {}
    for i, one in ipairs(given) do list[i] = check_one(("%s[%d]"):format(where, i), one) end
    return list
  end)
  if not ok then return nil, result end
  return result
end

--- @param list as `check` gives it
-- @param now_ms function() that gives Unix time
-- @tparam function log function(level, message)
function suppressions.new(list, now_ms, log)
  return setmetatable({ list = list or {}, now_ms = now_ms, log = log, told = {} }, suppressions)
end

local function matches(one, finding)
  local place = finding.site or finding.hotspot or {}
  return (not one.site or finding.component ~= nil and glob(one.site, finding.component))
    and (not one.rule or glob(one.rule, finding.rule))
    and (not one.module or place.module ~= nil and glob(one.module, place.module))
end

--- Marks a finding that is not to be told: `finding.suppressed` = { reason, until_date }.
-- @param finding as lupe.analysis has them: with `rule` and `component`
-- @return whether it is one
function suppressions:mark(finding)
  local now = self.now_ms()
  for _, one in ipairs(self.list) do
    if now < one.until_ms and matches(one, finding) then
      finding.suppressed = { reason = one.reason, until_date = one.until_date }
      return true
    end
  end
  return false
end

--- Whether one has ended that was not logged yet.
function suppressions:due()
  local now = self.now_ms()
  for i, one in ipairs(self.list) do
    if now >= one.until_ms and not self.told[i] then return true end
  end
  return false
end

--- The suppressions whose day is over: array of texts. Each is logged once.
function suppressions:expired()
  local texts, now = {}, self.now_ms()
  for i, one in ipairs(self.list) do
    if now >= one.until_ms then
      local of = {}
      for _, field in ipairs({ "site", "rule", "module" }) do
        if one[field] then of[#of + 1] = ("%s '%s'"):format(field, one[field]) end
      end
      local text = ("suppressions[%d]: that of %s ended with %s, so it is told again; the reason was: %s"):format(i,
        table.concat(of, ", "), one.until_date, one.reason)
      if not self.told[i] then self.log("warning", text) end
      self.told[i] = true
      texts[#texts + 1] = text
    end
  end
  return texts
end

return suppressions
