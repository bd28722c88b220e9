local example = require("spec.examples.example_rule")

describe("the example rule thread_count", function()
  --- Ten minutes, a reading a second of so many threads.
  local function program(count_at, named)
    local rows, threads, samples = {}, {}, {}
    for second = 0, 600 do rows[second + 1] = { time_ms = 1000 * second, threads = count_at(second) } end
    for i, name in ipairs(named or {}) do
      threads[i], samples[i] = { tid = i, name = name }, { thread = i, stack = { "work" } }
    end
    return { memory = rows, time_ms = 600000, profile = named and { threads = threads, samples = samples } }
  end

  it("tells of too many, and how most of them are named", function()
    local many = program(function() return 300 end, { "worker-1", "worker-2", "flush" })
    assert.same({ "300 threads, more than 256; most are named worker (2 of 3 seen)" },
      example.summaries("thread_count", many))
    assert.equal("high", example.run("thread_count", many).findings[1].severity)
  end)

  it("tells of few, where they become more and more", function()
    local growing = program(function(second) return 10 + math.floor(second / 60) end)
    assert.matches("^20 threads, %d+ more per hour$", example.summaries("thread_count", growing)[1])
    assert.same({}, example.summaries("thread_count", growing, { growth = 100 }))
  end)

  it("tells of too many where the window is too short for growth to be told", function()
    local many = program(function() return 300 end)
    local finding = example.run("thread_count", many, { window = 1 }).findings[1]
    assert.equal("300 threads, more than 256", finding.summary)
    assert.is_nil(finding.evidence.per_hour)
  end)

  it("is quiet where they only come and go, or start", function()
    assert.same({}, example.summaries("thread_count", program(function(second) return 10 + second % 7 end)))
    local starting = program(function(second) return math.min(40, second) end)
    starting.memory = { unpack(starting.memory, 1, 60) }
    assert.same({}, example.summaries("thread_count", starting))
    assert.same({}, example.summaries("thread_count", {}))
  end)
end)
