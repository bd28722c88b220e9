--- What clients of redis feel while leak proofs are made, one after the other: copying what it writes meanwhile.
local harness = require("bench.harness")
local tasks = require("bench.proof.tasks")
local support = require("spec.support")

local ROUNDS, SECONDS, DATA_MIB, ASKED = 6, 4, 200, 1.5
local FLAGS = { "--rate-leak", "0" }

local function prove(redis)
  local answer, reason = support.http(redis.lupe.port, "/api/profiling/leak-detection?proof=true",
    { method = "POST", seconds = 60 })
  if not answer then error("leak-detection: " .. reason) end
  local proof = answer.json().proof
  if type(proof) ~= "table" or proof.status ~= "complete" then error("leak-detection: " .. answer.body:sub(1, 500)) end
  return proof
end

-- The proofs follow each other until the clients are through; the last may end a little later than they do.
local function load(redis, rate, seconds, proving)
  local clients = support.spawn({ harness.program("redis_load"), redis.port, 8, rate, seconds })
  local proofs = 0
  while proving and clients:alive() do
    prove(redis)
    proofs = proofs + 1
  end
  tasks.wait(function() return not clients:alive() end, seconds + 30, "the clients to end")
  if clients.code ~= 0 then error("redis_load: " .. clients:stderr()) end
  local result = support.json.decode(clients:stdout())
  result.proofs = proofs
  return result
end

return function()
  local redis = harness.start_redis(FLAGS)
  redis:fill(harness.scaled(DATA_MIB, 20) * harness.MIB)
  redis.lupe:await_profile()
  local seconds = math.max(2, SECONDS * harness.scale)
  local rate = math.floor(redis:load(0, 2).requests_per_second / 2)
  local rounds, with, without = {}, {}, {}
  for i = 1, harness.scaled(ROUNDS, 2) do
    local first = i % 2 == 0
    local one, other = load(redis, rate, seconds, first), load(redis, rate, seconds, not first)
    local proved, bare = first and one or other, first and other or one
    rounds[i] = { proved = proved, without = bare }
    with[i], without[i] = proved.p99_us, bare.p99_us
  end
  redis:stop()
  local p99, bare = harness.median(with), harness.median(without)
  print(("  redis, %d requests per second: p99 %.0f us during proofs, %.0f us without (medians of %d)"):format(rate,
    p99, bare, #rounds))
  return { harness.row("redis p99 under load, during a proof / without", p99 / bare, "<=", ASKED) },
    { paced_per_s = rate, p99_us = p99, p99_without_us = bare, rounds = rounds }
end
