--- GET /api/profiling/flamegraph: where time or memory goes, as a picture.

local ask_worker = require("lupe.ask_worker")
local flamegraph = require("lupe.flamegraph")
local json = require("lupe.json")
local problem = require("lupe.problem")
local targets = require("lupe.targets")

local DEADLINE_MS = 5000
local DEFAULT_WINDOW, LONGEST_WINDOW = 60, 600
local MOST_BASE_BYTES = 24 * 2 ^ 20 -- the worker has to read it, and to keep its tables

local CONTENT_TYPES = {
  svg = "image/svg+xml", html = "text/html; charset=utf-8", folded = "text/plain; charset=utf-8",
  json = "application/json",
}
local TITLES = { cpu = "CPU time", wall = "Time on a core, in I/O and at locks", heap = "Live memory",
  alloc = "Memory allocated" }

--- The view to draw, and the words for what it covers. Raises 503 where there is nothing of that type.
local function view_of(request, app, selected)
  local params = request.params
  local type, pid = params.type, params.target
  if type == "heap" or type == "alloc" then
    local view, reason = app.views:newest(pid)
    local _, missing = targets.allocator(selected)
    if not view or missing then problem.raise(503, "no-profile", missing or reason) end
    return view, type == "heap" and "live now" or "since the start"
  end
  local view, reason = app.views:profile(pid, params.window * 1000)
  if not view then problem.raise(503, "no-profile", reason) end
  local profile = view.profile
  local known = type == "cpu" and profile.cpu or profile.wall
  if known.state ~= "on" then
    problem.raise(503, "no-profile", known.reason or ("%s profiling is %s"):format(type, known.state))
  end
  return view, ("last %.0f s"):format(profile.seconds)
end

local function base_of(app, id)
  if not id then return nil end
  local file = app.snapshots:file(id)
  if not file then
    problem.raise(404, "no-such-snapshot", ("base: no snapshot %q; /api/profiling/snapshot lists them")
      :format(id:sub(1, 60)))
  end
  if file.size_bytes > MOST_BASE_BYTES then
    problem.raise(400, "base-too-large", ("base: %s has %.0f MiB; at most %.0f can be compared"):format(id,
      file.size_bytes / 2 ^ 20, MOST_BASE_BYTES / 2 ^ 20))
  end
  local handle, message = io.open(app.snapshots:path(id), "rb")
  if not handle then problem.raise(500, "base-unreadable", ("base: %s"):format(message)) end
  local text = handle:read("*a")
  handle:close()
  return json.raw(text) -- escaped it would keep the loop busy for a second
end

local UNANSWERED = { deadline = true, died = true, closed = true }

--- The worker draws.
local function draw(app, view, request)
  local answer, message, _, kind = ask_worker.about(app.host, view, request, nil, DEADLINE_MS)
  if answer then return answer.text end
  if UNANSWERED[kind] then problem.raise(503, "not-drawn", ("the graph could not be drawn: %s"):format(message)) end
  if request.base and kind == "request" then problem.raise(400, "bad-base", "base: not JSON") end
  if kind == "base" then problem.raise(400, "bad-base", "base: " .. message) end
  problem.raise(500, "not-drawn", message)
end

local function name_of(selected)
  if #selected == 1 then return ("%s (%d)"):format(selected[1].name, selected[1].pid) end
  local others = #selected - 1
  return ("%s and %d more process%s"):format(selected[1].name, others, others == 1 and "" or "es")
end

return {
  {
    method = "GET",
    path = "/api/profiling/flamegraph",
    summary = "Where time or memory goes: a picture, a page that zooms and searches, or text for other tools",
    params = {
      { name = "target", type = "pid", doc = "one process of the run; all live ones where absent" },
      { name = "type", type = "choice", values = flamegraph.TYPES, default = "cpu", doc = "what is shown" },
      {
        name = "format", type = "choice", values = flamegraph.FORMATS, default = "svg",
        doc = "svg: a picture; html: a page that zooms and searches; folded: a line per stack; json: a tree",
      },
      {
        name = "window", type = "integer", min = 1, max = LONGEST_WINDOW, default = DEFAULT_WINDOW,
        doc = "seconds back from now; for cpu and wall",
      },
      { name = "base", type = "text", doc = "a snapshot to compare with, by its id" },
    },
    response = {
      [CONTENT_TYPES.svg] = "text", [CONTENT_TYPES.html] = "text", [CONTENT_TYPES.folded] = "text",
      [CONTENT_TYPES.json] = flamegraph.NODE,
    },
    problems = { 404, 503 },
    handler = function(request, app)
      if not app.config.enable_profiling then
        problem.raise(503, "profiling-off", "profiling is switched off (ENABLE_PROFILING=false)")
      end
      local params = request.params
      local selected = targets.select(app.host, params.target)
      local base = base_of(app, params.base)
      local view, covers = view_of(request, app, selected)
      local text = draw(app, view, {
        op = "flamegraph", type = params.type, format = params.format, base = base,
        title = ("%s: %s"):format(TITLES[params.type], name_of(selected)), subtitle = covers,
      })
      return 200, {
        ["Content-Type"] = CONTENT_TYPES[params.format],
        ["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'",
      }, text
    end,
  },
}
