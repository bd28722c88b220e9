require("spec.support")
local columns_of = require("lupe.ffi").snapshot
local export = require("lupe.export")
local json = require("lupe.json")
local literal = require("lupe.view_literal")

local function exported(described)
  local address, size, owner = literal(described)
  local columns = assert(columns_of(address, size))
  local parts = {}
  local bytes = assert(export.write(columns, { findings = {} }, function(text)
    parts[#parts + 1] = text
    return true
  end))
  local text = table.concat(parts)
  assert.equal(#text, bytes)
  return assert(json.decode(text)), owner
end

describe("a snapshot as JSON", function()
  it("keeps stacks whole, the allocator's frames included", function()
    local data = exported({
      sites = { { name = "open", history = { 1, 2 }, stack = { "malloc", "xmalloc", "open", "serve", "main" } } },
    })
    local names = {}
    for i, frame in ipairs(data.stacks[1].frames) do
      names[i] = data.functions[data.frames[frame + 1]["function"] + 1].name
    end
    assert.same({ "malloc", "xmalloc", "open", "serve", "main" }, names)
    assert.equal("open", data.functions[data.sites[data.stacks[1].site + 1]["function"] + 1].name)
  end)

  it("has what leak proofs found, stack by stack", function()
    local data = exported({
      sites = { { name = "open", history = { 4096 } }, { name = "cache", history = { 10 } } },
      proofs = {
        {
          hidden = { "luajit" }, registers = 3, sites = {
            { name = "open", unreachable = 3, reachable = 1, holder = "cache" },
          },
        },
      },
    })
    local proof, row = data.proofs[1], data.proof_rows[1]
    assert.same({ "complete", 16, 3, 3072 }, { proof.outcome, proof.hidden, proof.registers, proof.unreachable_bytes })
    assert.same({ 0, 0, 1, 1, 3, 3072 },
      { row.proof, row.stack, row.holder_stack, row.held, row.unreachable, row.unreachable_bytes })
    data = exported({ proofs = { { outcome = "time", read_bytes = 5 } } })
    assert.same({ "time", 5, 0 }, { data.proofs[1].outcome, data.proofs[1].read_bytes, #data.proof_rows })
  end)

  it("tells no more bytes than were written, and who refused them", function()
    local address, size, owner = literal({ sites = { { name = "open", history = { 1 } } } })
    local bytes, message, code = export.write(assert(columns_of(address, size)), { findings = {} },
      function() return nil, "ENOSPC: the disk is full" end)
    assert.same({ "ENOSPC: the disk is full", "ENOSPC" }, { message, code })
    assert.is_nil(bytes)
    assert.truthy(owner)
  end)
end)
