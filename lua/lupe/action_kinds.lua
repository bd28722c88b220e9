--- What a rule of kind "action" may ask for: names, and arguments with their types and bounds.
-- How each is carried out stands in lupe.actions.
-- @module lupe.action_kinds

local expect = require("lupe.expect")

local action_kinds = {}

local PID = { type = "number", whole = true, min = 1, max = 4194304 }
local DECAY = { type = "number", whole = true, min = -1, max = 86400000 }

--- In the order of the documentation.
action_kinds.NAMES = { "purge", "decay", "snapshot", "sampling" }

action_kinds.ARGUMENTS = {
  --- jemalloc gives back all pages that hold nothing. `pid`: of one process, else of all.
  purge = { pid = PID },
  --- It does so by itself after so many milliseconds; -1: never.
  decay = { pid = PID, dirty_ms = DECAY, muzzy_ms = DECAY },
  --- A heap snapshot in the state directory.
  snapshot = { reason = { type = "string" } },
  --- Samples a second, of the whole run; 0: none.
  sampling = {
    cpu_hz = { type = "number", whole = true, min = 0, max = 1000 },
    wall_hz = { type = "number", whole = true, min = 0, max = 100 },
  },
}

-- Of these at least one must be given.
local ONE_OF = { decay = { "dirty_ms", "muzzy_ms" }, sampling = { "cpu_hz", "wall_hz" } }

-- For all of them: how long the same action on the same target then has to wait; the setting where it is absent.
local COOLDOWN = { type = "number", min = 1, max = 86400 }

local function argument(where, field, value, spec)
  expect.kind(where, field, value, spec.type)
  expect.range(where, field, value, spec)
  if spec.whole and value % 1 ~= 0 then expect.fail(where, field, "a whole number", tostring(value)) end
  return spec.type == "string" and value:sub(1, expect.LONGEST_TEXT) or value
end

--- Checks what a finding asks for. Throws as lupe.expect does.
-- @string where for messages
-- @param action the finding's
-- @treturn table { name, cooldown_secs or nil, and the arguments }
function action_kinds.plain(where, action)
  expect.plain(where, "action", action)
  local name = expect.one_of(where, "action.name", action.name, action_kinds.NAMES)
  local specs, known, plain = action_kinds.ARGUMENTS[name], {}, { name = name }
  for each in pairs(specs) do known[#known + 1] = each end
  table.sort(known)
  for _, each in ipairs(known) do
    local value = action[each]
    if value ~= nil then plain[each] = argument(where, "action." .. each, value, specs[each]) end
  end
  if action.cooldown_secs ~= nil then
    plain.cooldown_secs = argument(where, "action.cooldown_secs", action.cooldown_secs, COOLDOWN)
  end
  table.insert(known, 1, "name")
  known[#known + 1] = "cooldown_secs"
  expect.known(where, "action.", action, known)
  local either = ONE_OF[name]
  if either and plain[either[1]] == nil and plain[either[2]] == nil then
    expect.fail(where, "action", ("%s or %s in an action '%s'"):format(either[1], either[2], name), "neither")
  end
  return plain
end

return action_kinds
