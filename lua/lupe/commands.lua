--- The commands of the command line: what each takes, and what its help says.
-- `name` as it is typed; `usage`; `doc` lines; `settings` names of lupe.settings that it takes (nil: all);
-- `flags` of its own, declared like settings; `words` { least, most (nil: any number), what }: its arguments.
-- @module lupe.commands

local RULES = { "rules", "memory_warning_mb", "memory_alert_mb", "config" }

local AT = {
  name = "at", flag = "--at", type = "seconds", min = 0, max = 31536000,
  doc = "only the frame nearest to this time since the run began",
}

local function with(...)
  local list = { ... }
  for _, name in ipairs(RULES) do list[#list + 1] = name end
  return list
end

return {
  {
    name = "run", usage = "lupe run [flags] -- COMMAND [ARGUMENT...]",
    doc = {
      "Starts COMMAND under the profiler, serves the HTTP API while it runs, and reports when it ends.",
      "Exit code: the command's own (128+N when signal N ended it), 127 not found, 126 not executable, 2 usage.",
    },
  },
  {
    name = "rules replay", usage = "lupe rules replay RECORDING [flags]",
    doc = {
      "Runs the rules over the frames of a recording (of lupe run --record), and tells what they find when.",
      "Exit code: 0, or 1 where the recording cannot be read.",
    },
    settings = with("report", "output"), flags = { AT }, words = { least = 1, most = 1, what = "a recording" },
  },
}
