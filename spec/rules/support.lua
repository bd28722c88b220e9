--- What the specs of rules share: shipped rules by file name, histories, and programs made of them.
-- Histories carry the sampling error that a real profile has: sizes become counts of samples.
require("spec.support")
local rule = require("lupe.rule")
local sandbox = require("lupe.sandbox")
local support = require("spec.support")
local view = require("lupe.view")

local M = { MIB = 2 ^ 20, PERIOD = 524288 }

--- Runs a shipped rule.
-- @param file such as "steady_growth"
-- @param described a literal view (lupe.view_literal) or a view
function M.run(file, described, params)
  local path = "rules/" .. file .. ".lua"
  local source = assert(support.read_file(support.root .. "/" .. path))
  local loaded = assert(rule.load(path, source, sandbox.new(function() end)))
  local seen = described.heap and described or view.from_table(described)
  return rule.run(path, loaded, seen, params)
end

--- A literal program that was profiled each second from its start on.
function M.program(sites, more)
  local described = { sites = sites, sample_period_bytes = M.PERIOD }
  for name, value in pairs(more or {}) do described[name] = value end
  return described
end

--- size(t) for t = 1..ticks, exactly.
function M.history(ticks, size)
  local list = {}
  for t = 1, ticks do list[t] = math.max(0, size(t)) end
  return list
end

--- Random numbers that are the same on every machine (Lehmer's generator).
local function generator(seed)
  local state = seed
  return function()
    state = state * 48271 % 2147483647
    return state / 2147483647
  end
end

--- How many samples, where `mean` are expected (Knuth; large means by a normal approximation).
local function poisson(random, mean)
  if mean > 30 then
    local normal = math.sqrt(-2 * math.log(random())) * math.cos(2 * math.pi * random())
    return math.max(0, math.floor(mean + math.sqrt(mean) * normal + 0.5))
  end
  local limit, product, count = math.exp(-mean), random(), 0
  while product > limit do
    product, count = product * random(), count + 1
  end
  return count
end

--- As a profile sees bytes that stay once they are allocated: what is added is sampled once.
function M.sampled(ticks, size, seed)
  local random, list, count, before = generator(seed or 1), {}, 0, 0
  for t = 1, ticks do
    local now = math.max(0, size(t))
    if now > before then
      count = count + poisson(random, (now - before) / M.PERIOD)
    elseif now < before then
      count = math.floor(count * now / before)
    end
    list[t], before = count * M.PERIOD, now
  end
  return list
end

--- As a profile sees bytes that are freed and allocated anew between any two profiles.
function M.churning(ticks, size, seed)
  local random, list = generator(seed or 1), {}
  for t = 1, ticks do list[t] = poisson(random, size(t) / M.PERIOD) * M.PERIOD end
  return list
end

--- The finding about a site, or nil.
function M.about(answer, name)
  for _, finding in ipairs(answer.findings) do
    if finding.site and finding.site.name == name then return finding end
  end
end

--- How often `history(seed)` gets each verdict in 200 tries ("none": not told).
function M.verdicts(file, history)
  local sites, counts, tries = {}, { none = 0 }, 200
  for seed = 1, tries do sites[seed] = { name = "site" .. seed, history = history(seed) } end
  local answer = M.run(file, M.program(sites), { most_sites = tries, most_observed = tries })
  counts.none = tries - #answer.findings
  for _, finding in ipairs(answer.findings) do counts[finding.verdict] = (counts[finding.verdict] or 0) + 1 end
  counts.accused = (counts.leak or 0) + (counts.growing or 0)
  return counts
end

return M
