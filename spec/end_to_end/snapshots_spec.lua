--- Heap snapshots on disk: private, whole or not there at all, and never more than asked for.
local ffi = require("ffi")
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

ffi.cdef("unsigned geteuid(void);")

local SNAPSHOT = "/api/profiling/snapshot"

local function shell(command)
  local done = support.run({ "sh", "-c", command })
  assert.equal(0, done.code, command .. ": " .. done.err)
  return done.out
end

local function start(flags)
  local run = lupe_run.start({ support.fixture("agent_host"), "keep=2000,20000", "wait=/nowhere" }, { flags = flags })
  run:await("/api/profiling/allocations", function(a) return #a.top_allocators > 0 end)
  return run
end

local function names_in(folder) return shell("ls -A " .. folder) end

describe("a heap snapshot", function()
  local run, folder

  setup(function()
    run = start()
    folder = run.dir .. "/state/snapshots"
  end)
  teardown(support.cleanup)

  it("is a private file in a private folder, and downloaded as it is", function()
    local made = run:post(SNAPSHOT, 201)
    assert.same({ "completed", ("%s/%s.json"):format(folder, made.snapshot_id) }, { made.status, made.file_path })
    assert.equal("600\n", shell("stat -c %a " .. made.file_path))
    assert.equal("700\n", shell("stat -c %a " .. folder))
    local answer = support.http(run.port, made.download_url)
    assert.equal(200, answer.status)
    assert.equal(support.read_file(made.file_path), answer.body)
    assert.same({ #answer.body, #answer.body }, { made.size_bytes, tonumber(answer.headers["content-length"]) })
    assert.equal(('attachment; filename="%s.json"'):format(made.snapshot_id), answer.headers["content-disposition"])
    shell("jq -e . " .. made.file_path)
  end)

  it("comes later where nobody wants to wait", function()
    local promised = run:post(SNAPSHOT .. "?wait=false", 202)
    assert.equal("pending", promised.status)
    run:await(SNAPSHOT, function(list)
      for _, entry in ipairs(list.snapshots) do
        if entry.snapshot_id == promised.snapshot_id then return entry.status == "completed" end
      end
    end)
    assert.equal(200, support.http(run.port, promised.download_url).status)
  end)

  it("is not handed out under any other name, nor is any other file", function()
    shell(("ln -s /etc/passwd %s/snapshot_5.json; echo secret > %s/other.json"):format(folder, folder))
    local id = run:post(SNAPSHOT, 201).snapshot_id
    for _, name in ipairs({
      "snapshot_1", "snapshot_5", "other", id .. ".json", id .. "_", id .. "_1x", id:upper(), "%2e%2e", "..%2fother",
      "snapshot_5%2f..%2fother", "..%2f..%2f..%2f..%2fetc%2fpasswd", id .. "%00", "." .. id, "snapshot_-1",
    }) do
      local answer = support.http(run.port, ("%s/%s/download"):format(SNAPSHOT, name))
      assert.equal(404, answer.status, name)
    end
    for _, path in ipairs({ "/../../../etc/passwd", "/" .. id, "//download", "/../snapshot/" .. id .. "/download" }) do
      assert.equal(404, support.http(run.port, SNAPSHOT .. path).status, path)
    end
    shell(("rm %s/snapshot_5.json %s/other.json"):format(folder, folder))
  end)

  it("is not kept beyond the newest twenty", function()
    local last
    for _ = 1, 21 do last = run:post(SNAPSHOT, 201).snapshot_id end
    local list = run:get(SNAPSHOT).snapshots
    assert.equal(20, #list)
    local _, files = names_in(folder):gsub("\n", "")
    assert.equal(20, files)
    assert.equal(200, support.http(run.port, ("%s/%s/download"):format(SNAPSHOT, last)).status)
  end)

  it("that cannot grow any more is answered with 507, and nothing of it stays", function()
    run:post("/api/profiling/leak-detection")
    local before, worker = names_in(folder), assert.is_truthy(run:worker_pid())
    shell(("prlimit --pid %s --fsize=1000:"):format(worker))
    assert.matches("nothing of it was left behind: .*File too large", run:post(SNAPSHOT, 507).detail)
    assert.equal(before, names_in(folder))
    local failed
    for _, entry in ipairs(run:get(SNAPSHOT).snapshots) do failed = entry.status == "failed" and entry or failed end
    assert.matches("File too large", failed.reason)
    assert.equal(404, support.http(run.port, ("%s/%s/download"):format(SNAPSHOT, failed.snapshot_id)).status)
    shell(("prlimit --pid %s --fsize=unlimited:"):format(worker))
    run:post(SNAPSHOT, 201)
  end)

  it("is swept away where lupe was killed while it was written", function()
    local left = folder .. "/.snapshot_1700000000.part"
    shell(("echo half > %s; touch -d '2 hours ago' %s"):format(left, left))
    support.write_file(folder .. "/.snapshot_1700000001.part", "another lupe is writing this")
    run:post(SNAPSHOT, 201)
    assert.is_nil(support.read_file(left))
    assert.is_truthy(support.read_file(folder .. "/.snapshot_1700000001.part"))
  end)
end)

describe("a full disk", function()
  local mounted

  teardown(function()
    support.cleanup()
    if mounted then shell(("umount %s && rmdir %s"):format(mounted, mounted)) end
  end)

  it("is answered with 507, nothing of the snapshot stays, and the rest works", function()
    local dir = ffi.C.geteuid() == 0 and shell("mktemp -d"):gsub("\n", "")
    if not dir or support.run({ "mount", "-t", "tmpfs", "-o", "size=64k", "lupe-spec", dir }).code ~= 0 then
      pending("needs root, and the right to mount")
      return
    end
    mounted = dir
    local run = start({ "--state-dir", dir })
    assert.equal(201, support.http(run.port, SNAPSHOT, { method = "POST" }).status)
    shell("head -c 1M /dev/zero > " .. dir .. "/filler 2>/dev/null || :")
    local before = names_in(dir .. "/snapshots")
    assert.matches("No space left on device", run:post(SNAPSHOT, 507).detail)
    assert.equal(before, names_in(dir .. "/snapshots"))
    assert.is_true(run:get("/api/profiling/memory").heap_mb > 0)
    shell("rm " .. dir .. "/filler")
    run:post(SNAPSHOT, 201)
    run:finish(15)
  end)
end)

describe("a state folder that cannot be made", function()
  teardown(support.cleanup)

  it("is named in the answer, and nothing else suffers", function()
    local file = support.write_file(support.temp_dir() .. "/file", "")
    local run = start({ "--state-dir", file .. "/state" })
    local expected = ("%s/state/snapshots cannot be used: %s/state: Not a directory"):format(file, file)
    assert.matches(expected, run:post(SNAPSHOT, 500).detail, 1, true)
    assert.same({}, run:get(SNAPSHOT).snapshots)
    assert.is_true(run:get("/api/profiling/memory").heap_mb > 0)
  end)
end)
