--- /debug/pprof/: profiles for `go tool pprof` and whatever else reads profile.proto. /pprof/: the same for
-- google-pprof of gperftools, which has formats and addresses of its own.

local async = require("lupe.async")
local problem = require("lupe.problem")
local query = require("lupe.query")
local targets = require("lupe.targets")

local BYTES = "application/octet-stream"
local TEXT, HTML = "text/plain; charset=utf-8", "text/html; charset=utf-8"
local DEFAULT_SECONDS, MOST_SECONDS = 30, 600
local LOOK_MS = 1000 -- a short window, to see whether there are samples at all
local MOST_WINDOW_MS, LATE_MS = 600000, 900

local TARGET = { name = "target", type = "pid", doc = "one process of the run; all live ones where absent" }
local SECONDS = {
  name = "seconds", type = "integer", min = 1, max = MOST_SECONDS, default = DEFAULT_SECONDS,
  doc = "how long to profile, from now on",
}

--- The live targets that a request is about.
local function selected_of(request, app)
  if not app.config.enable_profiling then
    problem.raise(503, "profiling-off", "profiling is switched off (ENABLE_PROFILING=false)")
  end
  return targets.select(app.host, request.params.target)
end

local function refuse(kind, reason)
  problem.raise(503, kind .. "-profile-off", ("there is no %s profile: %s"):format(kind, reason))
end

--- The newest heap profile.
local function heap_view(request, app)
  local _, reason = targets.allocator(selected_of(request, app))
  if reason then refuse("heap", reason) end
  local view, missing = app.views:newest(request.params.target)
  if not view then problem.raise(503, "no-profile", missing) end
  if not view.sampled then problem.raise(503, "no-profile", "no heap profile was taken yet") end
  return view
end

--- As above, where it is known what was allocated and freed since the start.
local function allocations_view(request, app)
  local view = heap_view(request, app)
  for _, target in ipairs(targets.select(app.host, request.params.target)) do
    if target.heap_state == "on" then return view end
  end
  refuse("allocs", "this jemalloc cannot hand over stacks, so what was freed is not known; /debug/pprof/heap has what "
    .. "lives")
end

local function window_view(app, pid, window_ms)
  local view, missing = app.views:profile(pid, window_ms)
  if not view then problem.raise(503, "no-profile", missing) end
  return view
end

