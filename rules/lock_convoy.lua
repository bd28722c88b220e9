--- Several threads wait for the same lock at once, and it goes from hand to hand: each passing costs a switch of
-- threads, which takes longer than what the lock protects.
local function switches_of(profile)
  local switches, seconds = 0, 0
  for _, thread in ipairs(profile:threads()) do
    if thread.lock_ns > 0 and thread.switches then
      switches = switches + thread.switches
      seconds = math.max(seconds, thread.seconds_seen)
    end
  end
  return switches / math.max(1, seconds), math.max(1, seconds)
end

return {
  api = 1,
  id = "pattern.lock-convoy",
  kind = "pattern",
  title = "Threads queue for one lock",
  version = "1",
  needs = { "wall" },
  params = {
    min_threads = { default = 3, min = 2, doc = "that wait in one function" },
    min_waiting = { default = 1.5, min = 0, unit = "threads", doc = "that wait there on average" },
    min_switches = { default = 500, min = 0, unit = "1/s", doc = "of threads that wait for locks, together" },
    min_samples = { default = 200, min = 1, doc = "looks at threads: 10 s of one at 20 a second" },
    most_findings = { default = 3, min = 1, doc = "functions, longest waits first" },
  },
  check = function(view, params)
    local profile, findings = view.profile, {}
    local lack = profile:lacks(params.min_samples, "wall")
    if lack then return {}, lack end
    if profile.lock_ns == 0 then return {} end
    local switches, seconds = switches_of(profile)
    for f in profile:functions { by = "lock_ns", limit = params.most_findings } do
      local waiting = f.lock_ns / 1e9 / seconds
      if f.lock_threads >= params.min_threads and waiting >= params.min_waiting and switches >= params.min_switches then
        findings[#findings + 1] = {
          hotspot = f, score = waiting, verdict = "info", severity = "high",
          summary = ("%s: %d threads queue for one lock, %.1f at a time, with %s switches of threads a second"):format(
            f.name, f.lock_threads, waiting, words.count(switches)),
          evidence = {
            threads = f.lock_threads, waiting_threads = waiting, switches_per_second = switches,
            lock_seconds = f.lock_ns / 1e9,
          },
          advice = {
            ("Take the lock of %s less often: collect work and take it once for many, or one lock per part"):format(
              f.name),
          },
        }
      end
    end
    return findings
  end,
}
