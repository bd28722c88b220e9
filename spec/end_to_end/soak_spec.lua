--- What stays with lupe when it is asked again and again.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

local function snapshots_held(pid)
  local listing = io.popen(("ls -l /proc/%d/fd"):format(pid))
  local count = select(2, listing:read("*a"):gsub("/memfd:", ""))
  listing:close()
  return count
end

describe("lupe asked at every round", function()
  teardown(support.cleanup)

  it("lets go of the snapshots that it answered from", function()
    local run = lupe_run.start({ "sleep", "60" }, { flags = { "--heap-interval", "0.1", "--memory-interval", "0.1" } })
    local seen = {}
    for _ = 1, 30 do
      run:await("/api/profiling/allocations", function(answer)
        if answer.profile_time == support.json.null or seen[answer.profile_time] then return false end
        seen[answer.profile_time] = true
        return true
      end)
      run:post("/api/profiling/leak-detection")
    end
    local held = snapshots_held(run.process.pid)
    assert.is_true(held > 0 and held <= 16, held .. " snapshots are held")
    run:finish(15)
  end)
end)
