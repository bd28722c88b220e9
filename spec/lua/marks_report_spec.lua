--- What a program marks, as the report at exit tells it.
require("spec.support")
local json = require("lupe.json")
local marks_report = require("lupe.marks_report")
local page = require("lupe.page")
local view = require("lupe.view")

local MIB = 2 ^ 20

local function times(count, ms)
  local list = {}
  for i = 1, count do list[i] = ms end
  return list
end

local function a_view(more)
  local given = {
    sites = {
      {
        name = "cache", module = "[tag]", history = { 2 * MIB, 3 * MIB },
        stack = { "app!fill", "app!main", "cache" },
      },
      { name = "boot", history = { MIB, MIB }, stack = { "boot", "main" } },
    },
    profile = {
      from_ms = 0, to_ms = 10000, cpu_hz = 100,
      samples = {
        { stack = { "render", "main", "[tag]!pages" }, count = 150 }, { stack = { "idle", "main" }, count = 50 },
      },
    },
    spans = {
      { name = "request", durations_ms = times(1000, 12), begun_in = "serve" },
      { name = "tick", durations_ms = times(30, 0.0005) },
      { name = "never" },
    },
    span_seconds = 10,
  }
  for name, value in pairs(more or {}) do given[name] = value end
  return view.from_table(given)
end

local function text_of(one)
  local out = page.new({ columns = 80 })
  marks_report.text(out, { spans = marks_report.spans(one), tags = marks_report.tags(one) })
  return table.concat(out.lines, "\n")
end

describe("the report's marks", function()
  it("are the spans that ended, most time first", function()
    local spans = marks_report.spans(a_view())
    assert.same({ "request", "tick" }, { spans[1].name, spans[2].name, spans[3] })
    local one = spans[1]
    assert.same({ 1000, 100, 12, 12000, 12000, "serve", "app" }, {
      one.count, one.per_second, one.total_seconds, one.mean_us, one.max_us, one.function_name, one.module,
    })
    assert.near(12000, one.p95_us, 3000)
  end)

  it("are the tags, with what they hold and the time that they took", function()
    local tags = json.decode(json.encode(marks_report.tags(a_view())))
    assert.equal(2, #tags)
    assert.same({ "cache", 3 * MIB }, { tags[1].name, tags[1].inuse_space })
    assert.same({ "pages", 1.5, 75 }, { tags[2].name, tags[2].cpu_seconds, tags[2].cpu_percent })
  end)

  it("are told in a few lines each", function()
    local text = text_of(a_view())
    assert.is_truthy(text:find("Spans, most time first", 1, true), text)
    assert.is_truthy(text:find("1,000    12.0 ms .*12.0 ms  request"), text)
    assert.is_truthy(text:find("30     500 ns .*tick"), text)
    assert.is_truthy(text:find("3.00 MiB       -          -  cache", 1, true), text)
    assert.is_truthy(text:find("75 %      1.5 s  pages", 1, true), text)
    assert.is_nil(text:find("never", 1, true), text)
  end)

  it("say how many more there are", function()
    local spans = {}
    for i = 1, 8 do spans[i] = { name = "span " .. i, durations_ms = { 10 - i } } end
    local text = text_of(a_view({ spans = spans }))
    assert.is_truthy(text:find("span 5\n  ... and 3 more; --report json has them", 1, true), text)
  end)

  it("are not mentioned where there are none", function()
    assert.equal("", text_of(view.from_table({})))
    assert.equal("[][]", json.encode(marks_report.spans(view.from_table({})))
      .. json.encode(marks_report.tags(view.from_table({}))))
  end)

  it("say what found no room", function()
    assert.is_nil(marks_report.lost(a_view()))
    assert.equal("2 names of spans or tags and 1 span found no room and could not be told apart or counted",
      marks_report.lost(a_view({ names_lost = 2, spans_lost = 1 })))
  end)
end)
