--- A host for specs: what core/script/view.c offers, from literal figures. Asynchronous calls answer
-- when the spec calls `host.run_pending()`, or at once with `host.immediate = true`.
local columns_of = require("lupe.ffi").snapshot
local config = require("lupe.config")
local flamegraph = require("lupe.flamegraph")
local json = require("lupe.json")
local literal = require("lupe.view_literal")
local rule = require("lupe.rule")
local sandbox = require("lupe.sandbox")
local support = require("spec.support")
local view = require("lupe.view")

local MIB = 2 ^ 20
local fake = {}

--- One reading of memory figures; fields given replace the usual ones.
function fake.figures(fields)
  local figures = {
    time_ms = 1728583200000, rss_bytes = 245.25 * MIB, virtual_bytes = 512.125 * MIB, shared_bytes = 12.5 * MIB,
    allocated_bytes = 180 * MIB, active_bytes = 200 * MIB, metadata_bytes = 8 * MIB, resident_bytes = 225 * MIB,
    mapped_bytes = 230 * MIB, retained_bytes = 40 * MIB, cached_bytes = 2 * MIB, sampling_bytes = 1 * MIB,
    user_ns = 20e9, system_ns = 5e9, minor_faults = 1000,
    major_faults = 2, threads = 4, has_allocator = true,
  }
  for name, value in pairs(fields or {}) do figures[name] = value end
  return figures
end

--- One target; fields given replace the usual ones.
function fake.target(fields)
  local target = {
    pid = 100, ppid = 1, name = "redis-server", live = true, connected = true, heap_state = "on",
    allocator = "jemalloc 5.3.0", sample_period_bytes = 524288, first_ms = 1728583100000, last_ms = 1728583200000,
    root_pid = 100, root_ticks = 1, left = false,
    cpu_state = "on", wall_state = "on", threads_untimed = 0, threads_unread = 0, sample_drops = 0,
  }
  for name, value in pairs(fields or {}) do target[name] = value end
  if not (fields or {}).root_pid then target.root_pid = target.pid end
  return target
end

--- What the worker process does, in this one and without limits.
function fake.worker(host)
  local loaded, operations, candidate, current, base = {}, {}, nil, nil, nil

  function operations.load(request)
    local answers = json.array()
    for i, file in ipairs(request.rules) do
      local made, message = rule.load(file.path, file.source, sandbox.new(function() end))
      if made then loaded[made.id] = { path = file.path, rule = made } end
      answers[i] = { path = file.path, ok = made ~= nil, error = message, kind = "error" }
    end
    return { ok = true, rules = answers }
  end

  function operations.try(request)
    local made, message = rule.load(request.path, request.source, sandbox.new(function() end))
    if not made then return { ok = false, kind = "error", error = message } end
    candidate = { path = request.path, rule = made }
    return { ok = true, rule = { id = made.id, kind = made.kind, title = made.title, version = made.version,
      needs = made.needs, params = made.params } }
  end

  function operations.snapshot(_, attach)
    current = attach
    return { ok = true }
  end

  function operations.base(_, attach)
    base = attach
    return { ok = true }
  end

  function operations.check(request)
    local kept = request.candidate and candidate or loaded[request.id]
    if not kept then return { ok = false, kind = "no_rule", error = "no such rule" } end
    local columns = view.from_snapshot(current, require("ffi").sizeof(current), {
      findings = request.findings, config = request.config, allocator = request.allocator, cgroup = request.cgroup,
      cores = request.cores, off_because = request.off_because, keepalive = current,
      base = base and view.from_snapshot(base, require("ffi").sizeof(base), { keepalive = base }),
    })
    local ok, answer = pcall(rule.run, kept.path, kept.rule, columns, request.params)
    if not ok then return { ok = false, kind = "error", error = answer, elapsed_us = 1 } end
    answer.findings, answer.ok, answer.elapsed_us = json.array(answer.findings), true, 1
    return answer
  end

  function operations.export(request, attach)
    if host.export_fails then return host.export_fails end
    host.files[attach.file] = { size = 1000, mtime_ms = host.clock_ms, findings = request.findings }
    return { ok = true, bytes = 1000 }
  end

  function operations.flamegraph(request)
    local columns = assert(columns_of(current, require("ffi").sizeof(current)))
    local text, message = flamegraph.render(columns, request)
    if not text then return { ok = false, kind = "base", error = message } end
    return { ok = true, text = text }
  end

  return operations
end

