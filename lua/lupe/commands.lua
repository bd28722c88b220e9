--- The commands of the command line: what each takes, and what its help says.
-- `name` as it is typed; `usage`; `doc` lines; `settings` names of lupe.settings that it takes (nil: all);
-- `flags` of its own, declared like settings; `params`: it takes --param.NAME=VALUE; `words` { least, most (nil: any
-- number), what }: its arguments.
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

local BASE = "What --base names is the run to compare with: rules see it as view.base."

return {
  {
    name = "run", usage = "lupe run [flags] -- COMMAND [ARGUMENT...]",
    doc = {
      "Starts COMMAND under the profiler, serves the HTTP API while it runs, and reports when it ends.",
      "Exit code: the command's own (128+N when signal N ended it), 127 not found, 126 not executable, 2 usage.",
    },
  },
  {
    name = "report", usage = "lupe report RECORDING [flags]",
    doc = {
      "The report of a run that was recorded (lupe run --record FILE), by the rules as they are now.", BASE,
      "Exit code: 0, or 1 where the recording cannot be read.",
    },
    settings = with("report", "output", "base"), flags = { AT }, words = { least = 1, most = 1, what = "a recording" },
  },
  {
    name = "rules list", usage = "lupe rules list [flags]",
    doc = {
      "Every file of rules, shipped and your own, and what became of it.",
      "Exit code: 0, or 1 where a file is broken.",
    },
    settings = with("report", "output"), words = { least = 0, most = 0 },
  },
  {
    name = "rules check", usage = "lupe rules check FILE...",
    doc = {
      "Loads files of rules as a run would, and says what is wrong with them.",
      "Exit code: 0, or 1 where one is broken.",
    },
    settings = { "config" }, words = { least = 1, what = "a rule's file" },
  },
  {
    name = "rules test", usage = "lupe rules test FILE [RECORDING...]",
    doc = {
      "Runs a rule on the cases in NAME.test.lua beside its NAME.lua, and on every frame of the recordings given;",
      "where there is neither, on a made-up program.",
      "Exit code: 0, or 1 where a case failed or the rule did.",
    },
    settings = { "config" }, words = { least = 1, what = "a rule's file" },
  },
  {
    name = "rules replay", usage = "lupe rules replay RECORDING [flags]",
    doc = {
      "Runs the rules over the frames of a recording, and tells what they find when. The same recording and rules",
      "give the same answer, byte for byte.", BASE,
      "--param.NAME=VALUE sets the param NAME of each rule that has it, --param.RULE.NAME=VALUE of one rule.",
      "Exit code: 0, or 1 where the recording cannot be read.",
    },
    settings = with("report", "output", "base"), words = { least = 1, most = 1, what = "a recording" },
    params = true,
    flags = {
      AT,
      {
        name = "rule", flag = "--rule", type = "path", placeholder = "FILE",
        doc = "only what this rule finds; its folder counts as --rules",
      },
    },
  },
}
