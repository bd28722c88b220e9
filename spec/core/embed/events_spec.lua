local embedding = require("spec.embedding")
local support = require("spec.support")

local STATUS, one = embedding.STATUS, embedding.one

local RULE = [[
return {
  api = 1, id = "ID", kind = "KIND", title = "Mine", needs = { "memory" },
  check = function() return { { summary = "something is\nto be said", severity = "high" } } end,
}
]]

local MODES = { "process", "helper" }

-- A check comes once a second at most: so all these programs run at the same time, and are looked at one by one.
describe("a callback of lupe_set_callback", function()
  local folder, programs

  local function rule(kind)
    local text = RULE:gsub("ID", kind .. ".mine"):gsub("KIND", kind)
    return support.write_file(("%s/%s.lua"):format(folder, kind), text)
  end

  local function start(mode, kind, callback)
    local name = mode .. kind .. callback
    programs[name] = embedding.spawn({
      "mode " .. mode, "set leak_check_interval_secs=1", "callback " .. callback, "start",
      "add_rule mine.lua " .. rule(kind), "wait " .. folder .. "/" .. name, "stop",
    })
  end

  --- Once the program has told an event, it goes on to its end: what it said, by word and as a text.
  local function told(mode, kind, callback)
    local name = mode .. kind .. callback
    local process = programs[name]
    support.eventually(function() return process:stdout():find("event .-\n") end, 30, "an event")
    support.write_file(folder .. "/" .. name, "")
    assert.equal(0, (process:wait(30)))
    return embedding.parse(process:stdout()), process:stdout()
  end

  setup(function()
    folder, programs = support.temp_dir(), {}
    for _, mode in ipairs(MODES) do
      start(mode, "pattern", "plain")
      start(mode, "alert", "plain")
    end
    start("process", "alert", "asks")
    start("process", "alert", "stops")
  end)
  teardown(support.cleanup)

  for _, mode in ipairs(MODES) do
    it("has findings told on lupe's thread (" .. mode .. ")", function()
      local said, out = told(mode, "pattern", "plain")
      assert.matches("event lupe%-events 1 pattern%.mine high: something is to be said\n", out)
      assert.equal(0, one(said, "stop").status)
    end)

    it("has alerts told (" .. mode .. ")", function()
      local _, out = told(mode, "alert", "plain")
      assert.matches("event lupe%-events 2 alert%.mine high: raised: something is to be said\n", out)
    end)
  end

  it("may ask, and not stop", function()
    local said = told("process", "alert", "asks")
    assert.equal(0, said.get_in_callback[1].status)
    said = told("process", "alert", "stops")
    assert.equal(STATUS.EPERM, said.stop_in_callback[1].status)
    assert.matches("cannot be called in it", said.stop_in_callback[1].text, 1, true)
    assert.equal(0, one(said, "stop").status)
  end)

  it("is called on the host's loop, whose own thread or another one stops lupe", function()
    local hosts = {}
    for i, who in ipairs({ "loop", "thread" }) do
      hosts[i] = support.spawn({ support.fixture("embed_loop"), rule("alert"), who }, { env = { LUPE_SOCKET = false } })
    end
    for _, process in ipairs(hosts) do
      assert.equal(0, (process:wait(40)))
      assert.equal("add_rule 0 \ncallback 0 \nstart 0 \nevent on the loop: yes, alert.mine\nstop 0 \nclose 0\n",
        process:stdout())
    end
  end)
end)

describe("lupe_set_callback", function()
  after_each(support.cleanup)

  it("goes for later starts, and until it is taken back", function()
    local said = embedding.run({ "callback plain", "start", "stop", "start", "callback none", "callback plain",
      "callback none", "stop", "left" })
    assert.equal(4, #said.callback)
    for _, answer in ipairs(said.callback) do assert.equal(0, answer.status) end
    assert.matches("^1 threads", one(said, "left").text)
  end)

  it("waits for a call of the former callback, and for none of the new one", function()
    local process = support.run({ support.fixture("embed_callbacks") }, { seconds = 40 })
    assert.equal("the former one has returned\nthe new one is called, and set\n", process:stdout())
    assert.equal(0, process.code)
  end)

  it("knocks at the host's loop for each event, wherever its memory is", function()
    local process = support.run({ support.fixture("embed_knocks") }, { seconds = 40 })
    assert.equal("told 200 of 200\n", process:stdout())
    assert.equal(0, process.code)
  end)
end)
