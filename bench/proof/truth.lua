--- What leak proofs answer where it is known what is lost: the zoo, C++, Lua, Python, SQLite, redis under load.
--
-- A program that loses memory runs by its own clock, and then rests with all that it holds. Where the function that
-- loses also holds some, a first proof is made; then it frees those and rests again. In the last proof every object of
-- that function is lost: how many of the sampled ones are proven is the first figure. What was unreachable in the
-- first proof, and more than is there in the last, was called lost while it was held.
-- Sound programs run by the real clock, with all their threads at work, and are proved once. There, and at all other
-- functions of those that lose, nothing may be proven.
local harness = require("bench.harness")
local support = require("spec.support")
local tasks = require("bench.proof.tasks")
local zoo_runs = require("bench.zoo_runs")

local LOSING_SECONDS, SOUND_SECONDS, BUSY_SECONDS, PROVED_AFTER_SECONDS = 40, 13, 12, 6
local AT_ONCE, SEED, NOT_HERE = 14, 1, 77
local FLAGS = { "--sample-bytes", "4K", "--cpu-hz", "0", "--wall-hz", "0" }
local STRONGER = { none = { unreferenced = true, proven = true }, unreferenced = { proven = true }, proven = {} }

-- Whether a site is of the functions that are known to lose, or to grow. Those of libraries without symbols have
-- addresses for names.
local function is_subject(entry, plain)
  return zoo_runs.is_one_of(entry.functions, plain) or entry.pattern and plain:find(entry.pattern) ~= nil
end

