local collected_run = require("spec.core.store.collected_run")
local ffi = require("ffi")
local support = require("spec.support")
local snapshots = require("spec.support_snapshot")

support.declare("core/store/source_lines.h")
local core = support.core()

local folder

local function sh(command, ...)
  local text = command:format(...)
  local pipe = assert(io.popen("cd " .. folder .. " && env -u LD_PRELOAD sh -c '" .. text .. "' 2>&1"))
  local out = pipe:read("*a")
  assert(pipe:close(), text .. ": " .. out)
  return out
end

local source = [[
static volatile int sink;
struct cell { int value; };
static inline __attribute__((always_inline)) int add(struct cell *c, int by) {
  c->value += by;
  sink = c->value;
  return sink * 3;
}
static inline __attribute__((always_inline)) int twice(struct cell *c) {
  int one = add(c, 1);
  return one + add(c, 2);
}
__attribute__((noinline)) int outer(int n) {
  struct cell c = { n };
  int sum = 0;
  for (int i = 0; i < n; i++) sum += twice(&c);
  return sum;
}
int main(int argc, char **argv) { (void)argv; return outer(argc); }
]]

local function build(name, flags, compiler)
  local file = name .. ".c"
  support.write_file(folder .. "/" .. file, source)
  sh("%s -O2 -Wl,--build-id=sha1 %s -o %s %s", compiler or "cc", flags or "-g", name, file)
  return folder .. "/" .. name
end