--- @param given fields and functions that replace the usual ones; `heap` is a literal snapshot as in
-- lupe.view_literal
function fake.new(given)
  local effective = config.defaults()
  effective.state_dir = "/state"
  local host = {
    version = "0.2.0", started_ms = 1728583000000, clock_ms = 1728583200000, port = 7077,
    config = effective, immediate = true, logged = {}, pending = {}, files = {}, worker_calls = {},
    rules_dir = support.root .. "/rules",
    target_list = { fake.target() }, figures_now = fake.figures(), rows = {}, thread_list = {},
  }
  host.now_ms = function() return host.clock_ms end
  host.monotonic_ms = function() return host.clock_ms - host.started_ms end
  host.targets = function() return host.target_list end
  host.memory = function(pid)
    local any = false
    for _, target in ipairs(host.target_list) do
      if target.live and (not pid or target.pid == pid) then any = true end
    end
    if not any then return nil, "no live target" end
    return host.figures_now
  end
  host.series = function(_, since_ms)
    local rows = {}
    for _, row in ipairs(host.rows) do
      if row.time_ms >= (since_ms or 0) then rows[#rows + 1] = row end
    end
    return rows
  end
  host.cgroup = function() return { limit_bytes = 1024 * MIB, used_bytes = 300 * MIB, reclaimable_bytes = 50 * MIB } end
  host.allocator = function()
    return {
      arena_count = 8, dirty_bytes = 3 * MIB, muzzy_bytes = 0, dirty_decay_ms = 10000, muzzy_decay_ms = 0,
      background_thread = false, thread_cache = true, age_ms = 200,
    }
  end
  host.profiler = function()
    return {
      cpu_percent = 0.4, agent_cpu_percent = 0.1, runtime_cpu_percent = 0.3, rss_bytes = 18 * MIB,
      heap_bytes = 0.25 * MIB, runtime_cpu_ns = 600e6, heap_interval_ms = 1000, stack_overflows = 0,
      refused_connections = 0, worker_starts = 1, worker_kills = 0,
      agent = {
        heap_samples = 4321, hook_ns = 5e6, thread_cpu_ns = 12e6, dropped_records = 0, truncated_stacks = 1,
        profiles = 42, profile_ns = 84e6, corruptions = 0, cpu_samples = 990, handler_ns = 3e6, wall_looks = 800,
        wall_moved = 7,
      },
    }
  end
  host.load = function() return { one_min = 0.45, five_min = 0.38, fifteen_min = 0.32, cores = 2 } end
  host.snapshot = function()
    if not host.heap then return nil, "no heap profile was taken yet" end
    if host.built_from ~= host.heap then
      host.built, host.built_from = { literal(host.heap) }, host.heap
    end
    return unpack(host.built, 1, 3)
  end
  host.threads = function() return host.thread_list end
  host.set_wrappers = function(list) host.wrappers = list end
  host.log = function(level, message) host.logged[#host.logged + 1] = level .. ": " .. message end

  local function later(callback, ...)
    local count, results = select("#", ...), { ... }
    local function deliver() callback(unpack(results, 1, count)) end
    if host.immediate then return deliver() end
    host.pending[#host.pending + 1] = deliver
  end
  host.later = later
  host.run_pending = function()
    local pending = host.pending
    host.pending = {}
    for _, deliver in ipairs(pending) do deliver() end
    return #pending
  end
  host.take_program = function(...) later(select(select("#", ...), ...), nil, host.snapshot()) end
  host.take_snapshot = function(...) later(select(select("#", ...), ...), nil, host.snapshot()) end
  host.after = function(ms, callback)
    host.clock_ms = host.clock_ms + ms
    later(callback, nil)
  end
  local operations = fake.worker(host)
  host.worker = function(text, attach, _, callback)
    local request, message = json.decode(text)
    request = request or { op = "unreadable" }
    operations.unreadable = function() return { ok = false, kind = "request", error = message } end
    host.worker_calls[#host.worker_calls + 1] = request.op
    local reply = operations[request.op](request, attach)
    later(callback, nil, json.encode(reply))
  end

  host.pprof = function(keepalive, format, callback)
    assert(keepalive)
    later(callback, nil, "a profile: " .. format)
  end
  host.symbols = function(keepalive, addresses, callback)
    assert(keepalive)
    later(callback, nil, (addresses:gsub("(0x%x+)[^0]*", "%1\tmain\n")))
  end
  --- Leak proofs that were asked for: { pid, limits }. How they end: `host.proof_replies` by pid, each a reply or a
  -- text that says why there is none; what they found: `proofs` of `host.proved_heap`, the snapshot from then on.
  host.proofs, host.proof_replies = {}, {}
  host.prove = function(pid, limits, callback)
    host.proofs[#host.proofs + 1] = { pid = pid, limits = limits }
    local reply = host.proof_replies[pid] or {
      outcome = 0, error = 0, elapsed_ms = 2090, pause_ms = 6.5, anonymous_bytes = 60 * MIB, read_bytes = 58 * MIB,
    }
    host.heap = host.proved_heap or host.heap
    if type(reply) == "string" then return later(callback, reply) end
    later(callback, nil, reply)
  end
  host.set_proof_at_exit = function(limits) host.proof_at_exit = limits end
  host.rates, host.commands = {}, {}
  host.set_rates = function(cpu_hz, wall_hz) host.rates = { cpu_hz, wall_hz } end
  host.command = function(pid, command, callback)
    host.commands[#host.commands + 1] = { pid = pid, command = command }
    later(callback, nil, 1.5)
  end
  host.watch = function() return 1 end
  host.unwatch = function() return true end
  host.cmdline = function(pid) return ("program\0%d\0"):format(pid) end

  --- Recordings by path: { about, frames = { { time_ms, notes, heap = literal or nil, last, wrong = text } }, ending }.
  host.recordings = {}
  host.recorder = function(path, about)
    host.recordings[path] = { about = json.decode(about), frames = {}, bytes = 0 }
    return host.recordings[path]
  end
  host.record = function(recorder, keepalive, notes, last, callback)
    if host.record_fails then return later(callback, host.record_fails, "ENOSPC") end
    recorder.frames[#recorder.frames + 1] = {
      time_ms = host.clock_ms, notes = json.decode(notes), keepalive = keepalive, last = last,
    }
    recorder.bytes = recorder.bytes + (host.frame_bytes or 1000)
    later(callback, nil, recorder.bytes)
  end
  host.open_recording = function(path)
    local recording = host.recordings[path]
    if not recording then return nil, path .. ": No such file or directory", "ENOENT" end
    return recording, json.encode(recording.about)
  end
  host.recording_frames = function(recording)
    local list = {}
    for i, frame in ipairs(recording.frames) do list[i] = { time_ms = frame.time_ms, last = frame.last or false } end
    return list, recording.ending
  end
  host.recorded_frame = function(recording, index)
    local frame = recording.frames[index]
    if frame.wrong then return nil, frame.wrong, "ECORRUPT" end
    if not frame.heap then return json.encode(frame.notes) end
    return json.encode(frame.notes), literal(frame.heap)
  end

  host.mkdir = function() return true end
  host.list = function(directory)
    local list = {}
    for path, file in pairs(host.files) do
      local name = path:match("^" .. directory:gsub("%p", "%%%0") .. "/([^/]+)$")
      if name then list[#list + 1] = { name = name, size = file.size, mtime_ms = file.mtime_ms } end
    end
    return list
  end
  host.unlink = function(path) host.files[path] = nil end
  host.commit_file = function(temporary, final, callback)
    if host.files[final] then return later(callback, "it exists", "EEXIST") end
    host.files[final], host.files[temporary] = host.files[temporary], nil
    later(callback, nil)
  end

  for name, value in pairs(given or {}) do host[name] = value end
  return host
end

--- The whole Lua side over a fake host.
-- @param given as for `fake.new`
function fake.server(given)
  local host = fake.new(given)
  local server = require("lupe.server").new(host)
  server.host = host
  return server
end

--- Sends a request to a server made by `lupe.server`; `target` is such as "/api/profiling/memory?target=1".
-- @return { status, headers, body, json } once it is answered, else nil
function fake.request(server, method, target, extra)
  local path, query = target:match("^([^?]*)%??(.*)$")
  local request = {
    method = method, path = path, query = query, headers = { host = "127.0.0.1:7077" }, body = "", peer = "127.0.0.1",
  }
  for name, value in pairs(extra or {}) do request[name] = value end
  local answer
  server.handle(request, function(status, headers, body)
    assert(not answer, "answered twice")
    answer = { status = status, headers = headers, body = body }
    if type(body) == "string" and (headers["Content-Type"] or ""):find("json", 1, true) then
      answer.json = json.decode(body)
    end
  end)
  return answer
end

--- The names of a JSON object's members in the order of the text, outermost level.
function fake.order(text)
  local names, depth, i = {}, 0, 1
  while i <= #text do
    local char = text:sub(i, i)
    if char == '"' then
      local close = i + 1
      while text:sub(close, close) ~= '"' do close = close + (text:sub(close, close) == "\\" and 2 or 1) end
      if depth == 1 and text:sub(close + 1, close + 1) == ":" then names[#names + 1] = text:sub(i + 1, close - 1) end
      i = close
    elseif char == "{" or char == "[" then
      depth = depth + 1
    elseif char == "}" or char == "]" then
      depth = depth - 1
    end
    i = i + 1
  end
  return names
end

return fake
