--- What the documentation shows is run here: every route with its documented answer, every command, every table of
-- settings, metrics and host functions, the rule and the report of the README.
local config = require("lupe.config")
local lupe_run = require("spec.lupe_run")
local settings = require("lupe.settings")
local support = require("spec.support")

-- Two pages have specs of their own: spec/docs_rules_spec.lua and spec/docs_embedding_spec.lua.
local PAGES = {
  "README.md", "docs/api.md", "docs/profiling.md", "docs/operations.md", "docs/host.md", "docs/pprof.md",
  "docs/routes.md", "docs/recordings.md", "docs/decisions.md", "docs/proof.md",
}
local ROUTES = {
  "memory", "cpu", "bottlenecks", "flamegraph", "allocations", "leak_detection", "snapshot", "targets", "reports",
  "rules", "findings", "actions", "metrics", "health", "pprof", "routes", "openapi",
}

local HOST_FILES = {
  "core/script/host.c", "core/script/host_tasks.c", "core/script/host_pprof.c", "core/script/host_timer.c",
  "core/script/host_command.c", "core/script/host_proof.c", "core/script/host_recordings.c",
  "core/script/host_watch.c",
}

-- Commands that are shown and not run here, and why.
local NOT_RUN = {
  ["./dev demo"] = "installs packages; the program that it runs is run below",
  ["./dev build"] = "installs packages, and builds what these specs run on",
  ["sudo cmake --install build"] = "writes to /usr/local; spec/install_spec.lua does it elsewhere",
  ["./dev package"] = "builds; spec/package_spec.lua makes the package",
  ["sudo apt install ./build/lupe_0.1.0_amd64.deb"] = "changes this machine; spec/package_spec.lua does it in a copy",
  ["lupe run -- redis-server --save ''"] = "takes redis's own port; spec/end_to_end/redis_spec.lua",
  ["lupe serve"] = "runs until it is ended; spec/end_to_end/serve_spec.lua",
  ["cc -O2 app.c -o app $(pkg-config --cflags --libs lupe) -ljemalloc"] = "spec/docs_embedding_spec.lua",
  ["./app"] = "spec/docs_embedding_spec.lua",
  ["build/lupe run -- redis-server --save ''"] = "takes redis's own port; spec/end_to_end/redis_spec.lua",
}

-- Metrics that are there only where their figure is known.
local NOT_ALWAYS = {
  lupe_memory_cgroup_limit_bytes = true, lupe_memory_cgroup_used_bytes = true, lupe_proof_unreachable_bytes = true,
  lupe_span_duration_seconds = true,
}

local function read(path) return assert(support.read_file(support.root .. "/" .. path)) end

