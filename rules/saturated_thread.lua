--- One thread is on a core nearly all the time, and the other threads of its process are not: more cores won't help.
local function core_share(thread, seconds) return thread.cpu_ns / 1e9 / math.max(1, thread.seconds_seen or seconds) end

--- pid -> its threads, and the pids in the order of their busiest thread.
local function by_process(threads)
  local groups, order = {}, {}
  for _, thread in ipairs(threads) do
    if not groups[thread.pid] then
      groups[thread.pid], order[#order + 1] = {}, thread.pid
    end
    table.insert(groups[thread.pid], thread)
  end
  return groups, order
end

local function finding(thread, share, others, others_share)
  local f = thread:where("cpu")
  local name = thread.name ~= "" and thread.name or tostring(thread.tid)
  local place = f and (", most of it in " .. f.name) or ""
  return {
    hotspot = f, score = share, verdict = "info", severity = "medium",
    summary = ("Thread %s is on a core for %.0f %% of the time%s, while %s use%s %.0f %% of one%s"):format(name,
      100 * share, place, words.plural(others, "other thread"), others == 1 and "s" or "", 100 * others_share,
      others == 1 and "" or " on average"),
    evidence = {
      thread = name, tid = thread.tid, pid = thread.pid, core_share = share, other_threads = others,
      others_core_share = others_share,
    },
    advice = {
      ("Give part of what %s does to the other threads%s: alone it can't get faster than one core"):format(name,
        f and (", %s first"):format(f.name) or ""),
    },
  }
end

return {
  api = 1,
  id = "pattern.saturated-thread",
  kind = "pattern",
  title = "One thread is saturated while the others idle",
  version = "1",
  needs = { "cpu", "wall" },
  params = {
    min_core = { default = 0.9, min = 0, max = 1, unit = "cores", doc = "that the thread uses, at least" },
    max_others = { default = 0.25, min = 0, max = 1, unit = "cores", doc = "that the others use on average, at most" },
    min_others = { default = 1, min = 1, doc = "other threads; a program of one thread has no choice" },
    min_seconds = { default = 5, min = 1, unit = "s", doc = "that the thread was seen; a start-up is no pattern" },
    min_samples = { default = 200, min = 1, doc = "CPU samples; with 200 a core has a standard error of 7 %" },
  },
  check = function(view, params)
    local profile, findings = view.profile, {}
    local lack = profile:lacks(params.min_samples, "cpu")
    if lack then return {}, lack end
    local groups, order = by_process(profile:threads())
    for _, pid in ipairs(order) do
      local threads, others_ns, seconds = groups[pid], 0, profile.seconds
      local busiest, others = threads[1], #threads - 1
      for i = 2, #threads do others_ns = others_ns + core_share(threads[i], seconds) end
      local share, seen = core_share(busiest, seconds), busiest.seconds_seen or seconds
      if others >= params.min_others and seen >= params.min_seconds and share >= params.min_core
        and others_ns / others <= params.max_others then
        findings[#findings + 1] = finding(busiest, math.min(1, share), others, others_ns / others)
      end
    end
    return findings
  end,
}