local function note(results, text) results.notes[#results.notes + 1] = text end

--- Adds the sites of one proof: those of the functions, and what is said of others.
-- @return { sampled, unreachable, proven } of the functions
local function judge(results, entry, proof, name)
  local sum = { sampled = 0, unreachable = 0, proven = 0, groups = 0, states = {} }
  for _, site in ipairs(proof.sites) do
    local plain = zoo_runs.plain(site.component)
    if is_subject(entry, plain) then
      sum.sampled, sum.unreachable = sum.sampled + site.sampled_objects, sum.unreachable + site.unreachable
      sum.groups = sum.groups + site.groups
      if site.state == "proven" then sum.proven = sum.proven + site.unreachable end
      sum.states[#sum.states + 1] = site.state
      if site.state == "unreferenced" then sum.reason = table.concat(site.reasons, "; ") end
    else
      local held = zoo_runs.is_one_of(entry.holds, plain)
      results.referenced = results.referenced + site.sampled_objects
      if held then table.insert(results.hidden, { entry = entry, site = site }) end
      if site.state == "proven" then
        results.false_proven = results.false_proven + site.unreachable
        note(results, ("%s: %s is called proven (%d of %d sampled)"):format(name, site.component, site.unreachable,
          site.sampled_objects))
      elseif site.unreachable > 0 then
        results.unreferenced = results.unreferenced + site.unreachable
        if not held or STRONGER[entry.proof].unreferenced then
          note(results, ("%s: %s is called unreferenced (%d of %d sampled): %s"):format(name, site.component,
            site.unreachable, site.sampled_objects, table.concat(site.reasons, "; ")))
        end
      end
    end
  end
  return sum
end

-- A proof and what it says; one that is not complete says nothing, and counts.
local function prove_once(results, entry, one, name)
  local proof = one:prove(nil, true)
  if proof.status ~= "complete" then
    results.incomplete = results.incomplete + 1
    note(results, ("%s: %s: %s"):format(name, proof.status, tostring(proof.reason)))
  end
  return judge(results, entry, proof, name)
end

local function await_rest(one, count)
  tasks.wait(function()
    if not one.process:alive() then one:fail("it has ended") end
    local _, found = one.process:stdout():gsub("resting\n", "")
    return found >= count
  end, 60, one.name .. " to rest")
end

local function finish(one, entry)
  local code = one:finish(60)
  if code ~= 0 then one:fail("exit code " .. tostring(code)) end
  return entry
end

local function prove_losing(results, entry)
  local argv = zoo_runs.command(entry, SEED, LOSING_SECONDS)
  for _, word in ipairs({ "--clock", "ticks", "--rest", "on" }) do argv[#argv + 1] = word end
  local one = tasks.start(argv, FLAGS)
  local name, before = entry.program .. " " .. entry.scenario, nil
  await_rest(one, 1)
  if not one:await_profile() then one:fail("it has ended") end
  if entry.settles then
    before = prove_once(results, entry, one, name)
    one:write("\n")
    await_rest(one, 2)
  end
  local after = prove_once(results, entry, one, name)
  one:write("\n\n") -- where it was a child that rested, the parent does so when that is gone
  finish(one, entry)
  if before then results.referenced = results.referenced + math.max(0, before.sampled - after.sampled) end
  local wrongly = before and math.max(0, before.unreachable - after.sampled) or 0
  if wrongly > 0 then
    note(results, ("%s: %d objects were unreachable while %s held them"):format(name, wrongly, entry.functions[1]))
    if before.proven > 0 then results.false_proven = results.false_proven + wrongly end
  end
  local list = entry.proof == "proven" and results.losing or results.one_piece
  list[#list + 1] = { name = name, entry = entry, found = after }
end

local function prove_sound(results, entry, argv, ready)
  local name = entry.program .. " " .. entry.scenario
  local one = tasks.start(argv, entry.flags or FLAGS)
  local started = support.now()
  if ready then ready(one) end
  if not one:await_profile() then
    local code = one:finish()
    if code ~= NOT_HERE then one:fail("exit code " .. tostring(code)) end
    return note(results, name .. ": not to be had here: " .. one.process:stderr():gsub("\n.*", ""))
  end
  tasks.sleep(math.max(0, started + PROVED_AFTER_SECONDS - support.now()))
  if not one.process:alive() and one.process.code == NOT_HERE then
    return note(results, name .. ": not to be had here: " .. one.process:stderr():gsub("\n.*", ""))
  end
  local found = prove_once(results, entry, one, name)
  results.sound = results.sound + 1
  if found.proven > 0 then
    results.false_proven = results.false_proven + found.proven
    note(results, ("%s: %s, which holds its memory, is called proven"):format(name, entry.functions[1]))
  end
  results.referenced = results.referenced + found.sampled
  if entry.ends then one:stop() else finish(one, entry) end
end

-- What is no program of the zoo: words, and the functions that lose memory.
local function others()
  local folder = support.root .. "/bench/proof_programs/"
  local function sound(name, argv)
    return { program = name, scenario = "", label = "clean", functions = {}, holds = {}, proof = "none", argv = argv }
  end
  return {
    sound("lua5.1 tables.lua", { "lua5.1", folder .. "tables.lua", BUSY_SECONDS }),
    sound("luajit tables.lua", { "luajit", folder .. "tables.lua", BUSY_SECONDS }),
    sound("python3 steady_worker.py",
      { "env", "PYTHONMALLOC=malloc", "/usr/bin/python3", support.root .. "/bench/steady_worker.py", SOUND_SECONDS }),
    sound("python3 rows.py (SQLite)", { "/usr/bin/python3", folder .. "rows.py", SOUND_SECONDS }),
    {
      program = "python3 forgotten.py", scenario = "", label = "leak", holds = {}, proof = "proven", foreign = true,
      functions = { "ffi_call" }, pattern = "^libffi",
      argv = { "/usr/bin/python3", folder .. "forgotten.py", SOUND_SECONDS },
    },
  }
end

-- A losing program of its own: no rest, and all that these functions allocated is lost soon after its start.
local function prove_foreign(results, entry)
  local one = tasks.start(entry.argv, FLAGS)
  if not one:await_profile() then one:fail("it has ended") end
  tasks.sleep(PROVED_AFTER_SECONDS)
  local found = prove_once(results, entry, one, entry.program)
  results.losing[#results.losing + 1] = { name = entry.program, entry = entry, found = found }
  finish(one, entry)
end

local function prove_redis(results)
  local port = support.free_port()
  local entry = {
    program = "redis", scenario = "under load", label = "clean", functions = {}, holds = {}, proof = "none",
    ends = true,
  }
  local load
  prove_sound(results, entry, {
    "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir",
    support.temp_dir(),
  }, function()
    tasks.wait(function() return (support.exchange(port, "PING\r\nQUIT\r\n", 1) or ""):match("PONG") end, 30,
      "redis to answer")
    load = support.spawn({ harness.program("redis_load"), port, 8, 2000, PROVED_AFTER_SECONDS + 6 })
  end)
  load:kill(15)
end

local function prove(results, entry)
  if entry.program == "redis" then return prove_redis(results) end
  if entry.foreign then return prove_foreign(results, entry) end
  if entry.argv then return prove_sound(results, entry, entry.argv) end
  if entry.label == "leak" then return prove_losing(results, entry) end
  return prove_sound(results, entry, zoo_runs.command(entry, SEED, SOUND_SECONDS))
end

local function show(title, list)
  local lost, proven, unreachable = 0, 0, 0
  print("  " .. title)
  print(("    %-34s %-24s %8s %8s %8s %8s"):format("program", "function", "sampled", "lost", "proven", "groups"))
  for _, one in ipairs(list) do
    local found = one.found
    print(("    %-34s %-24s %8d %8d %8d %8d"):format(one.name, one.entry.functions[1], found.sampled,
      found.unreachable, found.proven, found.groups))
    if found.proven < found.sampled and found.reason then print("      " .. found.reason) end
    lost, proven = lost + found.sampled, proven + found.proven
    unreachable = unreachable + found.unreachable
  end
  return lost, proven, unreachable
end

local function show_hidden(list)
  print("  held where few look: what the answer may be at most, and is")
  for _, one in ipairs(list) do
    local site = one.site
    print(("    %-34s %-24s %-12s %-12s %d of %d sampled unreachable"):format(
      one.entry.program .. " " .. one.entry.scenario, one.entry.holds[1], one.entry.proof, site.state, site.unreachable,
      site.sampled_objects))
  end
end

local function told(list)
  local all = {}
  for i, one in ipairs(list) do
    all[i] = {
      name = one.name, functions = table.concat(one.entry.functions, " "), sampled = one.found.sampled,
      unreachable = one.found.unreachable, proven = one.found.proven, groups = one.found.groups,
    }
  end
  return all
end

-- Trial runs take one program in so many.
local function chosen()
  local all, list = dofile(support.root .. "/bench/zoo/labels.lua"), {}
  for _, entry in ipairs(others()) do all[#all + 1] = entry end
  all[#all + 1] = { program = "redis", scenario = "" }
  local only = os.getenv("LUPE_PROOF_ONLY")
  for i = 1, #all, math.max(1, math.floor(1 / harness.scale)) do
    local name = all[i].program .. " " .. all[i].scenario
    if not only or name:find(only) then list[#list + 1] = all[i] end
  end
  return list
end

return function()
  local results = {
    losing = {}, one_piece = {}, notes = {}, referenced = 0, false_proven = 0, unreferenced = 0, sound = 0,
    incomplete = 0, hidden = {},
  }
  tasks.run(chosen(), AT_ONCE, function(entry) prove(results, entry) end)
  local function by_name(a, b) return a.name < b.name end
  table.sort(results.losing, by_name)
  table.sort(results.one_piece, by_name)
  table.sort(results.notes)
  local lost, proven = show("lost in many pieces", results.losing)
  local whole, _, whole_unreachable = show("lost in one piece, which a register might hold", results.one_piece)
  table.sort(results.hidden, function(a, b)
    return a.entry.program .. a.entry.scenario < b.entry.program .. b.entry.scenario
  end)
  show_hidden(results.hidden)
  for _, text in ipairs(results.notes) do print("    " .. text) end
  return {
    harness.row(("leaked objects proven, of %d sampled in %d programs"):format(lost, #results.losing),
      proven / math.max(1, lost), ">=", 0.95),
    harness.row(("referenced objects called proven, of %d sampled"):format(results.referenced), results.false_proven,
      "<=", 0),
    harness.row("proofs that were not complete", results.incomplete, "<=", 0),
    harness.row(("objects of one lost structure found, of %d sampled"):format(whole),
      whole_unreachable / math.max(1, whole), ">=", 0.95),
  }, {
    losing = told(results.losing), one_piece = told(results.one_piece), notes = results.notes,
    sound_programs = results.sound, referenced = results.referenced, unreferenced = results.unreferenced,
  }
end
