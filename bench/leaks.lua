--- The leak verdicts over the zoo (bench/zoo): who is accused, rightly or not, after 20, 40 and 60 s.
--
-- Every program runs once per seed, at one sample per 64 KiB, and is recorded; the rules are judged by replaying
-- the recordings. LUPE_ZOO_RECORDINGS=DIR keeps them there, and programs whose recording is there are not run
-- again: so rules are tuned without waiting for programs. LUPE_ZOO_AT_ONCE programs run at a time (20). With
-- LUPE_ZOO_FIRST_SEED (1) the rules meet seeds that they were not tuned on.
--
-- How it is judged, at one moment of one run. Accusations are findings of kind `leak` with the verdict `leak` or
-- `growing`, one per function.
--
-- * label `leak`: found where the labelled function is called `leak`. Called `growing` it is missed, for what is
--   lost must be called so; but nobody is accused falsely by that.
-- * label `growing`: found where the labelled function is called `growing` or `leak`: reachable memory that grows
--   without end needs a change as well, and no history of the heap tells the two apart.
-- * label `clean`: every accusation is false.
-- * On the first two every accusation of another function is false.
--
-- Precision is found / (found + false accusations), recall found / runs with the first two labels.
local harness = require("bench.harness")
local support = require("spec.support")
local zoo_runs = require("bench.zoo_runs")

local SEEDS, SECONDS, MOMENTS = 3, 60, { 20, 40, 60 }
local AT_ONCE = tonumber(os.getenv("LUPE_ZOO_AT_ONCE") or "20")
local FIRST_SEED = tonumber(os.getenv("LUPE_ZOO_FIRST_SEED") or "1")
local PRECISION, RECALL, SURE, SURE_AT = 0.97, 0.95, 0.8, 20
local LABELS, VERDICTS = { "leak", "growing", "clean" }, { "leak", "growing", "nothing" }

-- Trial runs take one program in so many, and fewer seeds.
local function chosen_entries()
  local all = {}
  for _, entry in ipairs(dofile(support.root .. "/bench/zoo/labels.lua")) do
    if entry.trend then all[#all + 1] = entry end
  end
  local every, list = math.max(1, math.floor(1 / (harness.scale * SEEDS))), {}
  for i = 1, #all, every do list[#list + 1] = all[i] end
  return list
end

--- function -> its most serious accusation { verdict, confidence, rule }.
local function accusations(frame)
  local accused = {}
  for _, finding in ipairs(frame.findings) do
    if finding.kind == "leak" and (finding.verdict == "leak" or finding.verdict == "growing") then
      local name = zoo_runs.plain(finding.component)
      local known = accused[name]
      if not known or finding.verdict == "leak" and known.verdict ~= "leak" then
        accused[name] = { verdict = finding.verdict, confidence = finding.confidence, rule = finding.rule }
      end
    end
  end
  return accused
end

local function empty_matrix()
  local matrix = {}
  for _, label in ipairs(LABELS) do matrix[label] = { leak = 0, growing = 0, nothing = 0 } end
  return matrix
end

--- @return { verdict of the labelled function (or, on clean ones, of any), found, wrong = array of texts }
local function judge_run(run, seconds)
  local judged = { verdict = "nothing", wrong = {}, surest = 0 }
  local function note(verdict)
    if judged.verdict ~= "leak" then judged.verdict = verdict end
  end
  for name, accused in pairs(accusations(zoo_runs.frame(run, seconds))) do
    local right = zoo_runs.is_one_of(run.entry.functions, name)
    if right or run.entry.label == "clean" then note(accused.verdict) end
    if not right then
      judged.wrong[#judged.wrong + 1] = ("%s: %s is no %s (%.2f, %s)"):format(run.key, name, accused.verdict,
        accused.confidence, accused.rule)
      judged.surest = math.max(judged.surest, accused.confidence)
    end
  end
  table.sort(judged.wrong)
  judged.found = run.entry.label ~= "clean"
    and (judged.verdict == "leak" or judged.verdict == "growing" and run.entry.label == "growing")
  return judged
end

local function judge(list, seconds)
  local result = {
    matrix = empty_matrix(), wrong = support.json.decode("[]"), missed = support.json.decode("[]"), surest_wrong = 0,
    sure_and_wrong = 0, found = 0, to_find = 0,
  }
  for _, run in ipairs(list) do
    local judged = judge_run(run, seconds)
    local row = result.matrix[run.entry.label]
    row[judged.verdict] = row[judged.verdict] + 1
    for _, text in ipairs(judged.wrong) do result.wrong[#result.wrong + 1] = text end
    result.surest_wrong = math.max(result.surest_wrong, judged.surest)
    if judged.surest > SURE then result.sure_and_wrong = result.sure_and_wrong + 1 end
    if run.entry.label ~= "clean" then
      result.to_find = result.to_find + 1
      result.found = result.found + (judged.found and 1 or 0)
      if not judged.found then
        result.missed[#result.missed + 1] = ("%s: %s is called %s"):format(run.key, run.entry.functions[1],
          judged.verdict)
      end
    end
  end
  result.precision = result.found > 0 and result.found / (result.found + #result.wrong) or 0
  result.recall = result.to_find > 0 and result.found / result.to_find or 0
  return result
end

local function show(results)
  for _, seconds in ipairs(MOMENTS) do
    local r = results[seconds]
    print(("  after %d s: precision %.3f, recall %.3f; surest wrong claim %.2f"):format(seconds, r.precision, r.recall,
      r.surest_wrong))
    print(("    %-10s %8s %8s %8s"):format("label", unpack(VERDICTS)))
    for _, label in ipairs(LABELS) do
      local row = r.matrix[label]
      print(("    %-10s %8d %8d %8d"):format(label, row.leak, row.growing, row.nothing))
    end
    for _, text in ipairs(r.wrong) do print("    false   " .. text) end
    for _, text in ipairs(r.missed) do print("    missed  " .. text) end
  end
end

return {
  title = "leak verdicts over programs of which it is known what leaks",
  run = function()
    local kept = os.getenv("LUPE_ZOO_RECORDINGS")
    if kept then assert(os.execute("mkdir -p '" .. kept:gsub("'", "'\\''") .. "'") == 0, kept) end
    local list = zoo_runs.all(chosen_entries(), FIRST_SEED, harness.scaled(SEEDS), kept or support.temp_dir())
    local ran, cpu_share = zoo_runs.record(list, SECONDS, AT_ONCE)
    zoo_runs.replay(list)
    local results, details = {}, { runs = #list, first_seed = FIRST_SEED, run_now = ran, cpu_share = cpu_share }
    for _, seconds in ipairs(MOMENTS) do
      results[seconds] = judge(list, seconds)
      details[("after_%d_s"):format(seconds)] = results[seconds]
    end
    show(results)
    local early, late = results[SURE_AT], results[SECONDS]
    return {
      harness.row(("precision after %d s, %d runs"):format(SECONDS, #list), late.precision, ">=", PRECISION),
      harness.row(("recall after %d s, %d runs"):format(SECONDS, #list), late.recall, ">=", RECALL),
      harness.row(("runs with a wrong claim of more than %g after %d s"):format(SURE, SURE_AT),
        early.sure_and_wrong, "<=", 0),
    }, details
  end,
}
