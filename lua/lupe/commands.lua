--- The commands of the command line: what each takes, and what its help says.
-- `name` as it is typed; `usage`; `doc` lines; `settings` names of lupe.settings that it takes;
-- `flags` of its own, declared like settings; `params`: it takes --param.NAME=VALUE; `words` { least, most (nil: any
-- number), what }: its arguments.
-- @module lupe.commands

local settings = require("lupe.settings")

local SERVES_ONLY = { "socket", "users", "reports_keep", "reports_max_mb", "reports_min_secs" }
local RUNS_ONLY = {
  "report", "output", "duration_secs", "record", "record_interval_secs", "record_max_mb", "allocator", "sample_bytes",
  "require",
}

local RULES = { "rules", "memory_warning_mb", "memory_alert_mb", "config" }

local AT = {
  name = "at", flag = "--at", type = "seconds", min = 0, max = 31536000,
  doc = "only the frame nearest to this time since the run began",
}

--- All settings that have a flag, but for some.
local function all_but(names)
  local left_out, list = {}, {}
  for _, name in ipairs(names) do left_out[name] = true end
  for _, spec in ipairs(settings) do
    if spec.flag and not left_out[spec.name] then list[#list + 1] = spec.name end
  end
  return list
end

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
    settings = all_but(SERVES_ONLY),
  },
  {
    name = "serve", usage = "lupe serve [flags]",
    doc = {
      "A daemon: programs started with what lupe preload-env prints connect to it, come and go. Each is judged by",
      "itself; of those that ended the last report is kept. SIGTERM and SIGINT end it, and leave the programs alone.",
      "Exit code: 0 when it was told to end, 125 where it could not begin, 2 usage.",
    },
    settings = all_but(RUNS_ONLY), words = { least = 0, most = 0 },
  },
  {
    name = "preload-env", usage = "lupe preload-env [flags]",
    doc = {
      "Prints what to set for a service that is to connect to lupe serve; what contradicts it is said on stderr.",
      'In a shell: eval "$(lupe preload-env)"; in a unit: the lines of --format systemd.',
      "Exit code: 0, or 1 where the agent cannot be preloaded.",
    },
    settings = { "socket", "allocator", "sample_bytes", "enable_profiling", "config" },
    words = { least = 0, most = 0 },
    flags = {
      {
        name = "format", flag = "--format", type = "choice", values = { "shell", "systemd", "docker" },
        default = "shell", doc = "lines for eval, for a unit's [Service] section, or words of docker run",
      },
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
