--- What it costs a program to have lupe in it: starting and stopping, memory, and its loop's time.
local harness = require("bench.harness")
local support = require("spec.support")

local MIB = harness.MIB
local FRESH, CYCLES = 20, 1000
local ASKED = { start_ms = 50, stop_ms = 200, idle_mb = 16, data_mb = 32, held_ms = 1 }
local DATA_MB, ROUNDS, MEMORY_SECONDS, LOOK_SECONDS = 100, 3, 75, 20
local LOOP_SECONDS, CLIENTS = 30, 2
local LOAD_PATHS = { "/api/profiling/memory", "/api/profiling/bottlenecks", "/api/findings" }

-- Start and stop ------------------------------------------------------------------------------

local function all_of(runs, name)
  local list = {}
  for _, run in ipairs(runs) do
    for _, value in ipairs(run[name]) do list[#list + 1] = value end
  end
  return list
end

local function times(rows, what, runs, name, asked)
  local values = all_of(runs, name)
  local many = ("%d %s"):format(#values, what)
  local verb = name == "start_ms" and "lupe_start" or "lupe_stop"
  rows[#rows + 1] = harness.row(("%s, median of %s"):format(verb, many), harness.median(values), "<=", asked, "ms")
  rows[#rows + 1] = harness.row(("%s, worst of %s"):format(verb, many), harness.quantile(values, 1), "<=", asked, "ms")
  return { median = harness.median(values), p99 = harness.quantile(values, 0.99), worst = harness.quantile(values, 1) }
end

local function start_and_stop(rows)
  local program, details, fresh = harness.program("embedded_cycles"), {}, {}
  for i = 1, harness.scaled(FRESH, 2) do fresh[i] = harness.measure({ program, 1 }) end
  local cycles = harness.scaled(CYCLES, 10)
  local again = harness.measure({ program, cycles })
  for _, name in ipairs({ "start_ms", "stop_ms" }) do
    details["fresh_" .. name] = times(rows, "fresh processes", fresh, name, ASKED[name])
    details["cycle_" .. name] = times(rows, "cycles", { again }, name, ASKED[name])
  end
  for _, what in ipairs({ "tasks", "timers" }) do
    rows[#rows + 1] = harness.row(("%s more after %d cycles than before the first"):format(what, cycles),
      again.after[what] - again.before[what], "<=", 0)
  end
  rows[#rows + 1] = harness.row("descriptors left by the first cycle (libuv's pipe for signals)",
    again.after_first.descriptors - again.before.descriptors, "<=", 0)
  for _, what in ipairs({ "descriptors", "maps_of_files" }) do
    rows[#rows + 1] = harness.row(("%s more after %d cycles than after one"):format((what:gsub("_", " ")), cycles),
      again.after[what] - again.after_first[what], "<=", 0)
  end
  details.states = { before = again.before, after_first = again.after_first, after = again.after }
  return details
end

-- Memory --------------------------------------------------------------------------------------

--- Every kind of host ROUNDS times, all at once: they do next to nothing, and their memory is their own.
local function start_hosts()
  local hosts = {}
  for _, megabytes in ipairs({ 0, DATA_MB }) do
    for _, kind in ipairs({ "bare", "lupe" }) do
      for _ = 1, harness.scaled(ROUNDS, 1) do
        local process = support.spawn({ harness.program("embedded_data"), megabytes, kind })
        hosts[#hosts + 1] = { megabytes = megabytes, kind = kind, process = process, rss = 0, worker_pss = 0 }
      end
    end
  end
  for _, host in ipairs(hosts) do
    support.eventually(function()
      if not host.process:alive() then error("embedded_data ended: " .. host.process:stderr()) end
      return host.process:stdout():match("ready")
    end, 60, "embedded_data to be ready")
  end
  return hosts
end

local function look_at(host)
  local pid = host.process.pid
  host.rss = math.max(host.rss, harness.rss_bytes(pid))
  local worker = harness.pids(pid).worker
  if worker then host.worker_pss = math.max(host.worker_pss, harness.pss_bytes(worker)) end
  host.cpu_seconds = harness.cpu_seconds(pid)
end

--- Medians of one kind of host.
local function of(hosts, megabytes, kind)
  local rss, whole, cpu = {}, {}, {}
  for _, host in ipairs(hosts) do
    if host.megabytes == megabytes and host.kind == kind then
      rss[#rss + 1], whole[#whole + 1] = host.rss, host.rss + host.worker_pss
      cpu[#cpu + 1] = host.cpu_seconds
    end
  end
  return { rss = harness.median(rss), whole = harness.median(whole), cpu_seconds = harness.median(cpu), all_rss = rss }
end

local function memory(rows)
  local hosts = start_hosts()
  local seconds = MEMORY_SECONDS * math.max(0.1, harness.scale)
  local look_seconds = LOOK_SECONDS * math.max(0.1, harness.scale)
  support.sleep(seconds - look_seconds)
  -- Heap profiles come and go in this time: what they need at their peak is part of the figure.
  local deadline = support.now() + look_seconds
  while support.now() < deadline do
    for _, host in ipairs(hosts) do look_at(host) end
    support.sleep(0.2)
  end
  local details = { seconds = seconds }
  for _, host in ipairs(hosts) do host.process:kill() end
  for _, case in ipairs({ { 0, "an idle program", ASKED.idle_mb },
    { DATA_MB, ("a program with %d MB of data"):format(DATA_MB), ASKED.data_mb } }) do
    local megabytes, what, asked = case[1], case[2], case[3]
    local bare, lupe = of(hosts, megabytes, "bare"), of(hosts, megabytes, "lupe")
    rows[#rows + 1] = harness.row("RSS added to " .. what, (lupe.rss - bare.rss) / MIB, "<=", asked, "MiB")
    rows[#rows + 1] = harness.row("the same, and the rules worker's share", (lupe.whole - bare.rss) / MIB, "<=", asked,
      "MiB")
    details[tostring(megabytes)] = {
      bare = bare, lupe = lupe, added_cpu_percent = 100 * (lupe.cpu_seconds - bare.cpu_seconds) / seconds,
    }
  end
  return details
end

-- The host's loop -------------------------------------------------------------------------------

-- Twenty findings at each check, which are worse at one and better at the next: so every check has as much to tell.
local RESTLESS = [[
return {
  api = 1, id = "pattern.restless", kind = "pattern", title = "Always something else",
  check = function(view)
    local findings = {}
    for i = 1, 20 do
      findings[i] = {
        score = 1, severity = math.floor(view.time_ms / 1000) % 2 == 0 and "low" or "high",
        summary = ("Number %d at %.0f"):format(i, view.time_ms), evidence = { number = i },
      }
    end
    return findings
  end,
}
]]

local function port_of(process)
  local port
  support.eventually(function()
    if not process:alive() then error("embedded_loop ended: " .. process:stderr()) end
    port = process:stdout():match('"url":"http://127%.0%.0%.1:(%d+)')
    return port
  end, 20, "embedded_loop's lupe")
  return tonumber(port)
end

--- What a loop of embedded_loop printed at its end.
local function told_by(process, seconds)
  local code = process:wait(seconds)
  if code ~= 0 then error("embedded_loop: " .. process:stderr()) end
  return support.json.decode(process:stdout():match("([^\n]*)\n$"))
end

--- Both loops at the same time: so both see the same machine, busy with the load on lupe.
local function loops(rows)
  local seconds = math.max(3, LOOP_SECONDS * harness.scale)
  local rule = support.write_file(support.temp_dir() .. "/restless.lua", RESTLESS)
  local with = support.spawn({ harness.program("embedded_loop"), seconds, "lupe", rule })
  local bare = support.spawn({ harness.program("embedded_loop"), seconds, "bare" })
  local port, load = port_of(with), {}
  local ends = support.now() + seconds - 1
  while support.now() < ends do
    for _, path in ipairs(LOAD_PATHS) do
      load[path] = harness.measure({ harness.program("http_load"), port, path, CLIENTS, 0.3 })
    end
    support.http(port, "/api/profiling/leak-detection", { method = "POST" })
  end
  local held, free = told_by(with, 30), told_by(bare, 30)
  if held.events == 0 then error("lupe told nothing: no callback was measured") end
  if not held.loop_closed then error("lupe left a handle on the loop") end
  local function ms(samples, name) return samples[name .. "_us"] / 1000 end
  rows[#rows + 1] = harness.row("what a turn of the loop that lupe called in takes, p99", ms(held.event_wall, "p99"),
    "<=", ASKED.held_ms, "ms")
  rows[#rows + 1] = harness.row("the same, of all turns", ms(held.wall, "p99"), "<=", ASKED.held_ms, "ms")
  return { lupe = held, bare = free, http = load }
end

return {
  title = "lupe inside a program: start and stop, memory, the program's loop",
  run = function()
    local rows, details = {}, {}
    details.start_and_stop = start_and_stop(rows)
    details.memory = memory(rows)
    details.loop = loops(rows)
    return rows, details
  end,
}
