--- What all shipped rules take, in the worker process, over a heap of many call sites with a full history.
local ffi = require("ffi")
local files = require("lupe.ffi")
local harness = require("bench.harness")
local snapshots = require("spec.support_snapshot")
local support = require("spec.support")
local view_literal = require("lupe.view_literal")
local worker_process = require("spec.core.script.worker_process")

local SIZES = { { sites = 10000, asked_ms = 60 }, { sites = 50000, asked_ms = 300 } }
local TICKS, ROUNDS, ASKED_MB = 60, 7, 64
local PERIOD = 65536

--- Sites as a large program has them: most stand or churn, some fill up, one in a hundred grows to the end.
local function program(sites)
  local seed, list = 42, {}
  local function random()
    seed = seed * 48271 % 2147483647
    return seed / 2147483647
  end
  for i = 1, sites do
    local kind, level, history = random(), PERIOD * 2 ^ (6 * random()), {}
    for t = 1, TICKS do
      local size
      if kind < 0.6 then
        size = level * (0.8 + 0.4 * random())
      elseif kind < 0.9 then
        size = level
      elseif kind < 0.99 then
        size = level * (1 - math.exp(-t / 12))
      else
        size = level * t / 10
      end
      history[t] = PERIOD * math.floor(size / PERIOD + random())
    end
    list[i] = { name = "allocate_" .. i, history = history, objects = history, alloc_space = 3 * level,
      stack = { "allocate_" .. i, "handle_" .. i % 97, "main" } }
  end
  return { sites = list, sample_period_bytes = PERIOD }
end

local function rules_of(worker)
  local list = {}
  for i, name in ipairs(assert(files.list(support.root .. "/rules"))) do
    local path = support.root .. "/rules/" .. name
    list[i] = { path = path, source = assert(support.read_file(path)) }
  end
  local _, reply = worker:call({ op = "load", rules = list }, nil, 5000)
  return reply.rules
end

--- Its own pages and the peak of all, the snapshot's included, which it shares with the runtime.
local function memory_mb(pid)
  local status = support.read_file(("/proc/%d/status"):format(pid))
  local function mb(name) return tonumber(status:match(name .. ":%s+(%d+)")) / 1024 end
  return mb("RssAnon"), mb("VmHWM")
end

local function measure(size)
  local address, bytes, owner = view_literal(program(harness.scaled(size.sites)))
  local fd = snapshots.memfd(ffi.string(address, bytes))
  assert(owner)
  local worker = worker_process.start({ support.built("lupe"), "worker" })
  local rules = rules_of(worker)
  local pid = worker.core.lupe_worker_pid(worker.handle)
  local totals, slowest, own, peak = {}, {}, 0, 0
  for round = 1, ROUNDS do
    local sum, findings = 0, {}
    worker:call({ op = "snapshot" }, fd)
    for _, last in ipairs({ false, true }) do
      for _, rule in ipairs(rules) do
        if (rule.kind == "recommendation" or rule.kind == "action") == last then
          local _, reply = worker:call({ op = "check", id = rule.id, findings = last and findings or nil })
          if not reply.ok then error(rule.id .. ": " .. reply.error) end
          local anonymous, highest = memory_mb(pid)
          own, peak = math.max(own, anonymous), math.max(peak, highest)
          sum = sum + reply.elapsed_us / 1000
          slowest[rule.id] = math.max(slowest[rule.id] or 0, reply.elapsed_us / 1000)
          for _, finding in ipairs(reply.findings) do
            finding.rule, finding.kind = rule.id, rule.kind
            findings[#findings + 1] = finding
          end
        end
      end
    end
    totals[round] = sum
  end
  worker:stop()
  snapshots.close(fd)
  return harness.median(totals), own, {
    totals_ms = totals, slowest_ms = slowest, snapshot_mb = tonumber(bytes) / harness.MIB,
    peak_with_snapshot_mb = peak,
  }
end

return {
  title = "all shipped rules over many call sites, 60 profiles each",
  run = function()
    local rows, details = {}, {}
    for _, size in ipairs(SIZES) do
      local ms, own, detail = measure(size)
      rows[#rows + 1] = harness.row(("%d sites: all rules"):format(size.sites), ms, "<=", size.asked_ms, "ms")
      rows[#rows + 1] = harness.row(("%d sites: the worker's own memory"):format(size.sites), own, "<=", ASKED_MB,
        "MiB")
      details[tostring(size.sites)] = detail
    end
    return rows, details
  end,
}
