--- How soon rules that run away are stopped, and how soon routes answer meanwhile.
local bad_rules = require("spec.core.script.bad_rules")
local harness = require("bench.harness")
local support = require("spec.support")
local view_literal = require("lupe.view_literal")
local worker_process = require("spec.core.script.worker_process")

local DEADLINE_MS = 500 -- as lupe sets it
local ASKED_MS, ASKED_HEALTH_MS = 100, 100
local ROUNDS = 3 -- then they are quarantined
local GOOD = [[return { api = 1, id = "%s", kind = "pattern", title = "good",
  check = function() return { { summary = "%s was here" } } end }]]

--- One rule, in a worker of its own, under the limits that it has in lupe; where a deadline is to stop it, without that
-- of instructions.
-- @return milliseconds past the limit that stopped it, and what did; nil where it ended by an error of its own
local function past_limit(given, snapshot)
  local worker = worker_process.start()
  worker:call({ op = "load", rules = {} })
  worker:call({ op = "snapshot" }, snapshot)
  local loading = support.now()
  local outcome, reply = worker:call({ op = "load", rules = { { path = given.path, source = given.source } } }, -1,
    DEADLINE_MS)
  local began = loading
  if outcome == "replied" and reply.rules[1].ok then
    local instructions = given.kind == "deadline" and 1e15 or nil
    began = support.now()
    outcome, reply = worker:call({ op = "check", id = given.id, instructions = instructions }, -1, DEADLINE_MS)
  elseif outcome == "replied" then
    reply = reply.rules[1]
  end
  local took_ms = 1000 * (support.now() - began)
  worker:stop()
  if outcome == "deadline" then return took_ms - DEADLINE_MS, "its process was killed", took_ms end
  if outcome ~= "replied" then error(("%s: %s: %s"):format(given.name, outcome, tostring(reply))) end
  if reply.ok then error(given.name .. " was not stopped") end
  if reply.kind == "error" then return nil, reply.error, took_ms end
  if not reply.limit_us then return took_ms, reply.kind .. " while loaded", took_ms end -- of all of it
  local limit_ms = reply.kind == "deadline" and DEADLINE_MS or reply.limit_us / 1000
  return took_ms - limit_ms, reply.kind, took_ms
end

--- The slowest answer of /healthz while all of them run in lupe, beside the shipped rules and two good ones.
local function slowest_health()
  local folder = support.temp_dir()
  local function write(name, source) support.write_file(("%s/%s.lua"):format(folder, name), source) end
  for _, given in ipairs(bad_rules) do write("bad_" .. given.name, given.source) end
  for _, id in ipairs({ "a.first", "z.last" }) do write(id, GOOD:format(id, id)) end
  local lupe = harness.start_under_lupe({ harness.program("many_stacks"), 1000, 3600 },
    { "--sample-bytes", 4096, "--rate-leak", 0, "--rules", folder })
  lupe:await_profile()
  local url = ("http://127.0.0.1:%d/api/profiling/leak-detection"):format(lupe.port)
  local slowest_ms, answers = 0, 0
  for _ = 1, harness.scaled(ROUNDS) do
    local asking = support.spawn({ "curl", "-s", "-X", "POST", url })
    while asking:alive() do
      local began = support.now()
      lupe:get("/healthz")
      slowest_ms, answers = math.max(slowest_ms, 1000 * (support.now() - began)), answers + 1
      support.sleep(0.005)
    end
    local found = table.concat(support.json.decode(asking:stdout()).suspicious_patterns, ", ")
    for _, id in ipairs({ "a.first", "z.last" }) do
      if not found:find(id .. " was here", 1, true) then error("the finding of " .. id .. " is missing: " .. found) end
    end
  end
  lupe:stop()
  return slowest_ms, answers
end

return {
  title = "rules that run away: stopped how soon past their limit, and what others notice",
  run = function()
    local block, size = view_literal({ sample_period_bytes = 4096, sites = { { name = "f", inuse_space = 1000 } } })
    local snapshot = worker_process.memfd(block, tonumber(size))
    local details, worst_ms, worst, stopped = { rules = {} }, 0, "none", 0
    for _, given in ipairs(bad_rules) do
      local past_ms, by, took_ms = past_limit(given, snapshot)
      details.rules[given.name] = { past_limit_ms = past_ms, took_ms = took_ms, stopped_by = by }
      if past_ms then stopped = stopped + 1 end
      if past_ms and past_ms > worst_ms then worst_ms, worst = past_ms, given.name end
    end
    require("ffi").C.close(snapshot)
    local health_ms, answers = slowest_health()
    details.health_answers, details.worst = answers, worst
    return {
      harness.row(("the latest stop past its limit, of %d rules (%s)"):format(stopped, worst), worst_ms, "<=", ASKED_MS,
        "ms"),
      harness.row("slowest /healthz while all run", health_ms, "<=", ASKED_HEALTH_MS, "ms"),
    }, details
  end,
}
