--- Has leak proofs run: those that a request asks for, those on a schedule (--proof=SECS), and the one at a process's
-- exit (--proof=exit). A process has one at a time: who asks for another meanwhile waits for that one and gets what
-- it gives, so that the program is stopped once. A daemon's programs have a schedule each; of all that are due one
-- process is proved at a time. Loop thread.
--
-- What a proof found is in the next snapshot that is taken, as `view.proof`.
-- @module lupe.prover

local async = require("lupe.async")
local format = require("lupe.format")
local programs = require("lupe.programs")
local proof_words = require("lupe.proof_words")

local prover = {}
prover.__index = prover

local MIB = 2 ^ 20
local EXIT_INTERVAL_MS, EXIT_MAX_MS = 200, 10000 -- who exits is not to wait for long

--- @param app as `lupe.server` builds it
function prover.new(app)
  local config, host = app.config, app.host
  local self = setmetatable({
    app = app, under_way = {}, -- pid -> callbacks of those who wait for its proof
    counts = {}, -- outcome's word -> times
    pause_ms = 0,
    every_ms = nil, due_ms = {}, -- where they are on schedule: between two, and when (monotonic) by `subjects` below
    limits = {
      interval_ms = config.proof_interval_ms, max_ms = config.proof_max_secs * 1000,
      max_heap_bytes = config.proof_max_heap_mb * MIB, max_table_bytes = config.proof_max_table_mb * MIB,
      min_free_bytes = config.proof_min_free_mb * MIB, min_free_share = config.proof_min_free_share,
    },
  }, prover)
  if type(config.proof) == "number" then
    self.every_ms = config.proof * 1000
    self.due_ms.run = host.monotonic_ms() + self.every_ms
  elseif config.proof == "exit" then
    local limits = {}
    for name, value in pairs(self.limits) do limits[name] = value end
    limits.interval_ms = math.min(limits.interval_ms, EXIT_INTERVAL_MS)
    limits.max_ms = math.min(limits.max_ms, EXIT_MAX_MS)
    host.set_proof_at_exit(limits)
  end
  return self
end

--- Whether proofs may be asked for at all.
function prover:allowed() return self.app.config.proof ~= "never" and self.app.config.enable_profiling end

local function count(self, failure, reply)
  local word = failure and "unanswered" or proof_words.outcome(reply.outcome)
  self.counts[word] = (self.counts[word] or 0) + 1
  self.pause_ms = self.pause_ms + (reply and reply.pause_ms or 0)
end

