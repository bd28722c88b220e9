--- The zoo of bench/zoo: what is written about its programs is about programs that are there, and run.
local support = require("spec.support")
local zoo_runs = require("bench.zoo_runs")

local labels = dofile(support.root .. "/bench/zoo/labels.lua")

local function output(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read("*a")
  pipe:close()
  return text
end

local function program(entry) return support.built("bench/zoo/" .. entry.program) end

describe("the zoo's labels", function()
  it("name every scenario of every program once, and no other", function()
    local labelled, known, asked = {}, {}, {}
    for _, entry in ipairs(labels) do labelled[#labelled + 1] = entry.program .. " " .. entry.scenario end
    for _, entry in ipairs(labels) do
      local usage = not asked[entry.program] and output(program(entry)) or ""
      asked[entry.program] = true
      for scenario in (usage:match("scenarios:([^\n]*)") or ""):gmatch("%S+") do
        known[#known + 1] = entry.program .. " " .. scenario
      end
    end
    table.sort(labelled)
    table.sort(known)
    assert.same(known, labelled)
  end)

  it("name functions of their program, and none where nothing is lost", function()
    local symbols = {}
    for _, entry in ipairs(labels) do
      assert.equal(entry.label == "clean", #entry.functions == 0, entry.scenario)
      symbols[entry.program] = symbols[entry.program] or output("nm --demangle '" .. program(entry) .. "'")
      for _, list in ipairs({ entry.functions, entry.holds }) do
        for _, name in ipairs(list) do
          local found = (" " .. symbols[entry.program]):find(name, 1, true)
          assert.is_truthy(found, ("%s has no function %s"):format(entry.program, name))
        end
      end
    end
  end)

  it("say what a leak proof must answer, and never that it proves what is reachable", function()
    for _, entry in ipairs(labels) do
      local about = entry.program .. " " .. entry.scenario
      assert.is_truthy(({ proven = true, unreferenced = true, none = true })[entry.proof], about)
      assert.is_true(entry.label == "leak" or entry.proof ~= "proven", about)
      assert.is_true(entry.label ~= "leak" or entry.proof ~= "none", about)
      assert.is_true(entry.proof ~= "unreferenced" or #entry.functions + #entry.holds > 0, about)
    end
  end)

  it("are of at least 44 programs, of which about half leak or grow, in C, C++ and with threads", function()
    local count, languages, programs = { leak = 0, growing = 0, clean = 0 }, {}, {}
    for _, entry in ipairs(labels) do
      if entry.trend then count[entry.label] = count[entry.label] + 1 end
      languages[entry.language], programs[entry.program] = true, true
    end
    local bad = count.leak + count.growing
    assert.is_true(bad + count.clean >= 44)
    assert.is_true(math.abs(bad - count.clean) <= 4)
    assert.is_true(languages["C"] and languages["C++"] and programs.lost_threads and programs.workers)
  end)
end)

-- LeakSanitizer looks at what nothing points to when a program ends. It does not see what a child process loses.
local NOT_SEEN = { fork_worker = true }
local LEAKED = 23
-- What programs end with where the machine lacks what they are about.
local NOT_HERE = 77

describe("every program of the zoo", function()
  teardown(support.cleanup)

  it("runs for the time that it is given, and loses what its label says, by LeakSanitizer's judgement", function()
    local sanitizer = output("cc -print-file-name=liblsan.so"):match("%S+")
    local env = { LD_PRELOAD = sanitizer, LSAN_OPTIONS = "symbolize=0:exitcode=" .. LEAKED }
    zoo_runs.at_once(labels, 4, 0, function(entry)
      return support.spawn({ program(entry), entry.scenario, "--seed", 1, "--seconds", 15, "--clock", "ticks" },
        { env = env })
    end, function(entry, process)
      local loses = entry.label == "leak" and not NOT_SEEN[entry.scenario]
      if process.code == NOT_HERE then
        return assert.matches("the machine does not offer it", process:stderr(), 1, true)
      end
      assert.equal(loses and LEAKED or 0, process.code, ("%s %s: %s %s"):format(entry.program, entry.scenario,
        process.signal or "", process:stderr():sub(1, 3000)))
    end)
  end)

  it("stands still at its end until it is told to go on, where it is to rest", function()
    local entry = labels[1]
    local fifo = support.temp_dir() .. "/stdin"
    assert(os.execute("mkfifo '" .. fifo .. "'") == 0)
    local stdin = assert(io.open(fifo, "r+"))
    local process = support.spawn({ program(entry), entry.scenario, "--seed", 1, "--seconds", 5, "--clock", "ticks",
      "--rest", "on" }, { stdin = fifo })
    support.eventually(function() return process:stdout() == "resting\n" end, 20, "the program to rest")
    assert.is_true(process:alive())
    stdin:write("\n")
    stdin:flush()
    assert.equal(0, process:wait(20))
    stdin:close()
  end)

  it("says what it knows when it is asked for something else", function()
    local ended = support.run({ program(labels[1]), "no-such-scenario" })
    assert.equal(2, ended.code)
    assert.matches("scenarios: .*" .. labels[1].scenario, ended.err)
  end)
end)
