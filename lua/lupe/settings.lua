--- Every setting of lupe, declared once: help text, environment, file and checks all come from here.
-- `name` is the field in the configuration table and in lupe.conf.lua. Order is the order of `--help`. Without `flag`
-- and `env` a setting is of the file alone: a table, which its `check(where, given)` takes (and returns) or refuses
-- (nil and a message).
-- @module lupe.settings

local action_kinds = require("lupe.action_kinds")
local rule_settings = require("lupe.rule_settings")
local suppressions = require("lupe.suppressions")
local effective_uid = require("lupe.ffi").effective_uid

local function state_dir(env)
  local base = env("XDG_STATE_HOME")
  if base and base:sub(1, 1) == "/" then return base .. "/lupe" end
  local home = env("HOME")
  if home and home:sub(1, 1) == "/" then return home .. "/.local/state/lupe" end
  return "/tmp/lupe-" .. (env("USER") or "state"):gsub("[^%w_.-]", "_")
end

--- Where programs find the daemon: the same for `lupe serve` and for `lupe preload-env`.
local function socket(env)
  local uid = effective_uid()
  if uid == 0 then return "/run/lupe/agents" end
  local by_systemd = (env("RUNTIME_DIRECTORY") or ""):match("^[^:]+")
  if by_systemd then return by_systemd .. "/agents" end
  local base = env("XDG_RUNTIME_DIR")
  if base and base:sub(1, 1) == "/" then return base .. "/lupe/agents" end
  return ("/tmp/lupe-%d/agents"):format(uid)
end

