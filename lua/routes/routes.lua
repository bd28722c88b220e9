--- GET /api/routes, POST /api/routes/reload: the users' routes, from where, and how they fare.

local json = require("lupe.json")
local time = require("lupe.time")

local ROUTE = json.shape({
  "method string?", "path string?", "summary string?", "file string", "state active|broken|refused|quarantined",
  "error string?", "loaded_at time?", "runs integer", "errors integer", "elapsed_us integer?",
})
local FILE = json.shape({ "path string", "result loaded|kept|error|gone|unchanged", "error string?" })
local LIST = json.shape({ "timestamp time", "routes UserRoute[]", "complaints string[]", UserRoute = ROUTE })
local RELOADED = json.shape({
  "timestamp time", "changed boolean", "routes UserRoute[]", "complaints string[]", "files UserRouteFile[]",
  UserRoute = ROUTE, UserRouteFile = FILE,
})

local function routes_of(app)
  local list = {}
  for i, route in ipairs(app.user_routes:list()) do
    list[i] = ROUTE({
      method = route.method, path = route.route, summary = route.summary, file = route.path, state = route.state,
      error = route.error, loaded_at = route.loaded_ms and time.rfc3339(route.loaded_ms), runs = route.runs,
      errors = route.errors, elapsed_us = route.elapsed_us,
    })
  end
  return list
end

return {
  {
    method = "GET",
    path = "/api/routes",
    summary = "The users' routes: where from, in force or not and why, how they fare",
    params = {},
    response = LIST,
    handler = function(_, app)
      app.user_routes.live:first()
      return 200, {}, LIST({
        timestamp = time.rfc3339(app.host.now_ms()), routes = routes_of(app),
        complaints = app.user_routes:complaints(),
      })
    end,
  },
  {
    method = "POST",
    path = "/api/routes/reload",
    summary = "Looks at the users' routes now, and tells what became of each file",
    params = {},
    response = RELOADED,
    handler = function(_, app)
      local files, changed = app.user_routes:reload(), false
      for i, file in ipairs(files) do
        changed = changed or file.result == "loaded" or file.result == "gone"
        files[i] = FILE({ path = file.path, result = file.result, error = file.error })
      end
      return 200, {}, RELOADED({
        timestamp = time.rfc3339(app.host.now_ms()), changed = changed, routes = routes_of(app),
        complaints = app.user_routes:complaints(), files = files,
      })
    end,
  },
}