--- Every second address of a function, and what binutils says of each: { { function, file, line }, ... },
-- innermost first.
local function truth(path, name)
  local from, size = sh("nm -S %s", path):match("(%x+) (%x+) %a " .. name .. "\n")
  from, size = tonumber(from, 16), tonumber(size, 16)
  local addresses, words = {}, {}
  for address = from, from + size - 1, 2 do
    addresses[#addresses + 1] = address
    words[#words + 1] = ("0x%x"):format(address)
  end
  local answers, calls = {}, nil
  for line in sh("addr2line -aifC -e %s %s", path, table.concat(words, " ")):gmatch("[^\n]+") do
    if line:find("^0x") then
      calls = {}
      answers[#answers + 1] = calls
    elseif #calls > 0 and not calls[#calls][2] then
      local file, number = line:match("^(.*):(%d+)")
      calls[#calls][2], calls[#calls][3] = file or "?", tonumber(number) or 0
    else
      calls[#calls + 1] = { line }
    end
  end
  return addresses, answers
end

--- By index of the address: the calls, innermost first, and the function itself last; `definition` beside them.
local function resolve(path, addresses, options)
  options = options or {}
  local out = ffi.new("lupe_source_lines *[1]")
  local debug_root = options.debug_root or (folder .. "/debug")
  local file = ffi.new("lupe_source_file", { path = path, debug_root = debug_root,
    build_id = options.build_id, limit_bytes = options.limit_bytes or 0 })
  local status = core.lupe_source_lines_open(out, file)
  if status ~= 0 then return nil, tonumber(status) end
  local list, places = ffi.new("uint64_t[?]", #addresses + 1, addresses), {}
  local callback = ffi.cast("lupe_source_lines_cb", function(_, index, place)
    local calls = {}
    for i = 0, tonumber(place.inline_count) - 1 do
      local call = place.inlines[i]
      calls[#calls + 1] = { ffi.string(call.name), ffi.string(call.file), call.line }
    end
    calls[#calls + 1] = { false, ffi.string(place.file), place.line }
    calls.definition = { ffi.string(place.definition_file), place.definition_line }
    places[tonumber(index) + 1] = calls
  end)
  status = core.lupe_source_lines_resolve(out[0], list, #addresses, options.deadline_ns or 2 ^ 62, callback, nil)
  callback:free()
  core.lupe_source_lines_close(out[0])
  return places, tonumber(status)
end

local function assert_like_binutils(path, options, truth_path)
  local addresses, expected = truth(truth_path or path, "outer")
  local places = assert(resolve(path, addresses, options))
  local deepest = 0
  for i in ipairs(addresses) do
    local place, calls = places[i], expected[i]
    local what = ("%s at 0x%x"):format(path, addresses[i])
    assert.are.equal(#calls, #place, what)
    for k, call in ipairs(calls) do
      assert.are.equal(call[3], place[k][3], what)
      if call[3] > 0 then assert.are.equal(call[2], place[k][2], what) end
      if k < #calls then assert.are.equal(call[1], (place[k][1]:gsub("%(.*", "")), what) end
    end
    deepest = math.max(deepest, #place)
  end
  assert.are.equal(3, deepest) -- add in twice in outer
  return places
end

describe("the lines of a program file", function()
  setup(function()
    folder = support.temp_dir()
    build("program")
  end)
  teardown(support.cleanup)

  it("are those that binutils tells, inlined calls included", function()
    local places = assert_like_binutils(folder .. "/program")
    assert.are.same({ folder .. "/program.c", 12 }, places[1].definition)
  end)

  it("are found whatever compiler and version of DWARF made them", function()
    for _, compiler in ipairs { "gcc", "clang" } do
      assert_like_binutils(build("other", "-gdwarf-4", compiler))
      sh("cp other four") -- binutils do not follow all that clang writes in DWARF 5; the code is the same
      assert_like_binutils(build("other", "-gdwarf-5", compiler), nil, folder .. "/four")
    end
  end)

  it("are found where types have sections of their own, which binutils cannot follow", function()
    local addresses, expected = truth(folder .. "/program", "outer")
    for _, version in ipairs { 4, 5 } do
      local places = resolve(build("program_types", ("-gdwarf-%d -fdebug-types-section"):format(version)), addresses)
      for i, calls in ipairs(expected) do
        assert.are.equal(#calls, #places[i])
        for k, call in ipairs(calls) do assert.are.equal(call[3], places[i][k][3]) end
      end
    end
  end)

  it("are found where sections are packed, in the new form and the old", function()
    for _, form in ipairs { "zlib-gabi", "zlib-gnu" } do
      sh("objcopy --compress-debug-sections=%s program packed", form)
      assert_like_binutils(folder .. "/packed", nil, folder .. "/program")
    end
  end)

  it("are those of the separate debug file of the same build", function()
    local id = sh("readelf -n program"):match("Build ID: (%x+)")
    sh("mkdir -p debug/.build-id/%s && cp program stripped && strip -s stripped", id:sub(1, 2))
    assert.are.equal(core.LUPE_ENOENT, select(2, resolve(folder .. "/stripped", {})))
    sh("objcopy --only-keep-debug program debug/.build-id/%s/%s.debug", id:sub(1, 2), id:sub(3))
    assert_like_binutils(folder .. "/stripped", { build_id = id }, folder .. "/program")
    local other = id:gsub("^.", id:sub(1, 1) == "0" and "1" or "0")
    assert.are.equal(core.LUPE_ENOENT, select(2, resolve(folder .. "/stripped", {}, { build_id = other })))
  end)

  it("are found where dwz has moved what files share to another one", function()
    build("second", "-g -fno-inline-small-functions")
    sh("cp program one && cp second two && dwz -m shared.debug one two")
    assert.is_truthy(sh("readelf -SW one"):find(".gnu_debugaltlink", 1, true))
    assert_like_binutils(folder .. "/one", nil, folder .. "/program")
    assert_like_binutils(folder .. "/two", nil, folder .. "/second")
    -- By its build id, where it is not at its path.
    local id = sh("readelf -n shared.debug"):match("Build ID: (%x+)")
    sh("mkdir -p debug/.build-id/%s && mv shared.debug debug/.build-id/%s/%s.debug", id:sub(1, 2), id:sub(1, 2),
      id:sub(3))
    assert_like_binutils(folder .. "/one", nil, folder .. "/program")
  end)

  it("are not there for split debug information, and nothing else is harmed", function()
    local path = build("split", "-g -gsplit-dwarf")
    local places, status = resolve(path, (truth(folder .. "/program", "outer")))
    assert.are.same({}, places)
    assert.are.equal(0, status)
  end)

  it("cost no more memory than is allowed", function()
    local path = folder .. "/program"
    assert.are.equal(core.LUPE_EFULL, select(2, resolve(path, {}, { limit_bytes = 100 })))
    sh("objcopy --compress-debug-sections=zlib-gabi program packed")
    assert.are.equal(core.LUPE_EFULL, select(2, resolve(folder .. "/packed", {}, { limit_bytes = 100 })))
  end)

  it("end with the time that there is for them", function()
    local addresses = truth(folder .. "/program", "outer")
    assert.are.equal(core.LUPE_EAGAIN, select(2, resolve(folder .. "/program", addresses, { deadline_ns = 0 })))
  end)

  it("are not there for what is no program, or one without debug information", function()
    assert.are.equal(core.LUPE_ENOENT, select(2, resolve("/nowhere/at/all", {})))
    support.write_file(folder .. "/text", "hello")
    assert.are.equal(core.LUPE_ENOENT, select(2, resolve(folder .. "/text", {})))
    assert.are.equal(core.LUPE_ENOENT, select(2, resolve(build("bare", "-g0"), {})))
  end)

  it("survive damage everywhere in the debug information", function()
    local bytes = support.read_file(folder .. "/program")
    local addresses = truth(folder .. "/program", "outer")
    local sections = {}
    for offset, size in sh("readelf -SW program"):gmatch("%.debug_%S+%s+PROGBITS%s+%x+ (%x+) (%x+)") do
      sections[#sections + 1] = { tonumber(offset, 16), tonumber(size, 16) }
    end
    assert.is_true(#sections >= 5)
    local state = 20240229
    local function random(n)
      state = (state * 48271) % 2147483647
      return state % n
    end
    local edges, found, lost = { 0, 1, 0x7f, 0x80, 0xff }, 0, 0
    for _ = 1, support.sanitized and 300 or 1000 do
      local image = ffi.new("uint8_t[?]", #bytes)
      ffi.copy(image, bytes, #bytes)
      for _ = 1, 1 + random(8) do
        local section = sections[1 + random(#sections)]
        image[section[1] + random(section[2])] = random(3) == 0 and random(256) or edges[1 + random(#edges)]
      end
      support.write_file(folder .. "/damaged", ffi.string(image, random(20) == 0 and random(#bytes) or #bytes))
      local places = resolve(folder .. "/damaged", addresses)
      if places and #places == #addresses then found = found + 1 else lost = lost + 1 end
    end
    assert.is_true(found > 50 and lost > 20, found .. " " .. lost)
  end)
end)

describe("a run's lines", function()
  setup(function()
    folder = support.temp_dir()
    build("program")
  end)
  teardown(support.cleanup)

  local HOUR_NS = 3600 * 10 ^ 9

  --- A run whose samples lie all over `outer`, as its frames and functions are after lines were looked for.
  local function run_of(path, before)
    local from, size = sh("nm -S program"):match("(%x+) (%x+) %a outer\n")
    local base, first = 0x100000000, tonumber(from, 16)
    local run = snapshots.run { cpu_hz = 100 }
    local target = run:add()
    run:set_maps(target, ("%x-%x r-xp 00000000 00:01 1 %s\n"):format(base, base + 0x100000, path))
    for address = first, first + tonumber(size, 16) - 1 do
      run:thread_sample(target, { time_ms = 1000 }, { base + address })
    end
    run:snapshot(0, snapshots.epoch_ms + 2000)
    if before then before(run) end
    assert.are.equal(0, tonumber(core.lupe_aggregator_find_lines(run.a, core.LUPE_LINES_ALL, HOUR_NS * 24 * 365)
      % core.LUPE_ENOENT)) -- LUPE_OK, or nothing left
    return run, run:snapshot(0, snapshots.epoch_ms + 2000)
  end

  it("are in the snapshots that follow, and no address is looked for twice", function()
    local run, built = run_of(folder .. "/program")
    local frames, count = snapshots.column(built.header, "frames", "lupe_snapshot_frame")
    local functions = snapshots.column(built.header, "functions", "lupe_snapshot_function")
    local inlines = snapshots.column(built.header, "inlines", "lupe_snapshot_inline")
    local named, lines = {}, 0
    for i = 0, count - 1 do
      if frames[i].line > 0 then
        lines = lines + 1
        assert.are.equal(folder .. "/program.c", snapshots.string(built.header, frames[i].file))
        local f = functions[frames[i]["function"]]
        assert.are.equal("outer", snapshots.string(built.header, f.name))
        assert.are.equal(12, f.line)
        for k = frames[i].inline_first, frames[i].inline_first + frames[i].inline_count - 1 do
          named[snapshots.string(built.header, inlines[k].name)] = true
        end
      end
    end
    assert.is_true(lines > 20)
    assert.are.same({ add = true, twice = true }, named)
    local figures = ffi.new("lupe_line_figures")
    core.lupe_aggregator_line_figures(run.a, figures)
    assert.are.equal(lines, tonumber(figures.located))
    assert.are.equal(0, tonumber(figures.open))
    assert.are.equal(core.LUPE_ENOENT, core.lupe_aggregator_find_lines(run.a, core.LUPE_LINES_SOME, HOUR_NS))
  end)

  it("are looked for at the end of a run, unless there is no time for it", function()
    local function located(lines_ms)
      local base, from = 0x100000000, tonumber(sh("nm program"):match("(%x+) %a outer\n"), 16)
      local collected = collected_run.start()
      local run = snapshots.run_on(collected.a)
      local target = run:add()
      run:set_maps(target, ("%x-%x r-xp 00000000 00:01 1 %s\n"):format(base, base + 0x100000, folder .. "/program"))
      run:thread_sample(target, { time_ms = os.time() * 1000 - snapshots.epoch_ms }, { base + from })
      core.lupe_aggregator_absorb(run.a)
      collected:finish(lines_ms)
      local figures = ffi.new("lupe_line_figures")
      core.lupe_aggregator_line_figures(run.a, figures)
      collected:stop()
      return tonumber(figures.located)
    end
    assert.are.same({ 0, 1 }, { located(0), located(3600000) })
  end)

  it("are looked for at once only where a frame has its share of the samples", function()
    local function found(weight, others)
      local from = tonumber(sh("nm program"):match("(%x+) %a outer\n"), 16)
      local base = 0x100000000
      local run = snapshots.run { cpu_hz = 100 }
      local target = run:add()
      run:set_maps(target, ("%x-%x r-xp 00000000 00:01 1 %s\n"):format(base, base + 0x100000, folder .. "/program"))
      run:thread_sample(target, { time_ms = 1000, weight = others }, { 16 }) -- known to be nowhere
      run:thread_sample(target, { time_ms = 1000, weight = weight }, { base + from })
      run:snapshot(0, snapshots.epoch_ms + 2000)
      local status = core.lupe_aggregator_find_lines(run.a, core.LUPE_LINES_WANTED, HOUR_NS * 24 * 365)
      local figures = ffi.new("lupe_line_figures")
      core.lupe_aggregator_line_figures(run.a, figures)
      return tonumber(status), tonumber(figures.located)
    end
    assert.are.same({ 0, 1 }, { found(3, 2000) })
    assert.are.same({ tonumber(core.LUPE_ENOENT), 0 }, { found(3, 4000) })
    assert.are.same({ tonumber(core.LUPE_ENOENT), 0 }, { found(2, 1) })
  end)

  it("are unknown of a file that was replaced by another build, though its names stay", function()
    sh("cp program replaced")
    local _, built = run_of(folder .. "/replaced", function()
      support.write_file(folder .. "/other.c", (source:gsub("sink %* 3", "sink * 5")))
      sh("cc -O2 -g -Wl,--build-id=sha1 -o replaced other.c")
    end)
    local frames, count = snapshots.column(built.header, "frames", "lupe_snapshot_frame")
    for i = 0, count - 1 do assert.are.equal(0, frames[i].line) end
    local samples = snapshots.samples(built.header)
    assert.are.same({ "outer" }, samples[1].stack)
  end)

  it("stay, with the names, when a module has been unmapped since", function()
    local run = run_of(folder .. "/program")
    local again = run:add { pid = 4243 }
    run:set_maps(again, "")
    local built = run:snapshot(0, snapshots.epoch_ms + 2000)
    assert.are.same({ "outer" }, snapshots.samples(built.header)[1].stack)
    assert.is_true(tonumber(built.header.inlines.count) > 0)
  end)
end)
