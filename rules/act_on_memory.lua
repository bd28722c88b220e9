--- What to do by itself when memory comes near its limits: keep a heap snapshot for whoever will ask why, and
-- have jemalloc give back what it holds and nobody uses.
-- Each is done only where the operator allowed it by name (--actions), and not again within its cooldown.
local LIMITS = { ["alert.memory-threshold"] = true, ["alert.cgroup-limit"] = true }
local URGENT = { critical = true }

local function most_urgent(findings)
  local most
  for _, finding in ipairs(findings) do
    if LIMITS[finding.rule] and (not most or URGENT[finding.severity] and not URGENT[most.severity]) then
      most = finding
    end
  end
  return most
end

return {
  api = 1,
  id = "action.memory",
  kind = "action",
  title = "What to do when memory comes near its limits",
  version = "1",
  needs = { "findings", "allocator" },
  params = {
    snapshot = { default = true, doc = "take a heap snapshot when a limit is passed or near" },
    snapshot_every = { default = 3600, min = 1, max = 86400, unit = "s", doc = "between two of them" },
    purge = { default = true, doc = "give unused pages back when it is critical" },
    min_unused = { default = 16, min = 0, unit = "MiB", doc = "less than this is not worth it" },
    decay_ms = { default = 1000, min = 0, max = 86400000, unit = "ms", doc = "dirty_decay_ms from then on" },
  },
  check = function(view, params)
    local alert, a, found = most_urgent(view.findings), view.allocator, {}
    if not alert then return found end
    local function ask(summary, action)
      found[#found + 1] = { severity = alert.severity, summary = summary .. ": " .. alert.summary, action = action }
    end
    if params.snapshot then
      ask("keep what the heap looks like", {
        name = "snapshot", reason = alert.summary, cooldown_secs = params.snapshot_every,
      })
    end
    if not URGENT[alert.severity] or not a then return found end
    local unused = (a.dirty_bytes or 0) + (a.muzzy_bytes or 0)
    if params.purge and unused >= params.min_unused * 2 ^ 20 then
      ask(("give %s of unused pages back"):format(words.bytes(unused)), { name = "purge" })
    end
    local decay_ms = a.dirty_decay_ms
    if decay_ms and (decay_ms < 0 or decay_ms > params.decay_ms) then
      ask(("keep unused pages for %d ms in place of %d"):format(params.decay_ms, decay_ms), {
        name = "decay", dirty_ms = params.decay_ms,
      })
    end
    return found
  end,
}
