require("spec.support")
local threads = require("lupe.threads")

local function own_pid()
  local file = assert(io.open("/proc/self/stat"))
  local line = file:read("*l")
  file:close()
  return tonumber(line:match("^%d+"))
end

describe("the threads of a process", function()
  it("are those that the system lists, with their CPU time", function()
    local pid = own_pid()
    local sum = 0
    for i = 1, 3e7 do sum = sum + i end
    local list = threads(pid)
    assert.is_true(#list >= 1 and sum > 0)
    local main
    for _, thread in ipairs(list) do main = thread.tid == pid and thread or main end
    assert.equal(pid, main.pid)
    assert.is_true(#main.name > 0)
    assert.is_true(main.user_ns + main.system_ns > 0)
  end)

  it("are none where the process is gone", function()
    assert.same({}, threads(4194304))
  end)
end)
