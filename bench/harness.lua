--- What the benchmarks share: programs bare and under lupe, redis, figures of processes, statistics.
-- A benchmark is a file of this folder that returns { title, run = function() -> rows, details };
-- a row is made by `harness.row` or `harness.row_within_noise`.
local support = require("spec.support")

local harness = {}

harness.json = support.json
harness.JEMALLOC = "libjemalloc.so.2"
harness.MIB = 2 ^ 20

local MOST_NOISE = 1.25

--- 1, or what LUPE_BENCH_SCALE says: a smaller one makes trial runs short. They are not written down.
harness.scale = tonumber(os.getenv("LUPE_BENCH_SCALE") or "1") or error("LUPE_BENCH_SCALE is not a number")

--- A count scaled for trial runs, whole, and at least `least`.
function harness.scaled(count, least) return math.max(least or 1, math.floor(count * harness.scale + 0.5)) end

function harness.program(name) return support.built("bench/" .. name) end

-- Statistics ----------------------------------------------------------------------------------

function harness.minimum(values)
  local least = values[1]
  for _, value in ipairs(values) do least = math.min(least, value) end
  return least
end

--- @tparam number share 0..1
function harness.quantile(values, share)
  local sorted = {}
  for i, value in ipairs(values) do sorted[i] = value end
  table.sort(sorted)
  local at = 1 + share * (#sorted - 1)
  local below = math.floor(at)
  local above = math.min(below + 1, #sorted)
  return sorted[below] + (at - below) * (sorted[above] - sorted[below])
end

function harness.median(values) return harness.quantile(values, 0.5) end

-- Rows ----------------------------------------------------------------------------------------

local compare = {
  ["<="] = function(a, b) return a <= b end,
  [">="] = function(a, b) return a >= b end,
}

--- One figure asked for and measured.
-- @string what
-- @string operator "<=" or ">="
function harness.row(what, measured, operator, asked, unit)
  return {
    what = what, measured = measured, asked = operator .. " " .. asked .. (unit and (" " .. unit) or ""),
    unit = unit, pass = compare[operator](measured, asked),
  }
end

--- A ratio lupe/bare that may reach `asked`, or what bare against bare shows: of the same rounds, the
-- upper quartile of how far two bare runs are apart. Where that is more than MOST_NOISE the row is marked
-- `noisy`: such a machine cannot tell.
-- @tparam {number,...} ratios lupe / bare, per round
-- @tparam {number,...} bare_ratios bare / bare, per round
function harness.row_within_noise(what, ratios, bare_ratios, asked)
  local apart = {}
  for i, ratio in ipairs(bare_ratios) do apart[i] = math.max(ratio, 1 / ratio) end
  local measured, noise = harness.median(ratios), harness.quantile(apart, 0.75)
  return {
    what = what, measured = measured, asked = ("<= %g, or noise %.3f"):format(asked, noise), noise = noise,
    pass = measured <= math.max(asked, noise), noisy = noise > MOST_NOISE,
  }
end

-- Processes -----------------------------------------------------------------------------------

--- utime + stime of a process, all its threads, in seconds (steps of 1/100).
function harness.cpu_seconds(pid)
  local text = assert(support.read_file(("/proc/%d/stat"):format(pid)))
  local fields = {}
  for word in text:match("%) (.*)$"):gmatch("%S+") do fields[#fields + 1] = word end
  return (tonumber(fields[12]) + tonumber(fields[13])) / 100
end

--- CPU seconds of all threads that live now, to the nanosecond.
function harness.precise_cpu_seconds(pid)
  local pipe = assert(io.popen(("cat /proc/%d/task/*/schedstat"):format(pid)))
  local sum = 0
  for line in pipe:lines() do sum = sum + tonumber(line:match("^%d+")) end
  pipe:close()
  return sum / 1e9
end

--- Ticks of 1/100 s that all cores together have worked, and that they have had.
function harness.machine_ticks()
  local total, busy, index = 0, 0, 0
  for word in support.read_file("/proc/stat"):match("^cpu +([^\n]*)"):gmatch("%d+") do
    index = index + 1
    if index <= 8 then total = total + tonumber(word) end -- the guests' time is in the users' already
    if index <= 8 and index ~= 4 and index ~= 5 then busy = busy + tonumber(word) end -- idle, and waiting for disks
  end
  return busy, total
end

local function memory_line(path, name)
  local text = assert(support.read_file(path), path)
  return tonumber(text:match(name .. ":%s+(%d+) kB")) * 1024
end

function harness.rss_bytes(pid) return memory_line(("/proc/%d/status"):format(pid), "VmRSS") end

--- Resident, with shared pages divided among those who share them.
function harness.pss_bytes(pid) return memory_line(("/proc/%d/smaps_rollup"):format(pid), "\nPss") end

--- Runs a program that prints one JSON object, and returns that.
-- @tparam[opt] table env
function harness.measure(argv, env)
  local ended = support.run(argv, { env = env, seconds = 600 })
  if ended.code ~= 0 then
    error(("%s ended with %s: %s"):format(table.concat(argv, " "), tostring(ended.code or ended.signal), ended.err))
  end
  return support.json.decode(ended.out:match("%b{}") or error(argv[1] .. " printed no JSON: " .. ended.out))
end

--- The words of `lupe run`, up to and with the command. No rate limits, no report.
-- @tparam table flags such as { "--sample-bytes", "131072" }
function harness.lupe_words(port, flags, argv)
  local list = {
    support.built("lupe"), "run", "--listen", "127.0.0.1:" .. port, "--rate-reads", "0", "--report", "none",
  }
  for _, word in ipairs(flags or {}) do list[#list + 1] = word end
  list[#list + 1] = "--"
  for _, word in ipairs(argv) do list[#list + 1] = word end
  return list
end

--- Runs a program that prints one JSON object under lupe.
function harness.measure_under_lupe(argv, flags)
  return harness.measure(harness.lupe_words(support.free_port(), flags, argv))
end

local running = {}
running.__index = running

--- Starts a program under lupe, which stays; on return its agent has connected.
function harness.start_under_lupe(argv, flags)
  local port = support.free_port()
  local self = setmetatable({ port = port }, running)
  self.process = support.spawn(harness.lupe_words(port, flags, argv))
  support.eventually(function()
    if not self.process:alive() then error("lupe ended: " .. self.process:stderr()) end
    local answer = support.http(port, "/readyz")
    return answer and answer.status == 200
  end, 60, "lupe to be ready")
  return self
end

--- Waits until a heap profile is there.
function running:await_profile()
  support.eventually(function()
    return self:get("/api/profiling/allocations").profile_time ~= support.json.null
  end, 60, "a heap profile")
end

--- The decoded answer of a JSON route.
function running:get(path, options)
  local answer, reason = support.http(self.port, path, options)
  if not answer then error(path .. ": " .. reason) end
  if answer.status >= 300 then error(path .. ": " .. answer.status .. " " .. answer.body) end
  return answer.json()
end

--- /metrics: name (with labels, as printed) -> number.
function running:metrics()
  local answer, reason = support.http(self.port, "/metrics")
  if not answer then error("/metrics: " .. reason) end
  local values = {}
  for name, value in answer.body:gmatch("\n([%w_:]+%b{}) (%S+)") do values[name] = tonumber(value) end
  for name, value in answer.body:gmatch("\n([%w_:]+) (%S+)") do values[name] = tonumber(value) end
  return values
end

--- Which processes are a lupe's own: the runtime and its rules worker; the rest is the profiled tree.
function harness.pids(runtime)
  local worker, keeper = support.worker_of(runtime)
  local found = { runtime = runtime, worker = worker }
  for _, pid in ipairs(support.children(runtime)) do
    if pid ~= keeper then found.program = pid end
  end
  return found
end

function running:pids() return harness.pids(self.process.pid) end

function running:stop()
  self.process:kill(15)
  self.process:wait(60)
end

-- Redis ---------------------------------------------------------------------------------------

local redis = {}
redis.__index = redis

--- @tparam[opt] table flags of lupe; nil starts it bare
function harness.start_redis(flags)
  local self = setmetatable({ port = support.free_port() }, redis)
  local argv = {
    "redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
    "--enable-debug-command", "local", "--dir", support.temp_dir(),
  }
  if flags then
    self.lupe = harness.start_under_lupe(argv, flags)
    self.process = self.lupe.process
  else
    self.process = support.spawn(argv)
  end
  support.eventually(function() return (self:try("PING") or ""):match("PONG") end, 20, "redis to answer")
  self.pid = tonumber(self:command("INFO server"):match("process_id:(%d+)"))
  return self
end

function redis:try(command) return support.exchange(self.port, command .. "\r\nQUIT\r\n", 120) end

function redis:command(command)
  local text, reason = self:try(command)
  if not text then error("redis: " .. command .. ": " .. reason) end
  if text:match("^%-") then error("redis: " .. command .. ": " .. text) end
  return text
end

--- Fills it with `bytes` of values of 1,000 bytes each, all at once, the same every time.
function redis:fill(bytes) self:command(("DEBUG POPULATE %d key 1000"):format(math.floor(bytes / 1000))) end

function redis:stop()
  self:try("SHUTDOWN NOSAVE")
  self.process:wait(60)
end

--- redis_load's figures: 8 clients at `rate` requests per second (0: as fast as it goes).
function redis:load(rate, seconds)
  return harness.measure({ harness.program("redis_load"), self.port, 8, rate, seconds })
end

--- http_load's figures for a route of a lupe.
function running:load(path, clients, seconds)
  return harness.measure({ harness.program("http_load"), self.port, path, clients, seconds })
end

return harness
