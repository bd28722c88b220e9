--- What an embedding program asks of the runtime (core/embed/embedded.h). Loop thread.
-- @module lupe.embedded

local async = require("lupe.async")
local config = require("lupe.config")
local json = require("lupe.json")
local nearest = require("lupe.nearest")

local embedded = {}

-- As in lupe.h and embedded.h.
local OK, EINVAL, ENOENT, ESCRIPT = 0, 1, 7, 12
local OPERATIONS = {
  [2] = "about", [3] = "report", [4] = "snapshot", [5] = "evaluate", [6] = "get", [7] = "add_rule", [8] = "add_route",
  [9] = "add_module", [10] = "events",
}

--- The effective configuration: settings, then the environment, then a file where one is named, then defaults.
-- @param texts array of "NAME=VALUE"
-- @param env function(name) -> string or nil
-- @return as lupe.config.resolve; or nil and a message
function embedded.config(texts, env)
  local given = {}
  for _, text in ipairs(texts) do
    local name, value = text:match("^([^=]+)=(.*)$")
    if not name then return nil, ("settings: %q is not of the form NAME=VALUE"):format(text) end
    local spec = config.by_name[name] or config.by_flag["--" .. name]
    if not spec or not spec.flag then
      local known = {}
      for known_name, one in pairs(config.by_name) do
        if one.flag then known[#known + 1] = known_name end
      end
      local near = nearest(name, known)
      return nil, ("settings: unknown setting %q%s"):format(name, near and (", did you mean %q?"):format(near) or "")
    end
    local message
    value, message = config.value(spec, value, spec.name)
    if value == nil then return nil, message end
    given[spec.name] = value
  end
  return config.resolve(given, env, { only_named_file = true })
end

local operations = {}

function operations.get(self, texts)
  local path, query = texts[1]:match("^([^?]*)%??(.*)$")
  local status, _, body = async.await(function(done)
    self.api.handle({ method = "GET", path = path, query = query, headers = {}, body = "", inside = true }, done)
  end)
  return OK, tostring(status), type(body) == "string" and body or json.encode(body)
end

--- @param api what lupe.server made
-- @param respond function(status, text, ...)
-- @return function(op, texts)
function embedded.new(api, respond)
  local self = { api = api, app = api.app, host = api.app.host }
  return function(op, texts)
    local name = OPERATIONS[op]
    local operation = operations[name]
    if not operation then return respond(EINVAL, ("no such operation: %s"):format(tostring(name or op))) end
    async.spawn(function() return operation(self, texts) end, function(ok, status, ...)
      if ok then return respond(status, ...) end
      self.host.log("error", ("%s failed: %s"):format(name, ... or tostring(status)))
      respond(ESCRIPT, ("%s failed: %s"):format(name, tostring(status)))
    end)
  end
end

return embedded
