--- What a daemon keeps of programs that ended: the report as at the end of a run, as JSON and as text, in a file.
--
-- Kept of programs that were there for `reports_min_secs` or in which a check has found something. Reports are made
-- one after the other, from what is still in memory; where more programs end than can wait for that, the shortest lives
-- are skipped, and counted. Loop thread.
--
-- A file has three parts: a line of JSON (what `list` gives), a line with the report's JSON, and the text.
-- @module lupe.last_reports

local async = require("lupe.async")
local format = require("lupe.format")
local json = require("lupe.json")
local report = require("lupe.report")
local snapshot_store = require("lupe.snapshot_store")
local text_report = require("lupe.text_report")

local last_reports = {}
last_reports.__index = last_reports

local MOST_WAITING = 16
local COLUMNS = 100
local WINDOW_MS = 600000 -- all samples that are still there
local HEAD_MAX_BYTES = 4096
local NOT_ITS_PARENT = "lupe serve is not its parent, so its exit code is not known"
local OWN_FIGURES = "the profiler's figures are those of the daemon while this program was there"

--- @param app as `lupe.server` builds it; of its config `state_dir`, `reports_keep`, `reports_max_mb`,
-- `reports_min_secs`
function last_reports.new(app)
  local config = app.config
  local self = setmetatable({
    app = app,
    store = snapshot_store.new(app.host, {
      state_dir = config.state_dir, snapshot_keep = config.reports_keep, snapshot_max_mb = config.reports_max_mb,
    }, { folder = "reports", prefix = "report", ending = "txt" }),
    heads = {}, -- id -> what is known of the file; false: it is not one of ours
    queue = {}, working = false,
    counts = { made = 0, short = 0, skipped = 0, failed = 0 },
  }, last_reports)
  if app.host.serves then -- it is better known now than when the first program has ended
    local ok, message = self.store:prepare()
    if not ok then app.host.log("warning", "no last reports can be kept: " .. message) end
  end
  return self
end

-- Making one ---------------------------------------------------------------------------------

--- What lupe spent while the program was there.
local function profiler_since(host, before)
  local now = host.profiler()
  if not before then return now end
  local since = setmetatable({ agent = setmetatable({}, { __index = now.agent }) }, { __index = now })
  since.runtime_cpu_ns = now.runtime_cpu_ns - before.runtime_cpu_ns
  for name, value in pairs(now.agent) do
    if type(value) == "number" then since.agent[name] = math.max(0, value - (before.agent[name] or 0)) end
  end
  return since
end

--- The host as a run of this program alone would have it.
local function host_of(host, program)
  return setmetatable({
    started_ms = program.first_ms,
    now_ms = function() return math.max(program.last_ms, program.first_ms) end,
    targets = function() return program.targets end,
    profiler = function() return profiler_since(host, program.profiler) end,
  }, { __index = host })
end

local function lasted_ms(program) return program.last_ms - program.first_ms end

local function how_of(program) return program.left and "exited" or "lost" end

local function info_of(program)
  return {
    pid = program.pid, connected = true, unknown_end = NOT_ITS_PARENT,
    notes = {
      program.left and "it said that it exits, and gave its last profile"
        or "its connection ended without a word: it was killed or crashed, or it broke away from lupe",
      OWN_FIGURES,
    },
  }
end

local function make(self, program)
  local app = self.app
  local view, reason = app.views:of_program(program.pid, WINDOW_MS)
  if not view then return nil, reason end
  local result = app.analysis:run(view, { program = program, occasion = "exit" })
  local host = host_of(app.host, program)
  local data = report.assemble({ host = host, config = app.config, analysis = app.analysis }, info_of(program), view,
    result)
  return json.encode(data), text_report(data, { columns = COLUMNS, color = false, unicode = false })
end

local function write_file(path, parts)
  local file, message, number = io.open(path, "wb")
  if not file then return nil, message, number == 28 and "ENOSPC" or "EIO" end
  local ok
  ok, message = file:write(unpack(parts))
  local closed, close_message = file:close()
  if not ok or not closed then return nil, message or close_message, "EIO" end
  return true
end

