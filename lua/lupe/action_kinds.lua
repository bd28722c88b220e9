--- What a rule of kind "action" may ask for: names, and arguments with their types and bounds.
-- How each is carried out stands in lupe.actions.
-- @module lupe.action_kinds

local PID = { type = "number", whole = true, min = 1, max = 4194304 }
local DECAY = { type = "number", whole = true, min = -1, max = 86400000 }

return {
  --- In the order of the documentation.
  NAMES = { "purge", "decay", "snapshot", "sampling" },

  ARGUMENTS = {
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
  },

  --- Of these at least one must be given.
  ONE_OF = { decay = { "dirty_ms", "muzzy_ms" }, sampling = { "cpu_hz", "wall_hz" } },

  --- For all of them: how long the same action on the same target then has to wait; the setting where it is absent.
  COOLDOWN = { type = "number", min = 1, max = 86400 },
}