--- All fenced blocks of a page: { kind, text, after = what follows }.
local function blocks(page)
  local list, at = {}, 1
  local text = "\n" .. read(page)
  while true do
    local _, opened, indent, kind = text:find("\n( *)```(%w+)\n", at)
    if not opened then return list end
    local closed, last = text:find("\n" .. indent .. "```\n", opened, true)
    list[#list + 1] = { kind = kind, text = text:sub(opened + 1, closed), after = text:sub(last + 1) }
    at = last
  end
end

local function commands_of(page)
  local list = {}
  for _, block in ipairs(blocks(page)) do
    if block.kind == "console" then
      for command in ("\n" .. block.text):gmatch("\n *%$ ([^\n]+)") do
        list[#list + 1] = { page = page, text = command, after = block.after }
      end
    end
  end
  return list
end

-- Every field of a JSON text as a line "path type", in order; list elements are all called [].
local FIELDS = [[paths as $p | [($p | map(if type == "number" then "[]" else . end) | join(".")), (getpath($p) | type)]
  | join(" ")]]

--- Parents before children, children in the order in which they were met first: in which element of a list something
-- is, does not matter.
local function flatten(children, name, order)
  for _, child in ipairs(children[name] or {}) do
    order[#order + 1] = child
    flatten(children, child, order)
  end
  return order
end

--- Paths in order, each once, and the types met at each (null left out).
local function fields_of(text)
  local path = support.write_file(support.temp_dir() .. "/answer.json", text)
  local done = support.run({ "jq", "-er", FIELDS, path })
  assert.equal(0, done.code, done.err .. text)
  local children, types = {}, {}
  for line in done.out:gmatch("[^\n]+") do
    local name, kind = line:match("^(.*) (%a+)$")
    if not types[name] then
      local parent = name:match("^(.*)%.[^.]*$") or ""
      children[parent] = children[parent] or {}
      table.insert(children[parent], name)
      types[name] = {}
    end
    if kind ~= "null" then types[name][kind] = true end
  end
  return flatten(children, "", {}), types
end

--- Where one side has null or an empty list, the other's inside cannot be compared; `evidence` and `params` have
-- different fields in each rule.
local function opaque(name, types)
  local parent = name
  while parent do
    parent = parent:match("^(.*)%.[^.]*$")
    if not parent then return false end
    if parent:find("%.evidence$") or parent:find("%.params$") then return true end
    local known = types[parent]
    if known and not next(known) then return true end
    if known and known.array and not types[parent .. ".[]"] then return true end
  end
end

local function compare(documented, given, where)
  local order, types = fields_of(documented)
  local real_order, real_types = fields_of(given)
  local expected, got = {}, {}
  for _, name in ipairs(order) do
    if not opaque(name, real_types) and not opaque(name, types) then expected[#expected + 1] = name end
  end
  for _, name in ipairs(real_order) do
    if not opaque(name, types) and not opaque(name, real_types) then got[#got + 1] = name end
  end
  assert.same(expected, got, where)
  for _, name in ipairs(expected) do
    if next(types[name]) and next(real_types[name]) then
      assert.same(types[name], real_types[name], where .. ": " .. name)
    end
  end
end

--- The chapter of a route: its own, or the one with a row for it.
local function chapter_of(page, name)
  local place = page:find("\n## " .. name .. "\n", 1, true)
    or assert(page:find("\n| `" .. name .. "` |", 1, true), name .. " is not in docs/api.md")
  local start, following = 1, 1
  while following and following <= place do start, following = following, page:find("\n## ", following + 1, true) end
  return page:sub(start, following)
end

--- A shell in a folder of its own, with what documented commands name; `build` is the one under test.
local function in_folder(folder, command)
  for _, name in ipairs({ "examples", "rules" }) do
    os.execute(("ln -sfn %s/%s %s/%s"):format(support.root, name, folder, name))
  end
  os.execute(("ln -sfn %s %s/build"):format(support.build_dir, folder))
  return { "sh", "-c", command }, { cwd = folder }
end

-- Started first, looked at last; what was started is ended after the last of these blocks.
local demo, recorded, recordings

describe("the documentation's HTTP API", function()
  local run, folder

  setup(function()
    local words, build = {}, support.build_dir
    for word in assert(read("dev"):match("\n  exec (build/lupe run [^\n]+)\n")):gmatch("%S+") do
      words[#words + 1] = (word:gsub("^build/", build .. "/"))
    end
    recordings = support.temp_dir()
    recorded = support.spawn(in_folder(recordings, commands_of("docs/recordings.md")[1].text))
    demo = support.spawn(words, { env = { COLUMNS = 96, LC_ALL = "C.UTF-8" } })
    local routes = support.temp_dir()
    for i, block in ipairs(blocks("docs/routes.md")) do
      if block.kind == "lua" then support.write_file(("%s/%d.lua"):format(routes, i), block.text) end
    end
    support.write_file(routes .. "/top_growers.lua", read("examples/routes/top_growers.lua"))
    run = lupe_run.start({ support.built("examples/leaky_server"), "--self-drive", 120 },
      { flags = { "--routes", routes, "--heap-interval", "0.2", "--sample-bytes", "128K", "--cpu-hz", "1000" } })
    folder = support.temp_dir()
    run:await("/api/profiling/allocations", function(a) return #a.top_allocators > 0 end)
    local found
    support.eventually(function()
      found = run:post("/api/profiling/leak-detection")
      return #found.potential_leaks > 0
    end, 60, "a leak to be found")
    run:post("/api/profiling/snapshot", 201)
  end)

  --- Runs a documented curl: status, content type, body.
  local function curl(command)
    local newest = run:get("/api/profiling/snapshot").snapshots[1]
    local text = command:gsub("127%.0%.0%.1:7077", "127.0.0.1:" .. run.port)
      :gsub("/snapshot_%d+/", "/" .. newest.snapshot_id .. "/")
    local done = support.run({ "sh", "-c", text .. " -w '\n%{http_code} %{content_type}'" }, { cwd = folder })
    assert.equal(0, done.code, command .. done.err)
    local body, status, kind = done.out:match("^(.*)\n(%d+) ([^\n]*)$")
    return tonumber(status), kind, body, newest
  end

  it("is what the routes answer, field by field", function()
    local checked = 0
    for _, command in ipairs(commands_of("docs/api.md")) do
      local status, kind = command.after:match("^(%d%d%d) `([^`]+)`")
      if status then
        local given_status, given_kind, body = curl(command.text)
        assert.equal(tonumber(status), given_status, command.text .. body)
        assert.equal(kind, given_kind, command.text)
        local documented = command.after:match("^[^\n]*:\n```json\n(.-)\n```")
        if documented then compare(documented, body, command.text) end
        checked = checked + 1
      end
    end
    assert.equal(24, checked)
  end)

  it("notices a field that is missing, of another type, or at another place", function()
    assert.has_error(function() compare('{"a":1,"b":2}', '{"a":1}', "missing") end)
    assert.has_error(function() compare('{"a":1}', '{"a":1,"b":2}', "more") end)
    assert.has_error(function() compare('{"a":1,"b":2}', '{"b":2,"a":1}', "order") end)
    assert.has_error(function() compare('{"a":[{"b":1}]}', '{"a":[{"b":"x"}]}', "type") end)
    assert.has_error(function() compare('{"a":{"b":1}}', '{"a":{"c":1}}', "inside") end)
    compare('{"a":{"b":1},"c":[],"d":null}', '{"a":null,"c":[{"e":1}],"d":7}', "unknown values")
  end)

  it("hands a snapshot out as a file", function()
    for _, command in ipairs(commands_of("docs/api.md")) do
      if command.text:find("/download", 1, true) then
        local status, kind, _, newest = curl(command.text)
        assert.same({ 200, "application/json" }, { status, kind })
        local text = assert(support.read_file(folder .. "/" .. newest.snapshot_id .. ".json"))
        assert.equal("lupe-heap-snapshot", support.json.decode(text).format)
        return
      end
    end
    error("no download is shown")
  end)

  it("has a chapter and a row for every route, and no other", function()
    local page, real, shown = read("docs/api.md"), {}, {}
    for _, name in ipairs(ROUTES) do
      for _, route in ipairs(require("routes." .. name)) do real[#real + 1] = route.method .. " " .. route.path end
    end
    for title in page:gmatch("\n## (%u+ /[^\n]*)") do
      shown[#shown + 1] = title
      assert.truthy(page:find("[" .. title .. "](#", 1, true), title .. " is not in the list at the top")
    end
    for name in page:gmatch("\n| `(%u+ /[^`]*)` |") do shown[#shown + 1] = name end
    table.sort(real)
    table.sort(shown)
    assert.same(real, shown)
  end)

  it("documents every parameter of every route", function()
    local page = read("docs/api.md")
    for _, name in ipairs(ROUTES) do
      for _, route in ipairs(require("routes." .. name)) do
        local chapter = chapter_of(page, route.method .. " " .. route.path)
        for _, param in ipairs(route.params) do
          local where = param.name == "target" and page or chapter
          assert.truthy(where:find(param.name == "target" and "?target=PID" or "`" .. param.name .. "`", 1, true),
            route.path .. " " .. param.name)
        end
      end
    end
  end)

  it("lists every metric with its type and labels, and no other", function()
    local _, _, text = curl("curl -s http://127.0.0.1:7077/metrics")
    local shown, page = {}, read("docs/operations.md")
    for name, labels, kind in page:gmatch("\n| `(lupe_[%w_]+)`([^|]*) | (%a+) |") do
      shown[name] = true
      local real = text:match("# TYPE " .. name .. " (%a+)")
      if real or not NOT_ALWAYS[name] then
        assert.equal(kind, real, name)
      end
      local sample = text:match("\n" .. name .. "{([^\n]*)}") or text:match("\n" .. name .. "_sum{([^\n]*)}")
      local real_labels = {}
      for label in (sample or ""):gmatch('(%w+)="') do real_labels[#real_labels + 1] = "`" .. label .. "`" end
      if real then
        assert.equal(table.concat(real_labels, ", "), (labels:gsub("^ by ", "")), name)
      end
    end
    for name in text:gmatch("# TYPE (%S+)") do assert.is_true(shown[name], name .. " is not documented") end
    for _, block in ipairs(blocks("docs/operations.md")) do
      for name in (block.kind == "yaml" and block.text or ""):gmatch("lupe_[%w_]+") do
        assert.is_true(shown[name], name .. ", in an alert, is no metric")
      end
    end
  end)

  it("shows alerts that Prometheus takes", function()
    local rules = 0
    for _, block in ipairs(blocks("docs/operations.md")) do
      if block.kind == "yaml" and block.text:find("^groups:") then
        local path = support.write_file(support.temp_dir() .. "/alerts.yml", block.text)
        local done = support.run({ "promtool", "check", "rules", path })
        assert.equal(0, done.code, done.out .. done.err)
        rules = rules + 1
      end
    end
    assert.equal(1, rules)
  end)

  it("shows no command in other pages that fails", function()
    local elsewhere, commands, started = { ["docs/api.md"] = true, ["docs/recordings.md"] = true }, {}, {}
    for _, page in ipairs(PAGES) do
      for _, command in ipairs(elsewhere[page] and {} or commands_of(page)) do commands[#commands + 1] = command end
    end
    for i, command in ipairs(commands) do
      if command.text:find("^build/lupe ") and not NOT_RUN[command.text] then
        local build = support.build_dir
        local text = command.text:gsub("build/lupe", build .. "/lupe"):gsub("build/examples", build .. "/examples")
        started[i] = support.spawn({ "sh", "-c", text }, { cwd = support.root })
      end
    end
    for i, command in ipairs(commands) do
      if command.text:find("^curl ") then
        assert.truthy(curl(command.text) < 300, command.page .. ": " .. command.text)
      elseif command.text:find("^google%-pprof ") or command.text:find("^go tool pprof ") then
        local text = command.text:gsub("127%.0%.0%.1:7077", "127.0.0.1:" .. run.port)
        local env = { HOME = folder, PPROF_TMPDIR = folder }
        local done = support.run({ "sh", "-c", text }, { env = env, seconds = 60 })
        assert.equal(0, done.code, command.text .. done.err)
        if text:find("heap", 1, true) then assert.truthy(done.out:find(" remember_session\n", 1, true), done.out) end
      else
        assert.truthy(started[i] or NOT_RUN[command.text],
          command.page .. ": this command is neither run nor excepted: " .. command.text)
      end
    end
    for _, process in pairs(started) do assert.equal(0, process:wait(60), process:stderr()) end
  end)
end)

describe("the documentation of recordings", function()
  it("shows commands that work, one after the other", function()
    assert.equal(0, recorded:wait(60), recorded:stderr())
    local said = {}
    for i, command in ipairs(commands_of("docs/recordings.md")) do
      if i > 1 then
        local done = support.run(in_folder(recordings, command.text))
        assert.equal(0, done.code, command.text .. "\n" .. done.err .. done.out)
        assert.equal("", done.err)
        said[command.text] = done.out
      end
    end
    assert.matches("\n +1[0-9.]+ s  %+ leak.steady%-growth, %a+, .*remember_session grows",
      said["build/lupe rules replay run.lupe"])
    assert.matches("3 cases, 0 failed", said["build/lupe rules test examples/rules/one_holder.lua"], 1, true)
    local earlier = support.json.decode(support.read_file(recordings .. "/then.json"))
    assert.equal("and was still running", earlier.outcome.reason)
  end)

  it("shows the cases that examples/rules holds", function()
    for _, block in ipairs(blocks("docs/recordings.md")) do
      if block.kind == "lua" then assert.equal(read("examples/rules/one_holder.test.lua"), block.text) end
    end
  end)
end)

describe("the documentation's tables", function()
  it("list every setting with its environment variable and default, in the order of the help", function()
    local page, shown = read("docs/operations.md"), {}
    for flag, env, default in page:gmatch("\n| `(%-%-[%w-]+)[^`]*` | `([%u_]+)` | ([^|]+) |") do
      shown[#shown + 1] = { flag, env, default }
    end
    local real, of_the_file, shown_of_the_file = {}, {}, {}
    for _, spec in ipairs(settings) do
      local default = spec.default_doc or spec.default ~= nil and tostring(spec.default)
      if spec.flag then
        real[#real + 1] = { spec.flag, spec.env, default and "`" .. default .. "`" or "none" }
      else
        of_the_file[#of_the_file + 1] = spec.name
      end
    end
    assert.same(real, shown)
    for name in page:match("\n| setting | |\n(.-)\n\n"):gmatch("| `([%l_]+)` |") do
      shown_of_the_file[#shown_of_the_file + 1] = name
    end
    assert.same(of_the_file, shown_of_the_file)
    assert.truthy(config.by_flag["--listen"])
  end)

  it("list every function and every field that the host has", function()
    local page = read("docs/host.md")
    for _, file in ipairs(HOST_FILES) do
      local source = read(file)
      for name in source:gmatch('\n    {"([%w_]+)", [%w_]+},') do
        assert.truthy(page:find("| `" .. name .. "(", 1, true), name .. " is not in docs/host.md")
      end
      for field in source:gmatch('set_%a+%(L, "([%w_]+)"') do
        assert.truthy(page:find("`" .. field .. "`", 1, true), field .. " is not in docs/host.md")
      end
    end
    for name in page:gmatch("\n| `([%w_]+)%(") do
      local found = false
      for _, file in ipairs(HOST_FILES) do
        found = found or read(file):find('{"' .. name .. '", ', 1, true) ~= nil
      end
      assert.is_true(found, name .. " is in docs/host.md, and not in the host")
    end
  end)

  it("name files and chapters that are there", function()
    for _, page in ipairs({ "docs/rules.md", "docs/embedding.md", unpack(PAGES) }) do
      local text, folder = read(page), page:match("^(.*/)[^/]*$") or ""
      for path in text:gmatch("`([%a]+/[%w_./-]+%.%a+)`") do
        if not path:find("^build/") and path:find("^%a+/") then
          assert.truthy(support.read_file(support.root .. "/" .. path), page .. " names " .. path)
        end
      end
      for target in text:gmatch("%]%(([^)]+)%)") do
        local path, anchor = target:match("^([^#]*)#?(.*)$")
        local whole = (folder .. path):gsub("[^/]+/%.%./", "")
        local linked = path == "" and text or support.read_file(support.root .. "/" .. whole)
        assert.truthy(linked, page .. " links to " .. target)
        local found = anchor == ""
        for title in ("\n" .. linked):gmatch("\n#+ ([^\n]*)") do
          found = found or title:lower():gsub("[^%w _-]", ""):gsub(" ", "-") == anchor
        end
        assert.is_true(found, page .. " links to a chapter that is not there: " .. target)
      end
    end
  end)
end)

describe("the README", function()
  teardown(support.cleanup)

  it("shows the rule that examples/rules holds", function()
    local shown
    for _, block in ipairs(blocks("README.md")) do
      if block.kind == "lua" then shown = block.text end
    end
    assert.equal(read("examples/rules/one_holder.lua"), shown)
  end)

  it("shows the report that the demo ends with", function()
    local code = demo:wait(60)
    local report, shown = demo:stderr(), nil
    for _, block in ipairs(blocks("README.md")) do
      if block.kind == "text" then shown = block.text end
    end
    assert.equal(0, code, report)
    local function headings(text)
      local list = {}
      for line in text:gmatch("[^\n]+") do
        -- What once grew is told in most runs, not in all.
        if line:find("^%u") and not line:find("^Grew") then list[#list + 1] = line:match("^[%a ]+") end
      end
      return table.concat(list, "\n"):gsub("\nallocated", "")
    end
    local function answer(text) return text:match("\n(Leak: [%w_]+ %([%w_]+%) grows )") end
    assert.equal(headings(shown), headings(report:match("lupe: leaky_server ran.*")))
    assert.equal("Leak: remember_session (leaky_server) grows ", answer(shown))
    assert.equal(answer(shown), answer(report))
    for _, harmless in ipairs({ "cache_page", "grow_pool" }) do
      for _, accused in ipairs({ "Leak: ", "Perhaps a leak: ", "Investigate ", "%d%. " }) do
        assert.is_nil(report:find(accused .. harmless), report)
      end
    end
  end)
end)