local function keep(self, program)
  local body, text = make(self, program)
  if not body then return nil, text end
  local entry, message = self.store:begin()
  if not entry then return nil, message end
  local head
  local file, failure = self.store:finish(entry, function(path)
    head = {
      id = entry.snapshot_id, pid = program.pid, name = program.name, how = how_of(program),
      ended_ms = program.last_ms, lasted_ms = lasted_ms(program),
    }
    return write_file(path, { json.encode(head), "\n", body, "\n", text })
  end)
  if not file then return nil, failure end
  self.heads[file.snapshot_id] = head
  self.app.host.log("info", ("%s (process %d) %s after %s; its last report is %s"):format(program.name, program.pid,
    head.how == "exited" and "has exited" or "was lost", format.duration(head.lasted_ms),
    last_reports.url(file.snapshot_id)))
  return true
end

local function work_off(self)
  while self.queue[1] do
    local program = table.remove(self.queue, 1)
    local ok, kept, reason = pcall(keep, self, program)
    if ok and kept then
      self.counts.made = self.counts.made + 1
    else
      self.counts.failed = self.counts.failed + 1
      self.app.host.log("warning", ("no last report of %s (process %d): %s"):format(program.name, program.pid,
        tostring(not ok and kept or reason)))
    end
  end
end

--- The one that waits and was there for the shortest time.
local function shortest(queue)
  local at = 1
  for i, program in ipairs(queue) do
    if lasted_ms(program) < lasted_ms(queue[at]) then at = i end
  end
  return at
end

--- A program has ended.
-- @param program of lupe.programs; `forgotten`: nothing of it is in memory any more
-- @tparam boolean accused whether a check has found something in it
function last_reports:add(program, accused)
  if lasted_ms(program) < 1000 * self.app.config.reports_min_secs and not accused then
    self.counts.short = self.counts.short + 1
    return
  end
  local queue = self.queue
  if program.forgotten then
    self.counts.skipped = self.counts.skipped + 1
    return
  end
  queue[#queue + 1] = program
  if #queue > MOST_WAITING then
    table.remove(queue, shortest(queue))
    self.counts.skipped = self.counts.skipped + 1
  end
  if self.working then return end
  self.working = true
  async.spawn(function() work_off(self) end, function(ok, failure, trace)
    self.working = false
    if not ok then self.app.host.log("error", "last reports failed: " .. (trace or tostring(failure))) end
  end)
end

-- Reading them -------------------------------------------------------------------------------

local function read_head(path)
  local file = io.open(path, "rb")
  if not file then return false end
  local line = (file:read(HEAD_MAX_BYTES) or ""):match("^([^\n]*)\n")
  file:close()
  local head = line and json.decode(line)
  return type(head) == "table" and head.id and head or false
end

--- What is on disk, newest first: array of { id, pid, name, how ("exited", "lost"), ended_ms, lasted_ms, size_bytes }.
function last_reports:list()
  local list, heads = {}, {}
  for _, file in ipairs(self.store:files()) do
    local id = file.snapshot_id
    local head = self.heads[id]
    if head == nil then head = read_head(self.store:path(id)) end
    heads[id] = head
    if head then
      list[#list + 1] = setmetatable({ size_bytes = file.size_bytes, id = id }, { __index = head })
    end
  end
  self.heads = heads -- those of files that are gone go too
  return list
end

--- @return the JSON, the text and the head; nil where there is none of this id
function last_reports:read(id)
  if not self.store:file(id) then return nil end
  local file = io.open(self.store:path(id), "rb")
  if not file then return nil end
  local whole = file:read("*a")
  file:close()
  local head, body, text = whole:match("^([^\n]*)\n([^\n]*)\n(.*)$")
  if not head then return nil end
  return body, text, json.decode(head)
end

--- The path of the newest report on a process that ended, or nil.
-- @tparam table target of host.targets()
-- @tparam table list what `list` gives
function last_reports.url_of(target, list)
  for _, head in ipairs(list) do
    if head.pid == target.root_pid and head.ended_ms >= target.first_ms then return last_reports.url(head.id) end
  end
  return nil
end

function last_reports.url(id) return "/api/reports/" .. id end

--- @param out lupe.exposition
function last_reports:metrics(out)
  local samples = {}
  for _, name in ipairs({ "failed", "made", "short", "skipped" }) do
    samples[#samples + 1] = { self.counts[name], labels = { { "result", name } } }
  end
  out:add("lupe_last_reports", "counter", "Programs that ended, by what became of their last report.", samples)
end

--- For who lists them: how many programs ended without one.
function last_reports:left_out() return { short = self.counts.short, skipped = self.counts.skipped } end

return last_reports
