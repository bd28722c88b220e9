--- The program has too many threads, or has more and more of them: each connection gets one, and some never end.
local function named_most(threads)
  local counts, best = {}, nil
  for _, thread in ipairs(threads.list) do
    local stem = thread.name:gsub("[%d%-_:#]+$", "")
    counts[stem] = (counts[stem] or 0) + 1
    if stem ~= "" and (not best or counts[stem] > counts[best]) then best = stem end
  end
  return best and ("; most are named %s (%d of %d seen)"):format(best, counts[best], #threads.list) or ""
end

return {
  api = 1, id = "alert.thread-count", kind = "alert", needs = { "memory", "threads" },
  title = "The program has too many threads, or more and more of them",
  params = {
    most = { default = 256, min = 1, doc = "threads of all processes together" },
    growth = { default = 20, min = 0, unit = "threads/h", doc = "more of them than that" },
    window = { default = 600, min = 1, unit = "s", doc = "in which growth is looked for" },
  },
  check = function(view, params)
    local threads = view.threads
    if not threads.count then return {} end
    local history = view.history:change("threads", { since_ms = view.time_ms - 1000 * params.window })
    local long_enough = history and history.to_ms - history.from_ms >= 500 * params.window
    local slope = long_enough and threads:slope(params.window)
    local per_hour = slope and 3600 * slope or nil
    local growing = per_hour and per_hour > params.growth and threads.count == threads.highest
    if threads.count <= params.most and not growing then return {} end
    local what = growing and ("%.0f more per hour"):format(per_hour) or ("more than %d"):format(params.most)
    return {
      {
        score = threads.count / params.most, severity = threads.count > params.most and "high" or "medium",
        summary = ("%d threads, %s%s"):format(threads.count, what, named_most(threads)),
        evidence = { threads = threads.count, highest = threads.highest, per_hour = per_hour },
        advice = { "Give a pool of threads a limit, and end a thread with what it works for" },
      },
    }
  end,
}