--- The view of the next `seconds`: waits so long. Samples are kept by whole seconds, so it begins with the next one.
-- @param kinds { "cpu" } or { "cpu", "wall" }: one of them has to be on
local function coming_view(request, app, kinds)
  selected_of(request, app)
  local host, pid = app.host, request.params.target

  local function check(view)
    for _, kind in ipairs(kinds) do
      if view.profile[kind].state == "on" then return view end
    end
    refuse(kinds[#kinds], view.profile[kinds[#kinds]].reason)
  end

  check(window_view(app, pid, LOOK_MS))
  local now_ms = host.now_ms()
  local from_ms = math.ceil(now_ms / 1000) * 1000
  async.await(host.after, from_ms + request.params.seconds * 1000 - now_ms)
  selected_of(request, app)
  -- Of the second before `from_ms` a window has only whole ones: none, also where the snapshot is taken a bit later.
  return check(window_view(app, pid, math.min(host.now_ms() - from_ms + LATE_MS, MOST_WINDOW_MS)))
end

local function cpu_view(request, app) return coming_view(request, app, { "cpu" }) end
local function wall_view(request, app) return coming_view(request, app, { "cpu", "wall" }) end

--- What a task of the host made, or an error.
local function made(failure, bytes)
  if failure then problem.raise(503, "no-profile", "the profile could not be made: " .. failure) end
  return bytes
end

local function file_name(target, name)
  return ("%s-%d-%s"):format(target.name:gsub("[^%w._-]", "_"), target.pid, name)
end

--- A route that hands out a profile in one format of host.pprof.
local function profile(path, summary, view_of, format, params, name)
  return {
    method = "GET",
    path = path,
    summary = summary,
    params = params,
    response = { [BYTES] = "bytes" },
    problems = { 404, 503 },
    handler = function(request, app)
      local target = selected_of(request, app)[1]
      local view = view_of(request, app)
      local bytes = made(async.await(app.host.pprof, view.keepalive, format))
      return 200, {
        ["Content-Type"] = BYTES,
        ["Content-Disposition"] = ('attachment; filename="%s"'):format(file_name(target, name)),
      }, bytes
    end,
  }
end

local function command_line(request, app)
  local target = selected_of(request, app)[1]
  local words = app.host.cmdline(target.pid)
  if not words then problem.raise(503, "target-gone", ("process %d has just ended"):format(target.pid)) end
  return 200, { ["Content-Type"] = TEXT }, words
end

--- Answers as google-pprof expects: whether there are symbols; for addresses, a line with the name of each.
local function symbols(request, app)
  local addresses = request.body or ""
  if request.method ~= "POST" then addresses = query.decode(request.query or "") or "" end
  if not addresses:find("0x", 1, true) then return 200, { ["Content-Type"] = TEXT }, "num_symbols: 1\n" end
  local view, missing = app.views:fresh() -- every function of the run so far is in it
  if not view then problem.raise(503, "no-profile", missing) end
  return 200, { ["Content-Type"] = TEXT }, made(async.await(app.host.symbols, view.keepalive, addresses))
end

local function add_lookups(routes, path)
  local function add(route) routes[#routes + 1] = route end
  add({
    method = "GET", path = path .. "/cmdline", summary = "The words of the program's command line, with NULs between",
    params = { TARGET }, response = { [TEXT] = "text" }, problems = { 404, 503 }, handler = command_line,
  })
  for _, method in ipairs({ "GET", "POST" }) do
    add({
      method = method, path = path .. "/symbol", summary = "Names of addresses in profiles of this run: 0x...+0x...",
      params = {}, raw = "addresses in hexadecimal, joined by +: 0x55d0c1a2+0x7f31d2", response = { [TEXT] = "text" },
      problems = { 503 }, handler = symbols,
    })
  end
end

local LISTED = {
  profile("/debug/pprof/heap", "Live memory by call stack", heap_view, "heap", { TARGET }, "heap.pb.gz"),
  profile("/debug/pprof/allocs", "All memory allocated since the start, by call stack", allocations_view, "allocs",
    { TARGET }, "allocs.pb.gz"),
  profile("/debug/pprof/profile", "CPU time of the next seconds (?seconds=30)", cpu_view, "cpu", { TARGET, SECONDS },
    "cpu.pb.gz"),
  profile("/debug/pprof/wall", "CPU and waiting time of the next seconds (?seconds=30)", wall_view, "wall",
    { TARGET, SECONDS }, "wall.pb.gz"),
}
add_lookups(LISTED, "/debug/pprof")

local ROUTES = {
  profile("/pprof/heap", "Live memory, for google-pprof", heap_view, "gperftools-heap", { TARGET }, "heap.heap"),
  profile("/pprof/profile", "CPU time of the next seconds, for google-pprof", cpu_view, "gperftools-cpu",
    { TARGET, SECONDS }, "cpu.prof"),
}
add_lookups(ROUTES, "/pprof")

local function index(request)
  local target = request.params.target
  local asked = target and ("?target=%d"):format(target) or ""
  local lines = { "<!DOCTYPE html>", '<html lang="en"><meta charset="utf-8"><title>/debug/pprof/</title>', "<ul>" }
  for _, route in ipairs(LISTED) do
    if route.method == "GET" then
      local name = route.path:match("[^/]+$")
      lines[#lines + 1] = ('<li><a href="%s%s">%s</a>: %s</li>')
        :format(name, route.raw and "" or asked, name, route.summary)
    end
  end
  lines[#lines + 1] = "</ul></html>\n"
  return table.concat(lines, "\n")
end

for _, route in ipairs(LISTED) do ROUTES[#ROUTES + 1] = route end
ROUTES[#ROUTES + 1] = {
  method = "GET", path = "/debug/pprof/", summary = "What there is, as a page", params = { TARGET },
  response = { [HTML] = "text" },
  handler = function(request) return 200, { ["Content-Type"] = HTML }, index(request) end,
}
ROUTES[#ROUTES + 1] = {
  method = "GET", path = "/debug/pprof", summary = "Leads to /debug/pprof/", params = {},
  status = { [301] = "Location is /debug/pprof/" },
  handler = function() return 301, { Location = "/debug/pprof/" }, "" end,
}

return ROUTES
