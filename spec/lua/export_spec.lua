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

  it("tells no more bytes than were written, and who refused them", function()
    local address, size, owner = literal({ sites = { { name = "open", history = { 1 } } } })
    local bytes, message, code = export.write(assert(columns_of(address, size)), { findings = {} },
      function() return nil, "ENOSPC: the disk is full" end)
    assert.same({ "ENOSPC: the disk is full", "ENOSPC" }, { message, code })
    assert.is_nil(bytes)
    assert.truthy(owner)
  end)
end)
