--- Puts the Lua side of the runtime together: routes, views, analysis, the report at exit.
-- C makes one, and calls its functions on the loop thread.
-- @module lupe.server

local actions = require("lupe.actions")
local alerts = require("lupe.alerts")
local analysis = require("lupe.analysis")
local async = require("lupe.async")
local capture = require("lupe.capture")
local cpu_usage = require("lupe.cpu_usage")
local http_stats = require("lupe.http_stats")
local last_reports = require("lupe.last_reports")
local memo = require("lupe.memo")
local pressure = require("lupe.pressure")
local program_checks = require("lupe.program_checks")
local prover = require("lupe.prover")
local recorder = require("lupe.recorder")
local recording = require("lupe.recording")
local report = require("lupe.report")
local router = require("lupe.router")
local snapshot_store = require("lupe.snapshot_store")
local surroundings = require("lupe.surroundings")
local threshold = require("lupe.threshold")
local totals = require("lupe.totals")
local user_routes = require("lupe.user_routes")
local views = require("lupe.views")
local wrappers = require("lupe.wrappers")

-- A trace costs two changes of its memory's protection, each felt by all cores: a start compiled a few hundred loops
-- that were never hot again, for a quarter of what a short run costs.
jit.opt.start("hotloop=1000", "hotexit=200")

local server = {}

local FINDINGS_AGE_MS = 10000
local PROFILER_MS, CGROUP_MS = 250, 1000
local CGROUP_RULE = "alert.cgroup-limit"
local ROUTES = {
  "memory", "cpu", "bottlenecks", "flamegraph", "allocations", "leak_detection", "snapshot", "targets", "reports",
  "rules", "findings", "actions", "metrics", "health", "pprof", "routes", "openapi",
}

--- Reads answer from findings that are there; this has newer ones made in the background, for the next.
local function refresher(app)
  local host, running = app.host, false
  return function()
    local latest, view = app.analysis:latest(), app.views:merged()
    if running or not view or latest and host.now_ms() - latest.time_ms < FINDINGS_AGE_MS then return end
    running = true
    async.spawn(function() return app.analysis:run(view) end, function(ok, failure, trace)
      running = false
      if not ok then host.log("error", "an analysis failed: " .. (trace or tostring(failure))) end
    end)
  end
end

--- Reads the memory figures that are looked at now and then; memory that comes nearer to a limit is worth a check.
local function measure(app)
  app.totals:update()
  app.surroundings:of()
  local shares = app.analysis:params_in_force(CGROUP_RULE)
  if app.checks then return app.checks:measure(shares) end
  local figures, level = app.host.memory(), 0
  if figures then level = pressure(app.thresholds:update("all", figures.rss_bytes / 2 ^ 20), app.cgroup(), shares) end
  if level > (app.pressure or 0) then app.analysis:check_soon() end
  app.pressure = level
end

--- @param host what C offers: see docs/host.md
-- @return { handle, on_snapshot, tick, exit_report }; or nil and what is wrong with the settings
function server.new(host)
  local config = host.config
  host.set_wrappers(wrappers)
  local app = {
    host = host,
    config = config,
    http = http_stats.new(),
    thresholds = threshold.new(config.memory_warning_mb, config.memory_alert_mb),
    cpu = cpu_usage.new(host),
    totals = totals.new(host),
    snapshots = snapshot_store.new(host, config),
    alerts = alerts.new(host, config.alert_cooldown_secs),
    profiler = memo(host.monotonic_ms, PROFILER_MS, host.profiler),
    cgroup = memo(host.monotonic_ms, CGROUP_MS, host.cgroup),
  }
  app.threads = memo(host.monotonic_ms, PROFILER_MS, function(pid) return app.cpu:threads(pid) end)
  local message
  if config.base then
    host.base, message = recording.last_view(host, config.base)
    if not host.base then return nil, "--base: " .. message end
  end
  app.analysis = analysis.new(host)
  app.capture = capture.new(host, function() return app.analysis:ready() and app.analysis:rules() or nil end)
  app.surroundings = surroundings.new(host, function() return app.capture.off_because end)
  app.views = views.new(host, app.surroundings)
  app.actions = actions.new(app)
  app.prover = prover.new(app)
  app.analysis.heed = function(result, occasion, program)
    if occasion == "exit" then return end
    local root = program and program.pid
    app.alerts:update(result, occasion == "scheduled", root)
    if occasion then app.actions:consider(result, root) end
  end
  app.reports = last_reports.new(app)
  if host.serves then
    app.checks = program_checks.new(app, function(program)
      app.reports:add(program, app.analysis:accuses(program))
      app.analysis:ended(program)
      app.alerts:ended(program.pid)
    end)
  end
  app.refresh_findings = refresher(app)
  if config.record then
    app.recorder, message = recorder.new(host, app.surroundings)
    if not app.recorder then return nil, message end
  end

  local routes = {}
  for _, name in ipairs(ROUTES) do
    for _, route in ipairs(require("routes." .. name)) do routes[#routes + 1] = route end
  end
  local entry = router.new(app, routes)
  app.user_routes = user_routes.new(app, entry, routes)
  local last_totals_ms = 0

  return {
    app = app,

    --- Answers one HTTP request: `lupe.router`.
    handle = function(request, respond) entry:handle(request, respond) end,

    --- A round of heap profiles is in, or newer samples are: `host.snapshot` gives a new one.
    on_snapshot = function()
      app.views:clear()
      if app.recorder then app.recorder:on_snapshot() end
    end,

    --- About once a second.
    tick = function()
      local now_ms = host.monotonic_ms()
      if now_ms - last_totals_ms >= config.memory_interval_secs * 1000 then
        last_totals_ms = now_ms
        measure(app)
      end
      app.analysis:tick(app.views)
      if app.checks then app.checks:tick() end
      app.capture:update()
      app.prover:tick()
      app.user_routes:tick()
    end,

    --- The end of the run: the recording's last frame, and the report as text; "" where none is wanted.
    -- @param info what C knows of the run: see `lupe.report`
    -- @param done function(text), called exactly once
    exit_report = function(info, done)
      async.spawn(function()
        if app.recorder then app.recorder:finish(info) end
        return config.report == "none" and "" or report.at_exit(app, info)
      end, function(ok, result, trace)
        if not ok then
          host.log("error", "the report failed: " .. (trace or tostring(result)))
          result = "lupe: the report could not be made; the error is above\n"
        end
        done(result)
      end)
    end,
  }
end

return server
