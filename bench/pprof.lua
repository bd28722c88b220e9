--- How long profiles of 10,000 stacks take to write, and to get over HTTP.
local ffi = require("ffi")
local harness = require("bench.harness")
local literal = require("lupe.view_literal") -- before the next: see support.declare
local many_samples = require("bench.many_samples")
local snapshots = require("spec.support_snapshot")
local support = require("spec.support")

local STACKS, ROUNDS, ASKED_MS = 10000, 9, 100

support.declare("core/export/pprof.h")
support.declare("core/export/gperftools.h")
ffi.cdef("void free(void *block);")

--- Median of the times that `write(out, bytes)` takes, in ms, and the bytes it made.
local function timed(kind, write)
  local out, bytes, times = ffi.new(kind .. " *[1]"), ffi.new("size_t[1]"), {}
  for round = 1, harness.scaled(ROUNDS, 3) do
    local began = support.now()
    assert(write(out, bytes) == 0, "it could not be written")
    times[round] = (support.now() - began) * 1000
    ffi.C.free(out[0])
  end
  return harness.median(times), { times_ms = times, bytes = tonumber(bytes[0]) }
end

return {
  title = "profiles of many stacks for pprof and google-pprof",
  run = function()
    local core, rows, details = support.core(), {}, {}
    local function add(name, median, detail)
      rows[#rows + 1] = harness.row(("%s of %d stacks"):format(name, STACKS), median, "<=", ASKED_MS, "ms")
      details[name] = detail
    end

    local address, size, owner = literal(many_samples(STACKS))
    local samples = snapshots.mapped(address, size)
    assert(owner)
    add("CPU profile for pprof", timed("uint8_t", function(out, bytes)
      return core.lupe_pprof_encode(samples, core.LUPE_PPROF_CPU, out, bytes)
    end))
    add("CPU profile for google-pprof", timed("char", function(out, bytes)
      return core.lupe_gperftools_cpu(samples, out, bytes)
    end))

    local lupe = harness.start_under_lupe({ harness.program("many_stacks"), STACKS, 3600 }, { "--sample-bytes", 4096 })
    lupe:await_profile()
    for _, path in ipairs({ "/debug/pprof/heap", "/debug/pprof/allocs", "/pprof/heap" }) do
      local result = lupe:load(path, 1, math.max(0.5, 4 * harness.scale))
      if result.not_200 > 0 then error(("%s: %d answers were not a 200"):format(path, result.not_200)) end
      add("GET " .. path .. " (p99)", result.p99_us / 1000, result)
    end
    lupe:stop()
    return rows, details
  end,
}
