require("spec.support")
local site_proof = require("lupe.site_proof")
local view = require("lupe.view")

local MIB = 2 ^ 20

local function described(proofs, more)
  local literal = {
    sample_period_bytes = 65536, time_ms = 9000, targets = { { pid = 7, name = "app" }, { pid = 8, name = "worker" } },
    sites = {
      {
        name = "lose", inuse_space = 8 * MIB, inuse_objects = 8192, stacks = {
          { stack = { "lose", "parse", "main" }, inuse_space = 6 * MIB, inuse_objects = 6144 },
          { stack = { "lose", "main" }, inuse_space = 2 * MIB, inuse_objects = 2048 },
        },
      },
      { name = "cache", inuse_space = 4 * MIB, inuse_objects = 4096 },
      { name = "index", module = "/lib/libindex.so", inuse_space = MIB, inuse_objects = 10 },
      { name = "young", inuse_space = MIB, inuse_objects = 1024 },
    },
    proofs = proofs,
  }
  for name, value in pairs(more or {}) do literal[name] = value end
  return view.from_table(literal)
end

local function site_of(from, name, options)
  for site in from.heap:sites(options) do
    if site.name == name then return site end
  end
end

local function proof_of(proofs, name) return site_of(described(proofs), name).proof end

describe("view.proof", function()
  it("is nil with a reason where no proof was run", function()
    local none = described(nil)
    assert.is_nil(none.proof)
    assert.equal("no leak proof was run", none.proof_reason)
    assert.is_nil(site_of(none, "lose").proof)
  end)

  it("has each process's figures, and the exact sums of those that are complete", function()
    local proof = described({
      {
        pid = 7, pause_ms = 6.5, elapsed_ms = 2090, read_bytes = 4e9, scan_ms = 800, threads = 12, registers = 5,
        heap_bytes = 13 * MIB, heap_objects = 12000, unreachable_bytes = 5 * MIB, unreachable_objects = 5000,
        hidden = { "io_uring", "luajit" }, time_ms = 8000,
      },
      { pid = 8, outcome = "time", read_bytes = 3 * 2 ^ 30, time_ms = 8500 },
    }).proof
    assert.same({ "complete", 8000, 5 * MIB, 5000 },
      { proof.status, proof.time_ms, proof.unreachable_bytes, proof.unreachable_objects })
    local one, other = proof.targets[1], proof.targets[2]
    assert.same({ 7, "app", "complete", 6.5, 12, 5, 5e9, 13 * MIB },
      { one.pid, one.name, one.outcome, one.pause_ms, one.threads, one.registers, one.scan_bytes_per_sec,
        one.heap_bytes })
    assert.is_nil(one.why)
    assert.equal(2, #one.hidden)
    assert.same({ "time", 3 * 2 ^ 30, 8500 }, { other.outcome, other.read_bytes, other.time_ms })
    assert.is_nil(other.heap_bytes)
    assert.equal("process 8 (worker): " .. other.why, proof.reason)
  end)

  it("says in one sentence why the only process has none", function()
    local proof = described({ { outcome = "sigsys_taken" } }).proof
    assert.equal("refused", proof.status)
    assert.equal(proof.targets[1].why, proof.reason)
    assert.is_nil(proof.unreachable_bytes)
    assert.equal(9000, proof.time_ms)
    local both = described({ { outcome = "busy" }, { pid = 8, outcome = "killed", error = 9 } }).proof
    assert.equal("gave_up", both.status)
  end)

  it("keeps what was found where a later one is refused, and says when", function()
    local from = described({
      {
        outcome = "no_memory", scanned_ms = 4000, time_ms = 8000, read_bytes = 5, scan_ms = 10, registers = 1,
        sites = { { name = "lose", unreachable = 5 } },
      },
    })
    local proof, target = from.proof, from.proof.targets[1]
    assert.same({ "refused", 4000, 6 * MIB }, { proof.status, proof.time_ms, proof.unreachable_bytes })
    assert.equal(target.why, proof.reason)
    assert.same({ "no_memory", 8000, 4000, 1 }, { target.outcome, target.time_ms, target.scanned_ms, target.registers })
    assert.is_nil(target.scan_bytes_per_sec)
    local its = site_of(from, "lose").proof
    assert.same({ "proven", 4000 }, { its.state, its.time_ms })
  end)

  it("gives its sites, most lost first, then those that hold most", function()
    local proof = described({
      {
        sites = {
          { name = "young", unreachable = 1, unreachable_bytes = 5 * MIB }, { name = "index", reachable = 4 },
          { name = "cache", reachable = 40 }, { name = "lose", unreachable = 3, unreachable_bytes = 6 * MIB },
        },
      },
    }).proof
    local names = {}
    for site in proof:sites() do names[#names + 1] = site.name end
    assert.same({ "lose", "young", "cache", "index" }, names)
    names = {}
    for site in proof:sites({ limit = 3 }) do names[#names + 1] = site.name end
    assert.same({ "lose", "young", "cache" }, names)
    assert.has_error(function() proof:sites({ most = 3 }) end)
    assert.has_error(function() proof.status = "complete" end)
  end)
end)

describe("site.proof", function()
  it("is proven where nothing hides, and it is more structures than registers", function()
    local proof = proof_of({
      {
        registers = 3, time_ms = 8000, sites = {
          {
            name = "lose", unreachable = 412, reachable = 8, groups = 401, largest_behind = 3, holder = "cache",
            bytes = 26 * MIB, unreachable_bytes = 25 * MIB, unreachable_objects = 25600, bytes_variance = MIB ^ 2,
          },
        },
      },
    }, "lose")
    assert.same({ "proven", {} }, { proof.state, proof.reasons })
    assert.same({ 420, 412, 8 }, { proof.sampled_objects, proof.unreachable, proof.reachable })
    assert.same({ 25600, 25 * MIB, 401, 3 },
      { proof.proven_objects, proof.proven_bytes, proof.groups, proof.largest_behind })
    assert.near(1.96 * MIB, proof.proven_bytes_error, 1)
    assert.same({ 25600, 25 * MIB, proof.proven_bytes_error },
      { proof.lost_objects, proof.lost_bytes, proof.lost_bytes_error })
    assert.near(25 / 26, proof.share, 1e-9)
    assert.same({ "cache", 1 }, { proof.holder.name, proof.held_share })
    assert.same({ "lose", 8000 }, { proof.head.name, proof.time_ms })
  end)

  it("is unreferenced where registers may hold all of it, and says so", function()
    local proof = proof_of({ { registers = 3, sites = { { name = "lose", unreachable = 30, groups = 3 } } } }, "lose")
    assert.equal("unreferenced", proof.state)
    assert.same({
      "it is 3 structures, and as many as 3 registers of its threads are in no memory that can be read",
    }, proof.reasons)
    proof = proof_of({ { registers = 3, sites = { { name = "lose", unreachable = 30, groups = 4 } } } }, "lose")
    assert.equal("proven", proof.state)
  end)

  it("is unreferenced where pointers may hide, however much it is", function()
    local proof = proof_of({ { hidden = { "luajit" }, sites = { { name = "lose", unreachable = 300 } } } }, "lose")
    assert.equal("unreferenced", proof.state)
    assert.truthy(proof.reasons[1]:find("^LuaJIT"))
  end)

  it("has nothing proven where it is unreferenced, and all the same what is lost by its samples", function()
    local proof = proof_of({
      {
        hidden = { "luajit" }, sites = {
          {
            name = "lose", unreachable = 300, reachable = 100, bytes = 8 * MIB, unreachable_bytes = 6 * MIB,
            unreachable_objects = 6144, bytes_variance = MIB ^ 2,
          },
        },
      },
    }, "lose")
    assert.same({ "unreferenced", 0, 0, 0 },
      { proof.state, proof.proven_objects, proof.proven_bytes, proof.proven_bytes_error })
    assert.same({ 6144, 6 * MIB, 0.75 }, { proof.lost_objects, proof.lost_bytes, proof.share })
    assert.near(1.96 * MIB, proof.lost_bytes_error, 1)
  end)

  it("is reachable where all can be reached, and says how", function()
    local proof = proof_of({
      {
        sites = {
          { name = "lose", reachable = 10, interior = 4, stack_only = 1, unsettled = 2, holder = "cache", held = 9 },
        },
      },
    }, "lose")
    assert.equal("reachable", proof.state)
    assert.same({
      "15 sampled objects can still be reached", "4 only by pointers into the middle", "1 only from threads' stacks",
      "2 sampled objects came or moved between the two scans, so nothing is known of them",
    }, proof.reasons)
    assert.same({ 0, 0, 0, 0, 17 },
      { proof.proven_bytes, proof.lost_bytes, proof.lost_bytes_error, proof.share, proof.sampled_objects })
    assert.near(9 / 15, proof.held_share, 1e-9)
  end)

  it("says what it is where all can be reached and nothing sampled holds it", function()
    local proof = proof_of({ { sites = { { name = "lose", reachable = 10, stack_only = 1 } } } }, "lose")
    assert.is_nil(proof.holder)
    assert.same({
      "11 sampled objects can still be reached", "1 only from threads' stacks",
      "what holds them is not sampled, or a global",
    }, proof.reasons)
    proof = proof_of({ { sites = { { name = "lose", stack_only = 2 } } } }, "lose")
    assert.same({ "2 sampled objects can still be reached", "2 only from threads' stacks" }, proof.reasons)
  end)

  it("is unknown where the scans agree on nothing", function()
    local proof = proof_of({ { sites = { { name = "lose", unsettled = 5 } } } }, "lose")
    assert.same({ "unknown", 0, 0 }, { proof.state, proof.proven_objects, proof.lost_objects })
  end)

  it("is nil where the proof sampled nothing of it, or gave up", function()
    assert.is_nil(proof_of({ { sites = { { name = "lose", unreachable = 5 } } } }, "cache"))
    assert.is_nil(proof_of({ { outcome = "tables" } }, "lose"))
  end)

  it("adds up the stacks of a site; of structures, which may span them, the most of one counts", function()
    local proof = proof_of({
      {
        registers = 5, sites = {
          { name = "lose", unreachable = 6, groups = 6, largest_behind = 1, holder = "index", reachable = 2 },
          {
            name = "lose", stack = 2, unreachable = 4, groups = 4, largest_behind = 7, holder = "cache",
            reachable = 5,
          },
        },
      },
    }, "lose")
    assert.same({ "proven", 10, 7, 6, 7, "cache" },
      { proof.state, proof.unreachable, proof.reachable, proof.groups, proof.largest_behind, proof.holder.name })
    assert.equal(8 * MIB, proof.total_bytes)
  end)

  it("is of one stack where sites are stacks, and names functions as holders there too", function()
    local from = described({
      { sites = { { name = "lose", stack = 2, unreachable = 4, reachable = 1, holder = "cache" } } },
    })
    local seen = 0
    for site in from.heap:sites({ group = "stack" }) do
      if site.proof then
        seen = seen + 1
        assert.same({ "lose", "main" }, site.stack)
        assert.same({ "cache", "function" }, { site.proof.holder.name, site.proof.holder.group })
      end
    end
    assert.equal(1, seen)
    assert.equal("proven", site_of(from, "app", { group = "module" }).proof.state)
  end)

  it("judges each process, and counts as proven only what is", function()
    local sites = { { name = "lose", unreachable = 10, unreachable_bytes = MIB, bytes = 2 * MIB } }
    local proof = proof_of({
      { pid = 7, registers = 2, sites = sites, time_ms = 7000 },
      { pid = 8, hidden = { "device" }, sites = sites, time_ms = 8000 },
    }, "lose")
    assert.same({ "proven", MIB, 4 * MIB, 20, 10, 8000 },
      { proof.state, proof.proven_bytes, proof.total_bytes, proof.unreachable, proof.groups, proof.time_ms })
    assert.same({ 2 * MIB, 0.5 }, { proof.lost_bytes, proof.share })
    assert.near(math.sqrt(2) * proof.proven_bytes_error, proof.lost_bytes_error, 1)
    assert.truthy(proof.reasons[1]:find("device", 1, true))
    proof = proof_of({ { pid = 7, registers = 10, sites = sites }, { pid = 8, registers = 10, sites = sites } }, "lose")
    assert.same({ "unreferenced", 0, 2 * MIB }, { proof.state, proof.proven_bytes, proof.lost_bytes })
  end)

  it("names another holder than itself where there is one", function()
    local proofs = {
      { sites = { { name = "lose", reachable = 90, holder = "lose", held = 80 },
        { name = "lose", stack = 2, reachable = 9, holder = "cache", held = 3 } } },
    }
    assert.equal("cache", proof_of(proofs, "lose").holder.name)
    proofs = { { sites = { { name = "lose", reachable = 9, holder = "lose" } } } }
    assert.equal("lose", proof_of(proofs, "lose").holder.name)
  end)

  it("is not even looked for where no proof found anything", function()
    local looked, of = 0, site_proof.of
    site_proof.of = function(...)
      looked = looked + 1
      return of(...)
    end
    finally(function() site_proof.of = of end)
    for _, proofs in ipairs({ {}, { { outcome = "busy" } } }) do
      for site in described(proofs).heap:sites() do assert.is_nil(site.proof) end
    end
    assert.equal(0, looked)
    assert.is_nil(proof_of({ { sites = { { name = "lose", reachable = 1 } } } }, "cache"))
    assert.equal(1, looked)
  end)
end)
