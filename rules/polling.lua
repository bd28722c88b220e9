--- A thread wakes up again and again, looks, and finds nothing to do: it costs power, and answers late as well.
-- A wait that also ends when something happens (epoll, poll, a condition) looks the same in a server that has little
-- to do per event. So there a wake-up must be cheaper than any request could be.
local SLEEPS = { nanosleep = true, clock_nanosleep = true }
local WAITS = {
  poll = true, ppoll = true, select = true, pselect6 = true, epoll_wait = true, epoll_pwait = true, epoll_pwait2 = true,
}

local function timed_futex(f)
  for _, call in ipairs(f.calls) do
    local timed = call.name:find("timed", 1, true) or call.name:find("clockwait", 1, true)
    if timed and call.idle_ns > 0 then return true end
  end
end

--- CPU time that a wake-up may take and still be for nothing, us; nil: this is no polling.
local function allowed(f, wait, params)
  if SLEEPS[wait] then return params.max_sleep_us end
  if WAITS[wait] or (wait == "futex" and timed_futex(f)) then return params.max_wait_us end
end

--- By its totals, which cost nothing; where it waits takes a look at all samples.
local function may_poll(thread, seen, params)
  return seen >= params.min_seconds and thread.switches > 0 and thread.switches / seen >= params.min_wakeups
    and thread.idle_ns / 1e9 >= params.min_idle * seen
    and thread.cpu_ns / 1e3 / thread.switches <= math.max(params.max_sleep_us, params.max_wait_us)
end

--- The threads that poll, gathered by the function that they wait in.
local function pollers(profile, params)
  local sites, order = {}, {}
  for _, thread in ipairs(profile:threads()) do
    local seen, f, idle_ns, wait = thread.seconds_seen or 0, nil, nil, nil
    if may_poll(thread, seen, params) then
      f, idle_ns, wait = thread:where("idle")
    end
    local limit = f and allowed(f, wait, params)
    if limit and idle_ns / 1e9 >= params.min_idle * seen and thread.cpu_ns / 1e3 / thread.switches <= limit then
      local site = sites[f] or { f = f, wait = wait, threads = 0, wakeups = 0, cpu_ns = 0, switches = 0 }
      if not sites[f] then order[#order + 1], sites[f] = site, site end
      site.threads, site.wakeups = site.threads + 1, site.wakeups + thread.switches / seen
      site.cpu_ns, site.switches = site.cpu_ns + thread.cpu_ns, site.switches + thread.switches
    end
  end
  table.sort(order, function(a, b)
    if a.wakeups ~= b.wakeups then return a.wakeups > b.wakeups end
    return a.f.name < b.f.name
  end)
  return order
end

return {
  api = 1,
  id = "pattern.polling",
  kind = "pattern",
  title = "A thread wakes up often, and does nothing",
  version = "1",
  needs = { "cpu", "wall" },
  params = {
    min_wakeups = { default = 20, min = 0, unit = "1/s", doc = "of a thread, on average" },
    min_idle = { default = 0.9, min = 0, max = 1, doc = "share of the time that it waits in one function" },
    max_sleep_us = { default = 50, min = 0, unit = "us", doc = "CPU time per wake-up from a sleep" },
    max_wait_us = { default = 10, min = 0, unit = "us", doc = "likewise from a wait that an event ends as well" },
    min_seconds = { default = 5, min = 1, unit = "s", doc = "that the thread was seen; a start-up is no pattern" },
    min_samples = { default = 100, min = 1, doc = "looks at threads: 5 s of one at 20 a second" },
    most_findings = { default = 5, min = 1, doc = "functions, most wake-ups first" },
  },
  check = function(view, params)
    local profile, findings = view.profile, {}
    if profile.cpu.state ~= "on" then return {} end -- idle or not can't be told
    local lack = profile:lacks(params.min_samples, "wall")
    if lack then return {}, lack end
    for i, site in ipairs(pollers(profile, params)) do
      if i > params.most_findings then break end
      local cpu_us = site.cpu_ns / 1e3 / site.switches
      findings[i] = {
        hotspot = site.f, score = site.wakeups, verdict = "info", severity = "low",
        summary = ("%s polls: %s wake%s up %s times a second in %s, and use%s %.0f us of CPU time each time"):format(
          site.f.name, words.plural(site.threads, "thread"), site.threads == 1 and "s" or "", words.count(site.wakeups),
          site.wait, site.threads == 1 and "s" or "", cpu_us),
        evidence = {
          wakeups_per_second = site.wakeups, threads = site.threads, cpu_us_per_wakeup = cpu_us, waits_in = site.wait,
        },
        advice = {
          ("Let %s wait for what it looks for (a condition, an eventfd, epoll without a timeout), or sleep longer")
            :format(site.f.name),
        },
      }
    end
    return findings
  end,
}
