--- Programs that mark their work, under `lupe run`: what they do is told to the last span.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

local MIB = 2 ^ 20

describe("a program that marks its work", function()
  local host, dir
  before_each(function()
    host, dir = support.fixture("marks_host"), support.temp_dir()
  end)
  after_each(support.cleanup)

  local function report_of(commands, flags)
    local argv = { host }
    for _, command in ipairs(commands) do argv[#argv + 1] = command end
    local report, code = lupe_run.start(argv, { flags = flags }):finish()
    assert.equal(0, code)
    return report
  end

  local function named(list, name)
    for _, one in ipairs(list) do
      if one.name == name then return one end
    end
    error("no " .. name, 2)
  end

  it("has all its spans in the report, however short it runs, and on however many threads", function()
    local report = report_of({ "spans=request,4,50000", "nested=100", "lasts=slow,30", "across", "place" })
    local spans = report.spans
    assert.same({ 200000, 100, 300, 1, 1 }, {
      named(spans, "request").count, named(spans, "outer").count, named(spans, "inner").count,
      named(spans, "slow").count, named(spans, "across").count,
    })
    local slow = named(spans, "slow")
    assert.is_true(slow.max_us >= 29900 and slow.max_us < 20 * 30000, slow.max_us)
    assert.is_true(slow.p99_us <= slow.max_us)
    assert.same({ "spec_placed", "marks_host" }, {
      named(spans, "placed").function_name, named(spans, "placed").module,
    })
  end)

  it("has those of its children, too, once lupe speaks with them", function()
    local run = lupe_run.start({ host, "spans=before,1,1000", "both", "wait=" .. dir .. "/go", "spans=after,1,500" })
    run:await("/api/targets", function(answer) return #answer.targets == 2 and answer.targets[2].live end)
    support.eventually(function()
      local text = support.http(run.port, "/metrics").body
      return text:find('lupe_span_duration_seconds_count{span="before"} 1000', 1, true)
    end, 20, "the first spans")
    support.write_file(dir .. "/go", "")
    local report = run:finish()
    assert.same({ 1000, 1000 }, { named(report.spans, "before").count, named(report.spans, "after").count })
  end)

  it("says what had no name of its own", function()
    local report = report_of({ "names=1100" })
    local said = table.concat(report.notes, "\n")
    assert.is_truthy(said:find("names of spans or tags", 1, true), said)
  end)

  it("has memory and CPU time by tag", function()
    local report = report_of({ "keep=http:html_cache,4000,5000", "keep=plain,1,1", "burn=render,1500" },
      { "--sample-bytes", "16K" })
    local cache, render = named(report.tags, "html_cache"), named(report.tags, "render")
    assert.near(20e6, cache.inuse_space, 3e6)
    assert.near(1.5, render.cpu_seconds, 0.3)
    local first = report.allocators[1]
    assert.same({ "html_cache", "[tag]", "spec_keep" }, { first.name, first.module, first.stack[2] })
    assert.equal("burn", report.bottlenecks.hotspots[1].function_name)
  end)

  it("is told of while it runs: in metrics, bottlenecks, allocations, flame graphs and for pprof", function()
    local run = lupe_run.start({
      host, "keep=http:html_cache,4000,5000", "spans=request,1,1000", "burn=render,1500", "wait=" .. dir .. "/go",
    }, { flags = { "--sample-bytes", "16K" } })
    run:await("/api/profiling/allocations", function(answer)
      local first = answer.allocators[1]
      return first and first.name == "html_cache" and first.module == "[tag]" and first.inuse_space > 15 * MIB
    end)
    local function text(path) return support.http(run.port, path).body end
    local count = support.eventually(function()
      return text("/metrics"):match('lupe_span_duration_seconds_count{span="request"} (%d+)')
    end, 20, "the span's metric")
    assert.equal("1000", count)
    local folded = support.eventually(function()
      local graph = text("/api/profiling/flamegraph?type=cpu&format=folded")
      return graph:find("render;", 1, true) and graph
    end, 20, "the tag in the flame graph")
    assert.is_truthy(("\n" .. folded):find("\nrender;[^\n]*main;[^\n]*burn"), folded)
    assert.is_truthy(text("/api/profiling/flamegraph?type=heap&format=folded"):find("http;html_cache;", 1, true))
    local done = support.run({
      "go", "tool", "pprof", "-tags", ("http://127.0.0.1:%d/debug/pprof/heap"):format(run.port),
    }, { env = { HOME = dir } })
    assert.equal(0, done.code, done.err)
    assert.is_truthy(done.out:find("html_cache", 1, true), done.out)
    support.write_file(dir .. "/go", "")
    local report = run:finish()
    assert.equal(1000, named(report.spans, "request").count)
  end)

  it("is the same in a recording of it", function()
    local path = dir .. "/run.lupe"
    report_of({ "spans=request,2,1000", "keep=cache,2000,5000" }, { "--sample-bytes", "16K", "--record", path })
    local done = support.run({ support.built("lupe"), "report", path })
    assert.equal(0, done.code, done.err)
    local said = done.out .. done.err
    assert.is_truthy(said:find("Spans, most time first", 1, true), said)
    assert.is_truthy(said:find("2,000 .*request"), said)
    assert.is_truthy(said:find("MiB .*cache"), said)
  end)
end)