--- Has one process proved, or waits for the proof that is under way. Calls back with a failure or a reply.
local function prove(self, pid, callback)
  local waiting = self.under_way[pid]
  if waiting then
    waiting[#waiting + 1] = callback
    return
  end
  waiting = { callback }
  self.under_way[pid] = waiting
  self.app.host.prove(pid, self.limits, function(failure, reply)
    self.under_way[pid] = nil
    count(self, failure, reply)
    for _, each in ipairs(waiting) do each(failure, reply) end
  end)
end

--- Proves processes, all at the same time, and waits for all. Inside a task.
-- @tparam table targets live ones, as the host lists them
-- @treturn {{pid,name,failure,reply}...} `failure`: why there was no answer; `reply`: as `host.prove` gives it
function prover:run(targets)
  local results, left = {}, #targets
  if left == 0 then return results end
  return async.await(function(done)
    for i, target in ipairs(targets) do
      prove(self, target.pid, function(failure, reply)
        results[i] = { pid = target.pid, name = target.name, failure = failure, reply = reply }
        left = left - 1
        if left == 0 then done(results) end
      end)
    end
  end)
end

--- What the newest proof of a process found; "" where it is not known.
local function lost_of(view, pid)
  for _, target in ipairs(view and view.proof and view.proof.targets or {}) do
    if target.pid == pid and target.unreachable_bytes then
      return ("; nothing was found that points to %s in %s"):format(format.bytes(target.unreachable_bytes),
        format.plural(target.unreachable_objects, "object"))
    end
  end
  return ""
end

local function log_result(host, result, view)
  local who = ("leak proof of process %d (%s)"):format(result.pid, result.name)
  if result.failure then return host.log("warning", ("%s: no answer: %s"):format(who, result.failure)) end
  local reply = result.reply
  local _, status, why = proof_words.outcome(reply.outcome, reply.error, reply.read_bytes, reply.anonymous_bytes)
  if status ~= "complete" then
    return host.log("warning", ("%s: %s: %s"):format(who, status == "refused" and "refused" or "given up", why))
  end
  host.log("info", ("%s: complete after %s, stopped it for %.1f ms at most, %s read%s"):format(who,
    format.duration(reply.elapsed_ms), reply.pause_ms, format.bytes(reply.read_bytes), lost_of(view, result.pid)))
end

--- What is on schedule by itself: the run, or each program of a daemon.
-- @return array of { key, root = the process that the program began with, targets }
local function subjects(host)
  if not host.serves then return { { key = "run", targets = host.targets() } } end
  local list = {}
  for _, program in ipairs(programs.list(host)) do
    if program.live then
      list[#list + 1] = { key = program.key, root = program.pid, targets = program.targets }
    end
  end
  return list
end

--- The one that has been due for the longest time, or nil. A new one is due when it has been there for as long as two
-- proofs are apart.
local function most_due(self, now)
  local due_ms, first = {}, nil
  for _, subject in ipairs(subjects(self.app.host)) do
    local at = self.due_ms[subject.key] or now + self.every_ms
    due_ms[subject.key] = at
    if at <= now and (not first or at < due_ms[first.key]) then first = subject end
  end
  self.due_ms = due_ms -- without those that are gone
  return first
end

--- All live processes of one that is due, one after the other.
local function round(self, subject)
  local found, views = 0, self.app.views
  for _, target in ipairs(subject.targets) do
    if target.live and target.connected and target.heap_state == "on" then
      local result = self:run({ target })[1]
      local view
      if subject.root then view = views:of_program(subject.root) else view = views:renew() end
      log_result(self.app.host, result, view)
      found = found + 1
    end
  end
  return found
end

--- About once a second: what is on schedule.
function prover:tick()
  local app, now = self.app, self.app.host.monotonic_ms()
  if not self.every_ms or self.on_schedule or not self:allowed() then return end
  local subject = most_due(self, now)
  if not subject then return end
  self.on_schedule = true
  async.spawn(round, function(ok, found, trace)
    self.on_schedule, self.due_ms[subject.key] = false, app.host.monotonic_ms() + self.every_ms
    if not ok then
      app.host.log("error", "the leak proofs on schedule failed: " .. (trace or tostring(found)))
    elseif found > 0 and subject.root then
      app.checks:check_soon(subject.key)
    elseif found > 0 then
      app.analysis:check_soon()
    end
  end, self, subject)
end

--- Adds the families of leak proofs.
-- @param out lupe.exposition
function prover:metrics(out)
  local samples, words = {}, {}
  for word in pairs(self.counts) do words[#words + 1] = word end
  if not self.counts.complete then words[#words + 1] = "complete" end
  table.sort(words)
  for i, word in ipairs(words) do samples[i] = { self.counts[word] or 0, labels = { { "outcome", word } } } end
  out:add("lupe_proofs", "counter", "Leak proofs that were asked for while the process ran.", samples)
  out:add("lupe_proof_pause_seconds", "counter",
    "The longer one of the two times that each of them stopped its process.", self.pause_ms / 1000)
  local view = self.app.views:merged()
  local proof = view and view.proof
  out:add("lupe_proof_unreachable_bytes", "gauge", "What nothing points to, by the newest leak proofs.",
    proof and proof.unreachable_bytes)
end

return prover
