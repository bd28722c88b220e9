--- Recordings of real runs: what is in them, what the commands say of them, and what is left of one that was cut.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

local SIGKILL = 9

local SEES = [[
return {
  api = 1, id = "spec.sees", kind = "pattern", title = "sees what is live", needs = { "heap" },
  check = function(view)
    local findings = {}
    for site in view.heap:sites { limit = 1 } do
      local base = view.base and (", %d before"):format(view.base.heap.profiles) or ""
      findings[1] = { site = site, summary = ("%d profiles%s"):format(view.heap.profiles, base) }
    end
    return findings
  end,
}
]]

local function lupe(...) return support.run({ support.built("lupe"), ... }, { seconds = 60 }) end

local function replay(path, ...)
  local done = lupe("rules", "replay", path, "--report", "json", ...)
  assert.equal(0, done.code, done.err)
  return support.json.decode(done.out), done
end

--- A program of 40 MB that waits for a file, recorded twice a second; returns when the recording has two frames.
local function start(file, flags)
  local go = support.temp_dir() .. "/go"
  local all = { "--record", file, "--record-interval", "0.5" }
  for _, flag in ipairs(flags or {}) do all[#all + 1] = flag end
  local run = lupe_run.start({ support.fixture("agent_host"), "keep=2000,20000", "wait=" .. go, "exit=3" },
    { flags = all })
  support.eventually(function()
    if not run.process:alive() then error("lupe ended: " .. run.process:stderr(), 0) end
    return support.read_file(file) and #replay(file).frames >= 2
  end, 30, "two frames of a recording")
  return run, function() support.write_file(go, "") end
end

describe("a run that is recorded", function()
  local dir, file, rules, live, code, messages

  setup(function()
    dir = support.temp_dir()
    file, rules = dir .. "/run.lupe", dir .. "/rules"
    os.execute("mkdir " .. rules)
    support.write_file(rules .. "/sees.lua", SEES)
    local run, let_end = start(file, { "--rules", rules })
    let_end()
    live, code = run:finish()
    messages = run.process:stderr()
  end)
  teardown(support.cleanup)

  it("ends as it would without", function()
    assert.equal(3, code)
    assert.is_nil(messages:find("recording", 1, true), messages)
    assert.equal("run.lupe\n", support.run({ "sh", "-c", "ls -A " .. dir .. " | grep -v rules" }).out)
  end)

  it("is reported from its recording as at its end", function()
    local done = lupe("report", file, "--report", "json", "--rules", rules)
    assert.equal(0, done.code, done.err)
    local told = support.json.decode(done.out)
    for _, field in ipairs({
      "name", "pid", "outcome", "answer", "status", "potential_leaks", "observed", "suspicious_patterns",
      "recommendations", "allocators", "memory", "targets", "measurement", "notes",
    }) do
      assert.same(live[field], told[field], field)
    end
    assert.near(live.duration_seconds, told.duration_seconds, 5)
    assert.is_true(told.profiler.cpu_seconds > 0)
    local words = lupe("report", file)
    assert.matches("^lupe: agent_host ran for .*, exit code 3", words.out)
    assert.equal("", words.err)
  end)

  it("is reported as of an earlier frame too, into a file", function()
    local path = dir .. "/report.txt"
    local done = lupe("report", file, "--at", "0", "--output", path)
    assert.same({ 0, "", "" }, { done.code, done.out, done.err })
    assert.matches("and was still running", support.read_file(path), 1, true)
    os.remove(path)
  end)

  it("replays the same rules to the same findings, byte for byte", function()
    local told, first = replay(file, "--rules", rules)
    assert.equal(first.out, select(2, replay(file, "--rules", rules)).out)
    assert.is_true(told.complete)
    assert.equal("agent_host", told.program)
    local last = told.frames[#told.frames]
    assert.is_true(last.last)
    local before = 0
    for _, frame in ipairs(told.frames) do
      assert.same({}, frame.errors)
      assert.is_true(frame.seconds >= before)
      before = frame.seconds
      local seen
      for _, found in ipairs(frame.findings) do seen = found.rule == "spec.sees" and found or seen end
      if frame.last then assert.matches("^%d+ profiles$", seen.summary) end
    end
    local one = replay(file, "--rule", rules .. "/sees.lua", "--at", "100000").frames
    assert.same({ 1, 1 }, { #one, #one[1].findings })
    local text = lupe("rules", "replay", file, "--rule", rules .. "/sees.lua")
    assert.matches("+ spec.sees\n", text.out, 1, true)
  end)

  it("tests a rule", function()
    local done = lupe("rules", "test", rules .. "/sees.lua", file)
    assert.equal(0, done.code, done.out .. done.err)
    assert.matches("spec.sees ok\n  ok    .*/run.lupe: %d+ frames, 1 finding at the last\n", done.out)
    support.write_file(rules .. "/sees.test.lua", [[
return {
  { name = "sees the recorded one", view = "../run.lupe", base = { sites = { { name = "a", history = { 1, 2, 3 } } } },
    expect = { { component = "spec_leaf", summary = "profiles, 3 before" } } },
  { name = "sees a made-up one", view = { sites = { { name = "a", history = { 1, 2 } } } },
    expect = { { component = "b" } } },
}
]])
    done = lupe("rules", "test", rules .. "/sees.lua")
    assert.equal(1, done.code)
    assert.matches("FAIL  sees a made%-up one\n +expected component b\n +got +a: 2 profiles\n2 cases, 1 failed",
      done.out)
    done = lupe("rules", "check", rules .. "/sees.lua")
    assert.same({ 0, rules .. "/sees.lua: ok\n" }, { done.code, done.out })
    done = lupe("rules", "list", "--rules", rules)
    assert.equal(0, done.code, done.out)
    assert.matches("spec.sees +pattern +%- +active", done.out)
  end)

  it("is what another run is compared with, and that one holds what was written when lupe is killed", function()
    local other = dir .. "/other.lupe"
    local run, let_end = start(other, { "--rules", rules, "--base", file })
    local live_too = run:post("/api/profiling/leak-detection")
    run.process:kill(SIGKILL)
    run.process:wait(10)
    let_end() -- the program goes on without lupe
    local profiles = live.measurement.profiles
    assert.matches(("^%%d+ profiles, %d before$"):format(profiles), live_too.suspicious_patterns[1])
    local told = replay(other, "--rule", rules .. "/sees.lua", "--base", file)
    assert.same({ false, "it ends without an end mark" }, { told.complete, told.ending })
    local found = told.frames[#told.frames].findings[1]
    assert.matches(("^%%d+ profiles, %d before$"):format(profiles), found.summary)
    local words = lupe("report", other)
    assert.equal(0, words.code, words.err)
    assert.matches("how it ended is not in the recording", words.out, 1, true)
    assert.matches("Live heap, %d%d.%d MiB by the function", words.out)
    os.remove(other)
  end)

  it("stops a rule that loops, as live, and says so", function()
    local loops = support.write_file(support.temp_dir() .. "/loops.lua", [[
return {
  api = 1, id = "spec.loops", kind = "pattern", title = "loops", check = function() while true do end end,
}
]])
    local told = replay(file, "--rule", loops, "--at", "0")
    assert.matches("^spec.loops: .*loops.lua:2: ", told.frames[1].errors[1])
    assert.equal(1, lupe("rules", "test", loops, file).code)
  end)

  it("loads a rule for any command as a run would, and no further", function()
    local folder = support.temp_dir()
    local large = support.write_file(folder .. "/large.lua", [[
local text = ("x"):rep(100000)
return { api = 1, id = "spec.large", kind = "pattern", title = "large", check = function()
  return { { summary = ("%d bytes"):format(#text) } }
end }
]])
    local endless = support.write_file(folder .. "/endless.lua", "while true do pcall(error) end")
    local done = lupe("rules", "check", large, endless)
    assert.same({ 1, ("%s: ok\n%s:1: more than 200000 instructions\n"):format(large, endless) },
      { done.code, done.out })
    assert.equal("100000 bytes", replay(file, "--rule", large, "--at", "0").frames[1].findings[1].summary)
  end)

  it("is no recording any more when it is damaged, cut or something else: that is said, with exit code 1", function()
    local whole, bad = support.read_file(file), dir .. "/bad.lupe"
    for message, text in pairs({
      ["it is cut off within its head"] = whole:sub(1, 20),
      ["it is no recording (--record makes one): it does not begin with LUPEREC1"] = ("nothing"):rep(9),
      ["its head is damaged"] = whole:sub(1, 30) .. "~" .. whole:sub(32),
    }) do
      support.write_file(bad, text)
      local done = lupe("report", bad)
      assert.same({ 1, "", ("lupe: error: %s: %s\n"):format(bad, message) }, { done.code, done.out, done.err })
    end
    support.write_file(bad, whole:sub(1, #whole - 100))
    local told = replay(bad)
    assert.is_false(told.complete)
    assert.is_true(#told.frames > 0)
    os.remove(bad)
    local done = lupe("report", dir .. "/missing")
    assert.same({ 1, ("lupe: error: %s/missing: No such file or directory\n"):format(dir) }, { done.code, done.err })
    done = lupe("report", file, "--base", dir .. "/missing")
    assert.matches("%-%-base: .*/missing: No such file or directory", done.err)
    done = lupe("report", file, "--output", dir .. "/nowhere/report")
    assert.same({ 125, ("lupe: %s/nowhere/report: No such file or directory\n"):format(dir) }, { done.code, done.err })
    done = lupe("rules", "replay", file, "--rule", dir .. "/missing.lua")
    assert.same({ 1, ("lupe: error: %s/missing.lua: No such file or directory\n"):format(dir) },
      { done.code, done.err })
  end)
end)

describe("a recording", function()
  after_each(support.cleanup)

  it("is made without a report, and of a program that cannot be profiled", function()
    local file = support.temp_dir() .. "/run.lupe"
    local done = lupe("run", "--listen", "127.0.0.1:0", "--report", "none", "--record", file, "--",
      support.fixture("static_program"))
    assert.equal(0, done.code, done.err)
    assert.matches("The heap was not profiled: it is statically linked", lupe("report", file).out, 1, true)
    local frames = replay(file).frames
    assert.same({ true, {} }, { frames[#frames].last, frames[#frames].errors })
  end)

  it("that cannot be made, or compared with, is said before the program is started", function()
    local dir = support.temp_dir()
    local done = lupe("run", "--listen", "127.0.0.1:0", "--record", dir, "--", "touch", dir .. "/started")
    assert.same({ 125, ("lupe: --record: %s: Is a directory\n"):format(dir) }, { done.code, done.err })
    done = lupe("run", "--listen", "127.0.0.1:0", "--base", dir .. "/missing", "--", "touch", dir .. "/started")
    assert.same({ 125, ("lupe: --base: %s/missing: No such file or directory\n"):format(dir) }, { done.code, done.err })
    assert.is_nil(support.read_file(dir .. "/started"))
  end)
end)
