--- What docs/rules.md shows is run here: the rules, the commands, and every field in its tables of a view.
local rule = require("lupe.rule")
local sandbox = require("lupe.sandbox")
local support = require("spec.support")
local program = require("spec.example_program")
local view_of = require("lupe.view").from_table

local PAGE = assert(support.read_file(support.root .. "/docs/rules.md"))

-- Whose fields the page lists all.
local MODULES = {
  "view", "heap_view", "site", "heap_changes", "trend", "memory_view", "history_view", "profile_view",
  "profile_function", "profile_threads", "threads_view", "span_view", "proof_view",
  "site_proof",
}

-- What else stands in backticks in their heads.
local NO_FIELDS = { xOFFSET = true, window_s = true, cum_ = true }

local function never() return nil end

--- Code blocks of a kind, in order.
local function blocks(kind)
  local list = {}
  for text in PAGE:gmatch("\n```" .. kind .. "\n(.-)\n```") do list[#list + 1] = text .. "\n" end
  return list
end

local function chapter(title)
  local text = (PAGE .. "\n## "):match("\n## " .. title .. "\n(.-)\n## ")
  return assert(text, "no chapter " .. title)
end

local function load_rule(source) return assert(rule.load("my_rules/big_sites.lua", source, sandbox.new(never))) end

local function rules()
  local list = {}
  for _, text in ipairs(blocks("lua")) do
    if text:find("api = 1", 1, true) then list[#list + 1] = text end
  end
  return list
end

describe("the rules that docs/rules.md shows", function()
  local function found(source, described)
    local answer, list = rule.run("my_rules/big_sites.lua", load_rule(source), view_of(described)), {}
    for i, finding in ipairs(answer.findings) do list[i] = finding.summary end
    return list, answer
  end

  it("are ten lines for the first, which finds what holds much", function()
    local first = rules()[1]
    assert.equal(10, select(2, first:gsub("\n", "")))
    assert.same({ "remember_session holds 30.0 MiB", "load_page holds 20.0 MiB", "inflate holds 2.00 MiB" },
      (found(first, program)))
  end)

  it("and one more, which finds only what grows, and asks for time where there is little", function()
    local second = assert(rules()[2])
    assert.same({ "remember_session holds 30.0 MiB, and grows 1.00 MiB/s" }, (found(second, program)))
    local none, answer = found(second, { sites = { { name = "a", history = { 1e7, 2e7 } } } })
    assert.same({ {}, 8 }, { none, answer.needed_seconds })
  end)
end)

describe("the action rule that docs/rules.md shows", function()
  it("asks for a purge where much is unused", function()
    local third = load_rule(assert(rules()[3]))
    local answer = rule.run("my_rules/give_back.lua", third, view_of(program), { most_unused = 2 })
    assert.same({ "3.00 MiB are unused", "purge" }, { answer.findings[1].summary, answer.findings[1].action.name })
    assert.same({}, rule.run("my_rules/give_back.lua", third, view_of(program)).findings)
  end)

  it("and the table of actions has all of them, with their arguments", function()
    local table_of = chapter("Actions")
    for name, arguments in pairs(require("lupe.action_kinds").ARGUMENTS) do
      local row = assert(table_of:match("\n| `" .. name .. "` |([^\n]*)"), name)
      for argument in pairs(arguments) do assert.truthy(row:find("`" .. argument .. "`", 1, true), argument) end
    end
  end)
end)

describe("the rule about leak proofs that docs/rules.md shows", function()
  it("tells what is lost, where a proof was run", function()
    local fourth = load_rule(assert(rules()[4]))
    local answer = rule.run("my_rules/lost.lua", fourth, view_of(program))
    assert.same({ "remember_session has lost 29.4 +- 2.6 MiB, in 480 structures" }, { answer.findings[1].summary })
    assert.equal(1, #answer.findings)
    assert.same({}, rule.run("my_rules/lost.lua", fourth, view_of(program), { most_lost = 30 }).findings)
    assert.same({}, rule.run("my_rules/lost.lua", fourth, view_of({})).findings)
  end)
end)

describe("the tables of docs/rules.md", function()
  local example, empty = view_of(program), view_of({})

  --- What an expression of the tables may begin with: candidates, of which one must have the field.
  local function candidates()
    local all = { view = { example, empty }, site = {}, change = {}, f = {}, trend = {}, thread = {} }
    for _, part in ipairs({ "heap", "memory", "profile", "threads", "spans", "history", "allocator" }) do
      all[part] = { example[part], empty[part] }
    end
    for _, group in ipairs({ "function", "tag" }) do
      for site in example.heap:sites({ group = group }) do table.insert(all.site, site) end
    end
    for site in example.heap:sites({ by = "growth", limit = 1 }) do all.trend[1] = site:trend("inuse_space") end
    for change in example.heap:changes() do table.insert(all.change, change) end
    for f in example.profile:functions() do table.insert(all.f, f) end
    all.profile[3] = view_of({ profile = { samples = { { stack = { "few" } } } } }).profile
    all.proof, all.its = { example.proof, view_of({ proofs = { { outcome = "busy" } } }).proof }, {}
    for site in example.proof:sites() do table.insert(all.its, site.proof) end
    all.thread, all.span, all.row = example.threads.list, example.spans.list, { example.memory.latest }
    return all
  end

  --- Every expression in the first cells, such as "site.name" or "profile:waits()".
  local function expressions()
    local list = {}
    for cell in PAGE:gmatch("\n| (`[^|]*`) |") do
      for code in cell:gmatch("`([^`]+)`") do
        if code:find("^%a+[.:]%a") then list[#list + 1] = code end
      end
    end
    return list
  end

  it("list fields and methods that are there", function()
    local all, checked = candidates(), 0
    for _, code in ipairs(expressions()) do
      local name = code:match("^%a+")
      assert.is_truthy(all[name], code .. ": of what?")
      local chunk = assert(loadstring("local view, " .. name .. " = ...\nreturn " .. code:gsub(" {(.*)}$", "({%1})")))
      local there = false
      for _, each in ipairs(all[name]) do
        local ok, value = pcall(setfenv(chunk, sandbox.new(never)), example, each)
        assert.is_true(ok, code .. ": " .. tostring(value))
        there = there or value ~= nil
      end
      assert.is_true(there, code .. " is not there")
      checked = checked + 1
    end
    assert.is_true(checked > 150, checked .. " expressions only")
  end)

  it("list every field and method that the modules document", function()
    for _, name in ipairs(MODULES) do
      local source = assert(support.read_file(support.root .. "/lua/lupe/" .. name .. ".lua"))
      local head = source:match("^(.-)\n%-%- @module")
      for code in head:gmatch("`([^`]+)`") do
        for word in code:gsub("^[%a_]+:", ""):gsub("[({].*$", ""):gmatch("[%a_][%w_]*") do
          local told = NO_FIELDS[word] or PAGE:find("%f[%w_]" .. word .. "%f[^%w_]")
          assert.is_truthy(told, ("%s of %s.lua is not in docs/rules.md"):format(word, name))
        end
      end
    end
  end)

  it("list every option of the iterators", function()
    local function known(call)
      local _, message = pcall(call, example.heap, { [""] = 1 })
      local names = {}
      for option in message:match("known: (.*)$"):gmatch("[%a_]+") do names[#names + 1] = option end
      assert.is_true(#names > 0)
      return names
    end
    local text = chapter("What a view offers")
    local of_sites = text:match("`heap:sites { ... }` takes(.-)\n\n[^|\n]")
    for _, option in ipairs(known(example.heap.sites)) do
      assert.is_truthy(of_sites:find("`" .. option .. "`", 1, true), option)
    end
    local of_changes = text:match("`heap:changes { ... }` takes(.-)\n\n")
    for _, option in ipairs(known(example.heap.changes)) do
      assert.is_truthy(of_changes:find("`" .. option .. "`", 1, true), option)
    end
  end)

  it("list what a rule and a finding may have", function()
    local contract = chapter("The contract")
    local words = { "summary", "site", "hotspot", "score", "confidence", "evidence", "reasons", "advice", "version" }
    for _, list in ipairs({ rule.KINDS, rule.NEEDS, rule.VERDICTS, rule.SEVERITIES, words }) do
      for _, word in ipairs(list) do
        assert.is_truthy(contract:find("`" .. word .. "`", 1, true), word .. " is not in the contract")
      end
    end
    for name in contract:gmatch("`words%.(%a+)%(") do assert.equal("function", type(require("lupe.format")[name])) end
  end)

  it("list every example", function()
    local shown, real = {}, {}
    for name in chapter("Examples"):gmatch("\n| `([%w_]+%.lua)` |") do shown[#shown + 1] = name end
    for _, name in ipairs(require("lupe.ffi").list(support.root .. "/examples/rules")) do
      if not name:find("%.test%.lua$") then real[#real + 1] = name end
    end
    table.sort(shown)
    assert.same(real, shown)
  end)
end)

describe("the commands of docs/rules.md", function()
  teardown(support.cleanup)

  --- The page's code in order: { kind, text }.
  local function all_blocks()
    local list = {}
    for kind, text in PAGE:gmatch("\n```(%a+)\n(.-)\n```") do list[#list + 1] = { kind = kind, text = text .. "\n" } end
    return list
  end

  local function file_of(text)
    if text:find("rule_params", 1, true) then return "lupe.conf.lua" end
    if not text:find("api = 1", 1, true) then return "my_rules/big_sites.test.lua" end
    return text:find('id = "my.big-sites"', 1, true) and "my_rules/big_sites.lua" or "another.lua"
  end

  --- A line as a pattern: its figures may be others, and it may be about another function.
  local function pattern(line)
    local escaped = line:gsub("[%^%$%(%)%%%.%[%]%*%+%-%?]", "%%%0")
    return (escaped:gsub("%d[%d%%.]*", "%%d[%%d.]*"):gsub("[KMG]iB", "[KMG]iB"):gsub("^  %%%- [%w_]+", "  %%- [%%w_]+"))
  end

  it("give what it says, with the files that it shows", function()
    local folder, output, ran = support.temp_dir(), nil, 0
    support.run({ "mkdir", folder .. "/my_rules" })
    support.run({ "ln", "-s", support.built("examples/leaky_server"), folder .. "/server" })
    for _, block in ipairs(all_blocks()) do
      if block.kind == "lua" then
        support.write_file(folder .. "/" .. file_of(block.text), block.text)
      elseif block.kind == "console" then
        for command in ("\n" .. block.text):gmatch("\n%$ ([^\n]+)") do
          local text = command:gsub("^lupe ", support.built("lupe") .. " ")
            :gsub(" run ", " run --listen 127.0.0.1:0 ", 1)
          local done = support.run({ "sh", "-c", text }, { cwd = folder, seconds = 60 })
          assert.equal(0, done.code, command .. done.out .. done.err)
          output, ran = done.out .. done.err, ran + 1
        end
      elseif block.kind == "text" then
        for line in block.text:gmatch("[^\n]+") do assert.matches(pattern(line), output) end
      end
    end
    assert.equal(6, ran)
    assert.matches("remember_session holds %S+ MiB, and grows %S+ %a+/%a+", output)

    -- The configuration comes last on the page: by it, the rule is to find less.
    local conf = assert(support.read_file(folder .. "/lupe.conf.lua"))
    support.write_file(folder .. "/lupe.conf.lua", (conf:gsub("min_growth = 50", "min_growth = 1e6")))
    local replay = { support.built("lupe"), "rules", "replay", "run.lupe", "--rule", "my_rules/big_sites.lua" }
    local done = support.run(replay, { cwd = folder })
    assert.equal(0, done.code, done.err)
    assert.matches("nothing found", done.out)
    assert.equal("", done.err)
  end)
end)
