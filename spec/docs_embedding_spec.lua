--- The code that docs/embedding.md and the README's section on it show. Every block compiles; whole programs run, and
-- the parts of programs are called by one that is made here.
local support = require("spec.support")

local PAGE = assert(support.read_file(support.root .. "/docs/embedding.md"))
local README = assert(support.read_file(support.root .. "/README.md"))
local WARNINGS = { "-Wall", "-Wextra", "-Wshadow", "-Werror" }
local LIBRARIES = "^[^\n]*%$%(pkg%-config %-%-cflags %-%-libs lupe%) ([^\n]*)" -- what else a command links
local COMMAND = assert(PAGE:match("\n%$ (cc app%.c %-o app %$%([^\n]*)"))

-- Calls what the parts of programs on the page define, all but what would write outside of the working folder.
local CALLS = [[
int main(void) {
  if (lupe_add_rule("sessions.lua", rule) != LUPE_OK || add_rules() != LUPE_OK) return 2;
  if (start_anywhere() != LUPE_OK || lupe_stop() != LUPE_OK) return 3;
  if (start_with_callback(NULL) != LUPE_OK) return 4;
  struct request r;
  on_request(&r);
  on_answered(&r);
  char *page = page_of("acme", 1);
  if (page == NULL || print_memory() != 0) return 5;
  lupe_status status = LUPE_EAGAIN;
  const struct timespec pause = {0, 25000000};
  for (int i = 0; i < 400 && (status = keep_heap()) == LUPE_EAGAIN; i++) nanosleep(&pause, NULL);
  if (status != LUPE_OK) fprintf(stderr, "%s\n", lupe_error());
  free(page);
  return status != LUPE_OK || start_configured() != LUPE_EINUSE || lupe_stop() != LUPE_OK ? 6 : 0;
}
]]

local function blocks(page, kind)
  local list = {}
  for text in ("\n" .. page):gmatch("\n```" .. kind .. "\n(.-)\n```\n") do list[#list + 1] = text .. "\n" end
  return list
end

local function is_program(text) return text:find("\nint main%(") ~= nil end

--- Compiles one block; returns the path of what came out.
-- @tparam[opt] string command as shown, that links the program
local function compile(folder, name, text, words, command)
  local source, out = support.write_file(folder .. "/" .. name, text), folder .. "/" .. name .. ".out"
  support.write_file(folder .. "/lupe.h", assert(support.read_file(support.root .. "/core/lupe.h")))
  local argv = { name:match("%.cc$") and "c++" or "cc", "-O2", "-isystem", folder }
  for _, list in ipairs({ WARNINGS, words }) do
    for _, word in ipairs(list) do argv[#argv + 1] = word end
  end
  for _, word in ipairs({ source, "-o", out }) do argv[#argv + 1] = word end
  -- Linked from here on: libraries come after what needs them.
  if words[1] ~= "-c" then
    for _, word in ipairs({ "-L" .. support.build_dir, "-Wl,-rpath," .. support.build_dir, "-llupe" }) do
      argv[#argv + 1] = word
    end
    for word in (command or COMMAND):match(LIBRARIES):gmatch("%S+") do argv[#argv + 1] = word end
  end
  local done = support.run(argv, { seconds = 60 })
  assert.equal(0, done.code, text .. done.err)
  return out
end

describe("the C that docs/embedding.md shows", function()
  local folder
  setup(function() folder = support.temp_dir() end)
  teardown(support.cleanup)

  it("compiles without a warning, as C11, as C++11 where it is to, and with LUPE_DISABLE", function()
    local parts = 0
    for i, text in ipairs(blocks(PAGE, "c")) do
      compile(folder, i .. ".c", text, { "-c", "-std=c11", "-D_GNU_SOURCE=" })
      compile(folder, i .. "_off.c", text, { "-c", "-std=c11", "-D_GNU_SOURCE=", "-DLUPE_DISABLE", "-Wno-unused" })
      if not is_program(text) then parts = parts + 1 end
    end
    local modern = blocks(PAGE, "cpp")
    for i, text in ipairs(modern) do compile(folder, i .. ".cc", text, { "-c", "-std=c++11" }) end
    assert.is_true(parts >= 5 and #modern >= 1, parts .. " parts only")
  end)

  it("runs, where it is a whole program", function()
    local ran = 0
    for i, text in ipairs(blocks(PAGE, "c")) do
      if is_program(text) then
        local program = compile(folder, i .. "_run.c", text, { "-std=c11", "-D_GNU_SOURCE=" })
        local done = support.run({ program },
          { env = { LUPE_LISTEN = "127.0.0.1:" .. support.free_port(), LUPE_SOCKET = false }, seconds = 60 })
        assert.equal(0, done.code, text .. done.err)
        assert.is_nil(done.err:find("without lupe", 1, true), done.err)
        ran = ran + 1
      end
    end
    assert.is_true(ran >= 4, ran .. " programs only")
  end)

  it("works as parts of a program, too", function()
    local text = { "#include <time.h>\n" }
    for _, block in ipairs(blocks(PAGE, "c")) do
      if not is_program(block) then text[#text + 1] = block end
    end
    text[#text + 1] = CALLS
    local program = compile(folder, "parts.c", table.concat(text, "\n"), { "-std=c11", "-D_GNU_SOURCE=" })
    local done = support.run({ program }, { cwd = folder, seconds = 60,
      env = {
        MALLOC_CONF = "prof:true,prof_active:false,lg_prof_sample:12", LUPE_STATE_DIR = folder, LUPE_SOCKET = false,
        LUPE_LISTEN = "127.0.0.1:" .. support.free_port(), LUPE_HEAP_INTERVAL_SECS = 0.2,
      } })
    assert.equal(0, done.code, done.out .. done.err)
    assert.matches('^200 {.*"rss_mb"', done.out)
    assert.equal("lupe-heap-snapshot", support.json.decode(support.read_file(folder .. "/app-before.json")).format)
  end)
end)

describe("the README's own program", function()
  teardown(support.cleanup)

  it("prints what is shown", function()
    local section = assert(README:match("\n## In your own program\n(.-)\n## "), "no such section in the README")
    local text, command, shown = section:match("\n```c\n(.-)```.-\n```console\n%$ ([^\n]*)\n(.-)```")
    assert.truthy(text, "no C program and command in the README")
    assert.matches("^cc %-O2 app%.c %-o app ", command) -- inlined, a function is not in the advice
    local folder = support.temp_dir()
    local program = compile(folder, "app.c", text, {}, command)
    local done = support.run({ program }, { cwd = folder, seconds = 60,
      env = { LUPE_LISTEN = "127.0.0.1:" .. support.free_port(), LUPE_SOCKET = false } })
    assert.equal(0, done.code, done.err)
    -- The program wakes a thousand times a second to do next to nothing, and where the machine is busy a check says so,
    -- as something less urgent. What is critical is what is shown, and a later check may have more to say of it.
    local function critical(words)
      local lines = {}
      for line in words:gmatch("[^\n]+") do
        if line:find("^critical: ") then lines[#lines + 1] = (line:gsub("%d[%d.,]*", "N")) end
      end
      return lines
    end
    local wanted, said = critical(shown:match("%$ %./app\n(.*)$")), critical(done.out)
    assert.is_true(#wanted > 0)
    for i, line in ipairs(wanted) do assert.equal(line, said[i], done.out) end
    for line in done.out:gmatch("[^\n]+") do
      assert.is_true(line:find("^critical: ") ~= nil or line:find("^%a+: .*polls") ~= nil, line)
    end
  end)
end)
