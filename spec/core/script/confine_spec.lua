local support = require("spec.support")

local FORBIDDEN = {
  "open", "bare open", "create", "unlink", "stat", "newfstatat", "socket", "socketpair", "fork", "vfork", "clone3",
  "execve", "kill", "tgkill", "ptrace", "process_vm_readv", "io_uring", "setrlimit", "memfd",
  "fcntl F_SETOWN", "fcntl F_SETSIG", "fcntl F_SETFL",
}
local NEEDED = {
  "write", "read", "fstat", "mmap", "munmap", "signal to itself", "fcntl F_DUPFD_CLOEXEC", "close", "lua",
  "stat as fstat", -- not needed, but no filter can tell it from fstat
}

describe("a confined process", function()
  after_each(support.cleanup)

  local function outcomes()
    local done = support.run({ support.fixture("confined_calls") })
    assert.are.equal(0, done.code, done.err)
    local list = {}
    for name, outcome in done.out:gmatch("([^\n]-): ([^\n]*)\n") do list[name] = outcome end
    return list
  end

  it("is refused files, network, processes and signals, and does what Lua needs", function()
    local list = outcomes()
    if support.sanitized then
      assert.are.same({ unconfined = "this build has sanitizers, which read files and start threads when they report" },
        list)
      return
    end
    local expected = { confined = "yes" }
    for _, name in ipairs(FORBIDDEN) do expected[name] = "refused" end
    for _, name in ipairs(NEEDED) do expected[name] = "allowed" end
    assert.are.same(expected, list)
  end)
end)
