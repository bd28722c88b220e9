local embedding = require("spec.embedding")
local support = require("spec.support")

local STATUS, one = embedding.STATUS, embedding.one

local RULE = [[
local words = require("my_words")
return {
  api = 1, id = "alert.mine", kind = "alert", title = "Mine", needs = { "memory" },
  check = function() return { { summary = words.of(5), severity = "high" } } end,
}
]]
local ROUTE = [[
local words = require("my_words")
return {
  api = 1, method = "GET", path = "/api/x/mine", summary = "Mine",
  handler = function() return 200, {}, { said = words.of(7) } end,
}
]]
local MODULE = 'return { of = function(n) return "it is " .. n end }'

describe("what an embedding program adds", function()
  local folder
  before_each(function() folder = support.temp_dir() end)
  after_each(support.cleanup)

  local function file(name, text) return support.write_file(folder .. "/" .. name, text) end

  for _, mode in ipairs({ "process", "helper" }) do
    it("are rules, routes and modules, in this start and the next (" .. mode .. ")", function()
      local said = embedding.run({
        "mode " .. mode, "add_module my_words " .. file("my_words.lua", MODULE), "start",
        "add_rule mine.lua " .. file("rule.lua", RULE), "add_route mine_too.lua " .. file("route.lua", ROUTE),
        "get /api/x/mine", "get /api/rules", "stop", "start", "get /api/x/mine", "get /api/rules", "stop",
      })
      assert.same({ 0, 0, 0 }, {
        one(said, "add_module").status, one(said, "add_rule").status, one(said, "add_route").status,
      })
      for i = 1, 4, 2 do
        assert.equal('{"said":"it is 7"}', said.get[i].text)
        local found
        for _, rule in ipairs(support.json.decode(said.get[i + 1].text).rules) do
          if rule.id == "alert.mine" then found = rule end
        end
        assert.equal("mine.lua", found.path)
        assert.equal("active", found.state)
      end
    end)
  end

  it("are refused where they do not load, and what was there before stays", function()
    local said = embedding.run({
      "start", "add_module my_words " .. file("my_words.lua", MODULE),
      "add_route mine.lua " .. file("route.lua", ROUTE), "add_route mine.lua " .. file("bad.lua", "return {"),
      "add_route other.lua " .. file("other.lua", 'return { api = 1, method = "GET", path = "/api/targets" }'),
      "add_rule bad.lua " .. file("bad.lua", "return {"), "add_module my_words " .. file("bad.lua", "return {"),
      "get /api/x/mine", "get /api/routes", "stop", "start", "get /api/x/mine", "stop",
    })
    assert.same({ 0, STATUS.ESCRIPT, STATUS.ESCRIPT }, {
      said.add_route[1].status, said.add_route[2].status, said.add_route[3].status,
    })
    assert.matches("mine.lua:1:", said.add_route[2].text, 1, true)
    assert.equal(STATUS.ESCRIPT, one(said, "add_rule").status)
    assert.matches("bad.lua:1: unexpected symbol", one(said, "add_rule").text, 1, true)
    assert.equal(STATUS.ESCRIPT, said.add_module[2].status)
    assert.matches("my_words.lua:1:", said.add_module[2].text, 1, true)
    assert.equal('{"said":"it is 7"}', said.get[1].text)
    local routes = support.json.decode(said.get[2].text).routes
    assert.equal(1, #routes)
    assert.equal("active", routes[1].state)
    assert.equal('{"said":"it is 7"}', said.get[3].text)
  end)

  it("keep a start from succeeding where they do not load", function()
    local said = embedding.run({ "add_rule bad.lua " .. file("bad.lua", "return {"), "start", "stop", "left" })
    assert.equal(0, one(said, "add_rule").status)
    assert.equal(STATUS.ESCRIPT, one(said, "start").status)
    assert.matches("bad.lua:1: unexpected symbol", one(said, "start").text, 1, true)
    assert.equal(STATUS.ENOENT, one(said, "stop").status)
    assert.matches("^1 threads", one(said, "left").text)
  end)

  it("may be replaced under its name", function()
    local said = embedding.run({
      "add_module my_words " .. file("my_words.lua", MODULE), "add_route mine.lua " .. file("route.lua", ROUTE),
      "start",
      "get /api/x/mine", "add_module my_words " .. file("other.lua", (MODULE:gsub("it is", "now it is"))),
      "get /api/x/mine", "stop",
    })
    assert.equal('{"said":"it is 7"}', said.get[1].text)
    assert.equal('{"said":"now it is 7"}', said.get[2].text)
  end)

  it("has no other modules than were added", function()
    local said = embedding.run({
      "start", "add_module my_words " .. file("my_words.lua", MODULE),
      "add_rule mine.lua " .. file("rule.lua", RULE:gsub("my_words", "io")), "stop",
    })
    assert.equal(STATUS.ESCRIPT, one(said, "add_rule").status)
    assert.matches("no module 'io' was added by the program", one(said, "add_rule").text, 1, true)
  end)

  it("ends where it never would", function()
    local said = embedding.run({ "start", "add_module slow " .. file("slow.lua", "while true do end"),
      "add_module mine " .. file("mine.lua", MODULE), "stop" })
    assert.equal(STATUS.ESCRIPT, said.add_module[1].status)
    assert.equal(0, said.add_module[2].status)
  end)

  it("has names that a file could have, and texts of a bounded size", function()
    local large = file("large.lua", ("-"):rep(65537))
    local said = embedding.run({
      "add_rule ../mine.lua " .. file("rule.lua", RULE), "add_rule mine " .. file("rule.lua", RULE),
      "add_module mine.lua " .. file("rule.lua", MODULE), "add_rule mine.lua " .. large,
    })
    for i = 1, 3 do assert.equal(STATUS.EINVAL, said.add_rule[i].status) end
    assert.matches('name is "../mine.lua", expected such as "queue_depth.lua"', said.add_rule[1].text, 1, true)
    assert.equal(STATUS.EINVAL, one(said, "add_module").status)
    assert.matches('expected such as "queue".* a module is named without ".lua"$', one(said, "add_module").text)
    assert.matches("more than 65536 bytes", said.add_rule[3].text, 1, true)
  end)

  it("are 64 files at most", function()
    local words = {}
    for i = 1, 65 do words[i] = ("add_module m%d %s"):format(i, file("m.lua", MODULE)) end
    local said = embedding.run(words)
    assert.equal(0, said.add_module[64].status)
    assert.equal(STATUS.EFULL, said.add_module[65].status)
  end)
end)
