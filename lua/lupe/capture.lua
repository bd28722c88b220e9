--- Which samples are taken: what the operator asked for by name, else what some rule in force needs.
-- A rate that was given (flag, environment, file) stays as it is. One at its default is used while a rule that is
-- active needs "cpu" or "wall", and is 0 otherwise; "threads" counts as "wall", which sees those that only
-- wait. What a file that is broken needs is not known, so it may be both.
-- An action may set another rate; that stays.
--
-- Heap profiles and jemalloc's figures are not switched: series, routes and metrics live on them.
-- @module lupe.capture

local capture = {}
capture.__index = capture

local KINDS = { "cpu", "wall" }
local FLAGS = { cpu = "--cpu-hz", wall = "--wall-hz" }

--- @param host the host; of its config `cpu_hz`, `wall_hz` and their `sources`
-- @tparam function rules that gives what lupe.analysis' `rules` does, or nil before their files were looked at
function capture.new(host, rules)
  local self = setmetatable({ host = host, rules = rules, chosen = {}, rates = {}, off_because = {} }, capture)
  self:update()
  return self
end

--- "cpu" and "wall" -> whether a rule that is active needs it, or may need it.
local function needed(rules)
  local found = { cpu = not rules, wall = not rules }
  for _, rule in ipairs(rules or {}) do
    local needs = rule.state == "active" and rule.needs or rule.state == "broken" and KINDS or {}
    for _, need in ipairs(needs) do found[need == "threads" and "wall" or need] = true end
  end
  return found
end

local function given(config, name) return config.sources[name] ~= "default" end

--- Looks at the rules again, and tells the agents where a rate is another one now.
function capture:update()
  local config, need, before, because = self.host.config, needed(self.rules()), self.rates, {}
  local rates = {}
  for _, kind in ipairs(KINDS) do
    local name = kind .. "_hz"
    local wanted = self.chosen[name] or config[name]
    local asked = self.chosen[name] ~= nil or given(config, name)
    rates[name] = (asked or need[kind]) and wanted or 0
    if rates[name] == 0 and wanted > 0 then
      because[kind] = ("no rule needs it; %s %d has it all the same"):format(FLAGS[kind], wanted)
    elseif rates[name] == 0 then
      because[kind] = self.chosen[name] and "an action of a rule has switched it off"
        or FLAGS[kind] .. " 0 has switched it off"
    end
  end
  self.off_because = because
  if rates.cpu_hz == before.cpu_hz and rates.wall_hz == before.wall_hz then return end
  self.rates = rates
  self.host.set_rates(rates.cpu_hz, rates.wall_hz)
  for _, kind in ipairs(KINDS) do
    local name = kind .. "_hz"
    if before[name] and rates[name] ~= before[name] then
      self.host.log("info", ("%s samples: %d a second%s"):format(kind, rates[name],
        because[kind] and ", since " .. because[kind] or ""))
    end
  end
end

--- Rates that hold from now on, whatever rules need.
-- @tparam table rates `cpu_hz`, `wall_hz`; nil: as it was
function capture:choose(rates)
  for _, kind in ipairs(KINDS) do
    local name = kind .. "_hz"
    if rates[name] then self.chosen[name] = rates[name] end
  end
  self:update()
end

return capture
