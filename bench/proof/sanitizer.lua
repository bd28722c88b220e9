--- Leak proofs against LeakSanitizer: the zoo's programs that lose memory, built for both, by function.
--
-- The same program with the same seed does the same allocations in both. A function of which lupe has at least 20
-- sampled objects is agreed on where both say that it loses some, or both that it does not. And where LeakSanitizer
-- has so many lost objects of one that lupe must have sampled 20 of them, lupe must have that function.
local harness = require("bench.harness")
local tasks = require("bench.proof.tasks")
local support = require("spec.support")
local zoo_runs = require("bench.zoo_runs")

local SEED, SECONDS, AT_ONCE, LEAST, PERIOD = 1, 40, 4, 20, 4096
-- LeakSanitizer does not look into children that end by _exit.
local NOT_SEEN = { fork_worker = true }

-- Function names of addresses in one program: address -> name.
local function names_of(path, addresses)
  local file = support.temp_dir() .. "/addresses"
  support.write_file(file, table.concat(addresses, "\n") .. "\n")
  local pipe = assert(io.popen(("addr2line -C -f -e '%s' < '%s'"):format(path, file)))
  local names, index = {}, 0
  for line in pipe:lines() do
    index = index + 1
    if index % 2 == 1 then names[addresses[(index + 1) / 2]] = zoo_runs.plain(line) end
  end
  pipe:close()
  return names
end

--- What LeakSanitizer printed: array of { objects, bytes, functions = set of plain names on the stack }.
local function parse(text, path)
  local leaks, addresses, known = {}, {}, {}
  for line in text:gmatch("[^\n]+") do
    local bytes, objects = line:match("leak of (%d+) byte%(s%) in (%d+) object%(s%)")
    if bytes then
      leaks[#leaks + 1] = { bytes = tonumber(bytes), objects = tonumber(objects), frames = {}, functions = {} }
    end
    local module, address = line:match("#%d+ 0x%x+ +%((.-)%+(0x%x+)%)")
    if module == path and #leaks > 0 then
      table.insert(leaks[#leaks].frames, address)
      if not known[address] then known[address], addresses[#addresses + 1] = true, address end
    end
  end
  local names = names_of(path, addresses)
  for _, leak in ipairs(leaks) do
    for _, address in ipairs(leak.frames) do leak.functions[names[address]] = true end
  end
  return leaks
end

local function words(path, entry)
  return { path, entry.scenario, "--seed", SEED, "--seconds", SECONDS, "--clock", "ticks" }
end

local function ask_sanitizer(entry)
  local path = harness.program("zoo/lsan/" .. entry.program)
  local process = support.spawn(words(path, entry), {
    env = { LSAN_OPTIONS = "symbolize=0:fast_unwind_on_malloc=0:exitcode=23" },
  })
  tasks.wait(function() return not process:alive() end, 120, path .. " to end")
  if process.code ~= 23 and process.code ~= 0 then
    error(("%s %s: %s"):format(path, entry.scenario, process:stderr():sub(-1000)))
  end
  return parse(process:stderr(), path)
end

local function ask_lupe(entry)
  local output = support.temp_dir() .. "/report.json"
  local argv = {
    support.built("lupe"), "run", "--listen", "127.0.0.1:" .. support.free_port(), "--proof", "exit", "--report",
    "json", "--output", output, "--sample-bytes", PERIOD, "--cpu-hz", "0", "--wall-hz", "0", "--",
  }
  for _, word in ipairs(words(harness.program("zoo/" .. entry.program), entry)) do argv[#argv + 1] = word end
  local process = support.spawn(argv)
  tasks.wait(function() return not process:alive() end, 120, entry.scenario .. " under lupe to end")
  local text = support.read_file(output)
  if process.code ~= 0 or not text then error(entry.scenario .. ": lupe: " .. process:stderr():sub(-1000)) end
  local report = support.json.decode(text)
  if type(report.proof) ~= "table" then return nil, tostring(report.proof_reason) end
  if report.proof.status ~= "complete" then return nil, report.proof.reason end
  return report.proof.sites
end

-- How many objects of one function LeakSanitizer has as lost, and how many of those lupe samples on average.
local function lost_of(leaks, name)
  local objects, sampled = 0, 0
  for _, leak in ipairs(leaks) do
    local listed = false
    for one in pairs(leak.functions) do listed = listed or zoo_runs.is_one_of({ one }, name) end
    if listed then
      objects = objects + leak.objects
      sampled = sampled + leak.objects * (1 - math.exp(-leak.bytes / leak.objects / PERIOD))
    end
  end
  return objects, sampled
end

local function compare(entry, results)
  local about, has, leaks = entry.program .. " " .. entry.scenario, {}, ask_sanitizer(entry)
  local sites, missing = ask_lupe(entry)
  if not sites then
    results.compared = results.compared + 1
    results.wrong[#results.wrong + 1] = ("%s: no proof at exit: %s"):format(about, missing)
    return
  end
  for _, site in ipairs(sites) do
    local name = zoo_runs.plain(site.component)
    has[name] = true
    if site.sampled_objects >= LEAST then
      local objects, sampled = lost_of(leaks, name)
      local agreed = (site.unreachable > 0) == (objects > 0)
      -- What one lost object is, and none of them sampled, no sample can tell.
      if not agreed and site.unreachable == 0 and sampled < 1 then agreed = true end
      results.compared = results.compared + 1
      if objects > 0 then results.losing = results.losing + 1 end
      if not agreed then
        results.wrong[#results.wrong + 1] = ("%s: %s: lupe %d unreachable of %d sampled, LeakSanitizer %d lost"):format(
          about, name, site.unreachable, site.sampled_objects, objects)
      end
    end
  end
  local named = false
  for _, name in ipairs(entry.functions) do named = named or has[name] end
  for _, name in ipairs(entry.functions) do
    local objects, sampled = lost_of(leaks, name)
    if sampled >= 2 * LEAST and not named then
      results.wrong[#results.wrong + 1] = ("%s: LeakSanitizer has %d lost objects of %s, lupe does not name it"):format(
        about, objects, name)
    end
  end
end

return function()
  local list, results = {}, { compared = 0, losing = 0, wrong = {} }
  for _, entry in ipairs(dofile(support.root .. "/bench/zoo/labels.lua")) do
    if entry.label == "leak" and not NOT_SEEN[entry.scenario] then list[#list + 1] = entry end
  end
  local every, chosen = math.max(1, math.floor(1 / harness.scale)), {}
  for i = 1, #list, every do chosen[#chosen + 1] = list[i] end
  tasks.run(chosen, AT_ONCE, function(entry) compare(entry, results) end)
  table.sort(results.wrong)
  for _, text in ipairs(results.wrong) do print("    " .. text) end
  local share = results.compared > 0 and (results.compared - #results.wrong) / results.compared or 0
  return {
    harness.row(("functions agreed on with LeakSanitizer, of %d (%d lose)"):format(results.compared, results.losing),
      share, ">=", 1),
  }, { compared = results.compared, losing = results.losing, wrong = results.wrong, programs = #chosen }
end
