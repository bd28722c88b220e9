--- ./dev bench [NAME...]: runs the benchmarks, prints the table, writes bench/results/NAME.json.
-- Exit code 1 where a figure was missed, 2 where a benchmark could not run.
local root = arg[0]:match("^(.*)/bench/run%.lua$") or "."
package.path = root .. "/?.lua;" .. package.path

local support = require("spec.support")
local harness = require("bench.harness")
local machine = require("bench.machine")

local NAMES = {
  "allocation", "redis_latency", "redis_load", "memory", "heap_profile", "routes", "accuracy", "symbolize", "unwind",
  "cpu_profile", "bound", "profile_cost", "flamegraph", "pprof", "storm", "leaks", "steady", "rules", "hostile_rules",
  "rule_edit", "proof", "marks", "embed",
}

local function wanted()
  if #arg == 0 then return NAMES end
  local known = {}
  for _, name in ipairs(NAMES) do known[name] = true end
  for _, name in ipairs(arg) do
    if not known[name] then
      io.stderr:write("bench: unknown name ", name, "; known: ", table.concat(NAMES, " "), "\n")
      os.exit(2)
    end
  end
  return arg
end

-- Keys in order, two spaces deep, so that two runs can be compared line by line.
local function encode(value, indent)
  if type(value) ~= "table" then
    if type(value) == "number" then
      assert(value == value and math.abs(value) < math.huge, "not a number that JSON knows")
      return value % 1 == 0 and ("%d"):format(value) or ("%.6g"):format(value)
    end
    return support.json.encode(value)
  end
  local inner, parts = indent .. "  ", {}
  if #value > 0 then
    for _, item in ipairs(value) do parts[#parts + 1] = inner .. encode(item, inner) end
    return "[\n" .. table.concat(parts, ",\n") .. "\n" .. indent .. "]"
  end
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys)
  for _, key in ipairs(keys) do
    parts[#parts + 1] = inner .. support.json.encode(key) .. ": " .. encode(value[key], inner)
  end
  return #parts == 0 and "{}" or "{\n" .. table.concat(parts, ",\n") .. "\n" .. indent .. "}"
end

local function show(rows)
  for _, row in ipairs(rows) do
    local verdict = (row.pass and "pass" or "FAIL") .. (row.noisy and " (noisy machine)" or "")
    print(("  %-66s %10.4g  %-26s %s"):format(row.what, row.measured, row.asked, verdict))
  end
  io.stdout:flush()
end

local missed, broken = 0, 0
local described = machine()
for _, name in ipairs(wanted()) do
  local bench = require("bench." .. name)
  print(("%s: %s"):format(name, bench.title))
  io.stdout:flush()
  local started, started_at = support.now(), os.date("!%Y-%m-%dT%H:%M:%SZ")
  local fine, rows, details = xpcall(bench.run, debug.traceback)
  support.cleanup()
  if not fine then
    io.stderr:write("bench: ", name, ": ", tostring(rows), "\n")
    broken = broken + 1
  else
    show(rows)
    for _, row in ipairs(rows) do
      if not row.pass then missed = missed + 1 end
    end
    if harness.scale == 1 and not bench.partial then
      support.write_file(support.root .. "/bench/results/" .. name .. ".json", encode({
        name = name, title = bench.title, started = started_at, elapsed_s = support.now() - started,
        machine = described, rows = rows, details = details,
      }, "") .. "\n")
    end
  end
end
os.exit(broken > 0 and 2 or missed > 0 and 1 or 0)
