--- The columns of spans, in a snapshot that is built from a literal table. Those of processes: target_marks_spec.lua.
local ffi = require("ffi")
local support = require("spec.support")
local literal = require("lupe.view_literal")
require("spec.support_snapshot")

local core = support.core()

local function validate(bytes, size)
  local why = ffi.new("const char *[1]")
  return tonumber(core.lupe_snapshot_validate(bytes, size, why)), ffi.string(why[0])
end

describe("a snapshot with spans", function()
  local header, size, owner
  before_each(function()
    header, size, owner = literal({
      targets = { { pid = 7, name = "one" }, { pid = 8, name = "two" } },
      sites = { { name = "leak", stack = { "malloc", "leak", "main" }, history = { 1024, 2048 } } },
      profile = { samples = { { stack = { "hot", "main" } } } },
      spans = {
        { name = "request", pid = 8, durations_ms = { 1, 2, 2, 1e7 } }, { name = "flush", durations_ms = { 0, 3e-6 } },
      },
    })
  end)

  local function at(column, ctype) return ffi.cast(ctype .. " *", ffi.cast("char *", owner) + header[column].offset) end

  it("holds their figures, and counts of durations in buckets", function()
    assert.same({ 0, "" }, { validate(owner, size) })
    local span = at("spans", "lupe_snapshot_span")[0]
    assert.same({ 1, 4, 1e13 }, { span.target, span.count, span.max_ns })
    local counts, each = at("span_buckets", "double"), ffi.C.LUPE_SNAPSHOT_SPAN_BUCKETS
    local sum = 0
    for b = 0, each - 1 do sum = sum + counts[b] end
    assert.same({ 4, 1, 1, 1 }, { sum, counts[each - 1], counts[each], counts[each + 3] })
  end)

  local function breaks(name, what, change)
    it("is refused with " .. name, function()
      change(at("spans", "lupe_snapshot_span"))
      local status, why = validate(owner, size)
      assert.are_not.equal(0, status)
      assert.is_truthy(why:find(what, 1, true), why)
    end)
  end

  breaks("a name out of bounds", "spans: a string", function(spans) spans[1].name = 1e6 end)
  breaks("a target out of bounds", "spans: a target", function(spans) spans[1].target = 2 end)
  breaks("a function out of bounds", "spans: a function", function(spans) spans[1]["function"] = 1000 end)
  breaks("a total without a name", "span_totals: a string", function()
    at("span_totals", "lupe_snapshot_span_total")[0].name = 1e6
  end)
  breaks("a total below 0", "span_totals: a figure", function()
    at("span_totals", "lupe_snapshot_span_total")[1].count = -1
  end)
  breaks("a window that ends before it begins", "window of the spans", function() header.span_from_ms = 1e15 end)
  breaks("a figure that is none", "spans: a figure", function(spans) spans[0].total_ns = 0 / 0 end)
  breaks("too few buckets", "span_buckets", function() header.span_buckets.count = 160 end)
  breaks("a count below 0", "span_buckets", function() at("span_buckets", "double")[3] = -1 end)
end)
