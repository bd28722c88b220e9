local embedding = require("spec.embedding")
local support = require("spec.support")

local STATUS, one = embedding.STATUS, embedding.one

local RULE = [[
return {
  api = 1, id = "ID", kind = "KIND", title = "Mine", needs = { "memory" },
  check = function() return { { summary = "something is\nto be said", severity = "high" } } end,
}
]]

describe("lupe_set_callback", function()
  local folder
  before_each(function() folder = support.temp_dir() end)
  after_each(support.cleanup)

  local function rule(kind)
    local text = RULE:gsub("ID", kind .. ".mine"):gsub("KIND", kind)
    return support.write_file(("%s/%s.lua"):format(folder, kind), text)
  end

  --- Runs until it has told an event, then goes on with `words`.
  local function told(mode, kind, callback, words)
    local go_on = support.temp_dir() .. "/go_on"
    local all = {
      "mode " .. mode, "set leak_check_interval_secs=1", "callback " .. callback, "start",
      "add_rule mine.lua " .. rule(kind), "wait " .. go_on, unpack(words),
    }
    local process = embedding.spawn(all)
    support.eventually(function() return process:stdout():find("event .-\n") end, 30, "an event")
    support.write_file(go_on, "")
    assert.equal(0, (process:wait(30)))
    return embedding.parse(process:stdout()), process:stdout()
  end

  for _, mode in ipairs({ "process", "helper" }) do
    it("has findings told on lupe's thread (" .. mode .. ")", function()
      local said, out = told(mode, "pattern", "plain", { "stop" })
      assert.matches("event lupe%-events 1 pattern%.mine high: something is to be said\n", out)
      assert.equal(0, one(said, "stop").status)
    end)

    it("has alerts told (" .. mode .. ")", function()
      local _, out = told(mode, "alert", "plain", { "stop" })
      assert.matches("event lupe%-events 2 alert%.mine high: raised: something is to be said\n", out)
    end)
  end

  it("lets the callback ask, and not stop", function()
    local said = told("process", "alert", "asks", { "stop" })
    assert.equal(0, said.get_in_callback[1].status)
    said = told("process", "alert", "stops", { "stop" })
    assert.equal(STATUS.EPERM, said.stop_in_callback[1].status)
    assert.matches("cannot be called in it", said.stop_in_callback[1].text, 1, true)
    assert.equal(0, one(said, "stop").status)
  end)

  it("goes for later starts, and until it is taken back", function()
    local said = embedding.run({ "callback plain", "start", "stop", "start", "callback none", "callback plain",
      "callback none", "stop", "left" })
    assert.equal(4, #said.callback)
    for _, answer in ipairs(said.callback) do assert.equal(0, answer.status) end
    assert.matches("^1 threads", one(said, "left").text)
  end)

  for _, who in ipairs({ "loop", "thread" }) do
    it("has them told on the host's loop, whose own thread or another one stops lupe (" .. who .. ")", function()
      local process = support.run({ support.fixture("embed_loop"), rule("alert"), who },
        { env = { LUPE_SOCKET = false }, seconds = 40 })
      assert.equal("add_rule 0 \ncallback 0 \nstart 0 \nevent on the loop: yes, alert.mine\nstop 0 \nclose 0\n",
        process:stdout())
      assert.equal(0, process.code)
    end)
  end

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