return {
  {
    name = "listen", flag = "--listen", env = "LUPE_LISTEN", type = "address", default = "127.0.0.1:7077",
    doc = "where the HTTP API listens; loopback only. Without it a taken port means the next free one",
  },
  {
    name = "report", flag = "--report", env = "LUPE_REPORT", type = "choice",
    values = { "text", "json", "none" },
    default = "text", doc = "how to report at the end of the run",
  },
  {
    name = "output", flag = "--output", env = "LUPE_OUTPUT", type = "path", placeholder = "FILE",
    doc = "write the report to this file instead of stderr",
  },
  {
    name = "duration_secs", flag = "--duration", env = "LUPE_DURATION_SECS", type = "seconds", min = 0.1,
    max = 31536000,
    doc = "end the command by SIGTERM after this time",
  },
  {
    name = "heap_interval_secs", flag = "--heap-interval", env = "LUPE_HEAP_INTERVAL_SECS", type = "seconds",
    default = 1, min = 0.1, max = 86400,
    doc = "between two heap profiles; 60 are kept, and the interval doubles when they are full",
  },
  {
    name = "sample_bytes", flag = "--sample-bytes", env = "LUPE_SAMPLE_BYTES", type = "bytes",
    default = 524288, min = 1,
    max = 2 ^ 40, doc = "one sample per so many allocated bytes, on average; rounded to a power of two",
  },
  {
    name = "cpu_hz", flag = "--cpu-hz", env = "LUPE_CPU_HZ", type = "integer", default = 99, min = 0, max = 1000,
    doc = "CPU samples per second of CPU time of each thread; 0: none. Where it is not given: none while no rule needs "
      .. "them",
  },
  {
    name = "wall_hz", flag = "--wall-hz", env = "LUPE_WALL_HZ", type = "integer", default = 20, min = 0, max = 100,
    doc = "looks per second at what threads wait for; 0: none. Where it is not given: none while no rule needs them",
  },
  {
    name = "record", flag = "--record", env = "LUPE_RECORD", type = "path", placeholder = "FILE",
    doc = "record the run into this file, for lupe report and lupe rules replay",
  },
  {
    name = "record_interval_secs", flag = "--record-interval", env = "LUPE_RECORD_INTERVAL_SECS", type = "seconds",
    default = 5, min = 0.5, max = 86400,
    doc = "between two frames of the recording, and at least a 24th of the time that the run has lasted",
  },
  {
    name = "record_max_mb", flag = "--record-max-mb", env = "LUPE_RECORD_MAX_MB", type = "number", default = 512,
    min = 1, max = 2 ^ 40, unit = "MiB", doc = "size of the recording; past it only the last frame is added",
  },
  {
    name = "base", flag = "--base", env = "LUPE_BASE", type = "path", placeholder = "RECORDING",
    doc = "what rules may compare this run with: the last snapshot of a recording",
  },
  {
    name = "rules", flag = "--rules", env = "LUPE_RULES", type = "path", placeholder = "DIR",
    doc = "your own rules, added to the shipped ones (the same id shadows)",
  },
  {
    name = "actions", flag = "--actions", env = "LUPE_ACTIONS", type = "words", values = action_kinds.NAMES,
    default = {}, default_doc = "none", doc = "what rules may do, by name; what they would have done is told anyway",
  },
  {
    name = "action_cooldown_secs", flag = "--action-cooldown", env = "LUPE_ACTION_COOLDOWN_SECS", type = "seconds",
    default = 300, min = 1, max = 86400, doc = "between two of the same action on the same target",
  },
  {
    name = "alert_cooldown_secs", flag = "--alert-cooldown", env = "LUPE_ALERT_COOLDOWN_SECS", type = "seconds",
    default = 300, min = 1, max = 86400, doc = "between two words about the same alert",
  },
  {
    name = "routes", flag = "--routes", env = "LUPE_ROUTES", type = "path", placeholder = "DIR",
    doc = "your own HTTP routes, added to lupe's",
  },
  {
    name = "allocator", flag = "--allocator", env = "LUPE_ALLOCATOR", type = "choice",
    values = { "jemalloc", "system" },
    default = "jemalloc", doc = "system: leave the allocator alone; the heap is not profiled then",
  },
  {
    name = "require", flag = "--require", env = "LUPE_REQUIRE", type = "boolean", default = false,
    doc = "do not start a command that cannot be profiled",
  },
  {
    name = "enable_profiling", flag = "--enable-profiling", env = "ENABLE_PROFILING", type = "boolean",
    default = true,
    doc = "false: the command runs as if without lupe, and the profiling routes answer 503",
  },
  {
    name = "memory_interval_secs", flag = "--memory-interval", env = "PROFILING_MEMORY_INTERVAL_SECS",
    type = "seconds",
    default = 5, min = 0.1, max = 86400, doc = "between two readings of the memory figures; 1,000 are kept",
  },
  {
    name = "leak_check_interval_secs", flag = "--leak-check-interval",
    env = "PROFILING_LEAK_CHECK_INTERVAL_SECS",
    type = "seconds", default = 300, min = 1, max = 86400,
    doc = "between two scheduled checks, at most: they are closer at a run's start",
  },
  {
    name = "proof", flag = "--proof", env = "LUPE_PROOF", type = "word_or_seconds",
    words = { "request", "never", "exit" }, placeholder = "request|never|exit|SECS", default = "request", min = 1,
    max = 31536000,
    doc = "when leak proofs are run: only when asked for, never, as a process exits, or every so often; each stops the "
      .. "process for the time of a fork",
  },
  {
    name = "proof_interval_ms", flag = "--proof-interval-ms", env = "LUPE_PROOF_INTERVAL_MS", type = "integer",
    default = 2000, min = 10, max = 60000,
    doc = "milliseconds between the two scans of a leak proof; 200 at most as a process exits",
  },
  {
    name = "proof_max_secs", flag = "--proof-max-secs", env = "LUPE_PROOF_MAX_SECS", type = "seconds", default = 30,
    min = 0.1, max = 3600, doc = "one scan may take so long, else the proof is given up; 10 at most as a process exits",
  },
  {
    name = "proof_max_heap_mb", flag = "--proof-max-heap-mb", env = "LUPE_PROOF_MAX_HEAP_MB", type = "number",
    default = 65536, min = 1, max = 2 ^ 40, unit = "MiB",
    doc = "of a process that has more anonymous memory there is no proof",
  },
  {
    name = "proof_max_table_mb", flag = "--proof-max-table-mb", env = "LUPE_PROOF_MAX_TABLE_MB", type = "number",
    default = 256, min = 1, max = 2 ^ 20, unit = "MiB", doc = "a scan's own tables may become so large",
  },
  {
    name = "proof_min_free_mb", flag = "--proof-min-free-mb", env = "LUPE_PROOF_MIN_FREE_MB", type = "number",
    default = 64, min = 0, max = 2 ^ 40, unit = "MiB",
    doc = "so much memory is to stay free all the while, on the machine and in the control group",
  },
  {
    name = "proof_min_free_share", flag = "--proof-min-free-share", env = "LUPE_PROOF_MIN_FREE_SHARE", type = "number",
    default = 0.1, min = 0, max = 1,
    doc = "no proof begins with less free memory, as a share of the process's anonymous one: what it writes meanwhile "
      .. "is copied",
  },
  {
    name = "memory_warning_mb", flag = "--memory-warning-mb", env = "PROFILING_MEMORY_WARNING_MB",
    type = "number",
    default = 650, min = 1, max = 2 ^ 40, unit = "MiB", doc = "resident memory above this is a warning",
  },
  {
    name = "memory_alert_mb", flag = "--memory-alert-mb", env = "PROFILING_MEMORY_ALERT_MB", type = "number",
    default = 700, min = 1, max = 2 ^ 40, unit = "MiB", doc = "resident memory above this is critical",
  },
  {
    name = "state_dir", flag = "--state-dir", env = "LUPE_STATE_DIR", type = "path", placeholder = "DIR",
    default_from = state_dir, default_doc = "~/.local/state/lupe",
    doc = "private directory that holds the heap snapshots, and the last reports of lupe serve",
  },
  {
    name = "socket", flag = "--socket", env = "LUPE_SERVE_SOCKET", type = "path", placeholder = "PATH",
    default_from = socket, default_doc = "/run/lupe/agents for root, else $XDG_RUNTIME_DIR/lupe/agents",
    doc = "where programs connect to lupe serve: an absolute path, in a folder that is made where it is missing; "
      .. "without XDG_RUNTIME_DIR the default is /tmp/lupe-UID/agents",
  },
  {
    name = "users", flag = "--users", env = "LUPE_SERVE_USERS", type = "text", placeholder = "NAME,...|all",
    doc = "whose programs may connect to lupe serve beside its own user's; only where root runs it",
  },
  {
    name = "reports_keep", flag = "--reports-keep", env = "LUPE_REPORTS_KEEP", type = "integer", default = 200,
    min = 1, max = 100000, doc = "last reports of programs that ended, as lupe serve keeps them; the oldest goes first",
  },
  {
    name = "reports_max_mb", flag = "--reports-max-mb", env = "LUPE_REPORTS_MAX_MB", type = "number", default = 64,
    min = 1, max = 2 ^ 40, unit = "MiB", doc = "size of all of them together; the oldest goes first",
  },
  {
    name = "reports_min_secs", flag = "--reports-min-secs", env = "LUPE_REPORTS_MIN_SECS", type = "seconds",
    default = 10, min = 0, max = 86400,
    doc = "lupe serve reports on programs that were there for at least this time; those in which a check has found "
      .. "something, always",
  },
  {
    name = "snapshot_keep", flag = "--snapshot-keep", env = "LUPE_SNAPSHOT_KEEP", type = "integer",
    default = 20, min = 1,
    max = 10000, doc = "heap snapshots kept; the oldest goes first",
  },
  {
    name = "snapshot_max_mb", flag = "--snapshot-max-mb", env = "LUPE_SNAPSHOT_MAX_MB", type = "number",
    default = 512,
    min = 1, max = 2 ^ 40, unit = "MiB", doc = "size of all of them together; the oldest goes first",
  },
  {
    name = "rate_reads", flag = "--rate-reads", env = "LUPE_RATE_READS", type = "integer", default = 100,
    min = 0,
    max = 10000000, doc = "reads per minute and peer; 0: no limit",
  },
  {
    name = "rate_leak", flag = "--rate-leak", env = "LUPE_RATE_LEAK", type = "integer", default = 10, min = 0,
    max = 10000000, doc = "leak detections per minute and peer; 0: no limit",
  },
  {
    name = "rate_snapshots", flag = "--rate-snapshots", env = "LUPE_RATE_SNAPSHOTS", type = "integer",
    default = 5, min = 0,
    max = 10000000, doc = "snapshots per minute and peer; 0: no limit",
  },
  {
    name = "rule_params", type = "table", check = rule_settings.check_params,
    doc = "params of rules, by the rule's id: { [\"leak.steady-growth\"] = { min_growth = 10 } }",
  },
  {
    name = "rules_disabled", type = "table", check = rule_settings.check_disabled,
    doc = "ids of rules that do not run, * is any text: { \"bottleneck.*\", \"pattern.polling\" }",
  },
  {
    name = "suppressions", type = "table", check = suppressions.check,
    doc = "findings that are not told, each { site, rule, module, reason, until_date }: site or rule, reason and date "
      .. "are needed",
  },
  {
    name = "config", flag = "--config", env = "LUPE_CONFIG", type = "path", placeholder = "FILE",
    not_in_file = true,
    doc = "a Lua file that returns a table of settings; ./lupe.conf.lua is read where it exists",
  },
}
