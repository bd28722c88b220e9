--- redis, memcached, nginx and Python under steady load: sound programs, of which none may be called a leak.
-- All four run under lupe at once. Ten times in the run leak detection is asked for, and every verdict `leak` that it
-- gives counts; what it calls `growing` is told in the details. LUPE_ZOO_RECORDINGS=DIR records them there, as
-- steady.NAME.rec, for `lupe rules replay`.
local harness = require("bench.harness")
local support = require("spec.support")

local SECONDS, CHECKS = 600, 10
local FLAGS = { "--sample-bytes", "65536", "--rate-leak", "0" }
local REDIS_RATE, MEMCACHED_RATE, NGINX_RATE = 400, 300, 200 -- requests per second

local function write_page(folder, name, bytes)
  support.write_file(folder .. "/" .. name, ("p"):rep(bytes))
end

local function nginx_words(port)
  local folder = support.temp_dir()
  write_page(folder, "small", 500)
  write_page(folder, "middle", 20000)
  write_page(folder, "large", 200000)
  os.execute(("chmod -R a+rX '%s'"):format(folder))
  local temporary = {}
  for _, name in ipairs({ "client_body", "proxy", "fastcgi", "uwsgi", "scgi" }) do
    temporary[#temporary + 1] = ("%s_temp_path %s/%s;"):format(name, folder, name)
  end
  support.write_file(folder .. "/nginx.conf", ([[
    worker_processes 2; daemon off; pid %s/pid; error_log %s/error.log crit;
    events { worker_connections 256; }
    http { access_log off; %s server { listen 127.0.0.1:%d; root %s; keepalive_requests 1000000; } }
  ]]):format(folder, folder, table.concat(temporary, " "), port, folder))
  return { "nginx", "-e", folder .. "/error.log", "-c", folder .. "/nginx.conf" }
end

-- The four: words that start one on a port, bytes that it answers and then hangs up, and how many requests per second
-- it gets (nil: it drives itself).
local PROGRAMS = {
  {
    name = "redis", rate = REDIS_RATE, probe = "PING\r\nQUIT\r\n",
    words = function(port)
      return { "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir",
        support.temp_dir() }
    end,
  },
  {
    name = "memcached", rate = MEMCACHED_RATE, probe = "version\r\nquit\r\n",
    words = function(port) return { "memcached", "-u", "nobody", "-p", port, "-l", "127.0.0.1", "-m", "16" } end,
  },
  { name = "nginx", rate = NGINX_RATE, probe = "GET /small HTTP/1.0\r\n\r\n", words = nginx_words },
  {
    name = "python3",
    -- Without its own allocator for small objects, so that each of them is seen. It is stopped, as the others are.
    words = function(_, seconds)
      local script = support.root .. "/bench/steady_worker.py"
      return { "env", "PYTHONMALLOC=malloc", "/usr/bin/python3", script, seconds + 300 }
    end,
  },
}

local function flags_of(program)
  local folder, flags = os.getenv("LUPE_ZOO_RECORDINGS"), { unpack(FLAGS) }
  if folder then
    flags[#flags + 1], flags[#flags + 2] = "--record", ("%s/steady.%s.rec"):format(folder, program.name)
  end
  return flags
end

local function start(program, seconds)
  local port = support.free_port()
  local lupe = harness.start_under_lupe(program.words(port, seconds), flags_of(program))
  local one = { program = program, lupe = lupe, verdicts = {} }
  if program.rate then
    support.eventually(function() return support.exchange(port, program.probe, 1) end, 30, program.name .. " to listen")
    one.load = support.spawn({ harness.program("steady_load"), program.name, port, program.rate, seconds })
  end
  return one
end

local function check(one, seconds)
  if not one.lupe.process:alive() then error(one.program.name .. " ended: " .. one.lupe.process:stderr()) end
  local answer = one.lupe:get("/api/profiling/leak-detection", { method = "POST" })
  for _, leak in ipairs(answer.potential_leaks) do
    one.verdicts[leak.verdict] = one.verdicts[leak.verdict] or {}
    table.insert(one.verdicts[leak.verdict],
      ("after %d s, %.2f sure: %s"):format(seconds, leak.confidence, leak.summary))
  end
end

local function finish(one)
  local details = { rss_mb = one.lupe:get("/api/profiling/memory").rss_mb, verdicts = one.verdicts }
  if one.load then
    local code = one.load:wait(60)
    if code ~= 0 then error(one.program.name .. ": " .. one.load:stderr()) end
    details.requests = support.json.decode(one.load:stdout()).requests
  end
  one.lupe:stop()
  return details
end

return {
  title = "redis, memcached, nginx and Python under steady load",
  run = function()
    local seconds, all = harness.scaled(SECONDS, 30), {}
    for i, program in ipairs(PROGRAMS) do all[i] = start(program, seconds) end
    local started = support.now()
    for i = 1, CHECKS do
      -- The last time is a little before the end: the load is still on.
      local at = (seconds - 3) * i / CHECKS
      support.sleep(math.max(0, started + at - support.now()))
      for _, one in ipairs(all) do check(one, at) end
    end
    local rows, details = {}, { seconds = seconds }
    for i, one in ipairs(all) do
      local name = one.program.name
      details[name] = finish(one)
      local accused = #(one.verdicts.leak or {})
      rows[i] = harness.row(("%s, %d s: false verdicts `leak`"):format(name, seconds), accused, "<=", 0)
      for verdict, list in pairs(one.verdicts) do
        for _, text in ipairs(list) do print(("  %s: %s %s"):format(name, verdict, text)) end
      end
    end
    return rows, details
  end,
}
