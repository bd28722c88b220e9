--- The control group that the program lives in is about to be full: then the kernel ends it.
-- Counted is what the kernel can't take back: file pages that nobody has used lately are left out. How long it will
-- last is told from the growth of resident memory.
local MIB = 2 ^ 20

local function severity_of(share, left, params)
  if share >= params.very_near then return "critical" end
  if share >= params.near then return "high" end
  if left and left < params.min_left and share >= params.from then return "high" end
end

return {
  api = 1,
  id = "alert.cgroup-limit",
  kind = "alert",
  title = "The control group's memory limit is near",
  version = "1",
  needs = { "memory" },
  params = {
    near = { default = 0.85, min = 0, max = 1, doc = "share of the limit from which it is near" },
    very_near = { default = 0.95, min = 0, max = 1, doc = "share from which it is critical" },
    from = { default = 0.5, min = 0, max = 1, doc = "share below which growth alone is no alert" },
    min_left = { default = 600, min = 0, unit = "s", doc = "less time than this until it is full is an alert" },
    window = { default = 120, min = 10, unit = "s", doc = "of the growth that this is told from" },
  },
  check = function(view, params)
    local cgroup, latest = view.cgroup, view.memory.latest
    if not cgroup or not cgroup.limit_bytes or not latest then return {} end
    local limit, used = cgroup.limit_bytes, cgroup.used_bytes - (cgroup.reclaimable_bytes or 0)
    local slope = view.memory:slope("rss_bytes", params.window)
    local left = slope and slope > 0 and (limit - used) / slope or nil
    local severity = severity_of(used / limit, left, params)
    if not severity then return {} end
    local until_full = left and ("; at the present growth of %s/s it is full in %s"):format(words.bytes(slope),
      words.duration(1000 * math.max(0, left))) or ""
    return {
      {
        score = used / limit, verdict = "info", severity = severity,
        summary = ("The control group uses %s of its limit of %s (%.0f %%)%s"):format(words.bytes(used),
          words.bytes(limit), 100 * used / limit, until_full),
        evidence = {
          used_mib = used / MIB, limit_mib = limit / MIB, rss_mib = latest.rss_bytes / MIB,
          mib_per_second = slope and slope / MIB, seconds_left = left,
        },
      },
    }
  end,
}
