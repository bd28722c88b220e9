--- What names, lines and inlined calls cost, of a library with debug information that is built here, the same
-- every time: Debian's own carry none. 12 sources of C with calls inlined two deep, each linked in several times
-- under other names.
local harness = require("bench.harness")
local support = require("spec.support")

local ADDRESSES = 10000
local SOURCES, COPIES, FUNCTIONS = 12, 7, 160
local RUNS = 5

local FUNCTION = [[
struct box_K { long value, weight; struct box_K *next; };
static inline __attribute__((always_inline)) long mix_K(struct box_K *box, long by) {
  long old = box->value;
  box->value = old * FACTOR + by;
  sink += old;
  return old ^ box->value;
}
static inline __attribute__((always_inline)) long walk_K(struct box_K *box, long steps) {
  long sum = 0;
  for (long step = 0; step < steps; step++) {
    long part = mix_K(box, step);
    sum += part > FACTOR ? part : mix_K(box, sum);
    box = box->next;
  }
  return sum;
}
long work_K(struct box_K *box, long count) {
  long total = 0;
  for (long i = 0; i < count; i++) {
    total += walk_K(box, i);
    if (i & 1) total ^= mix_K(box, total);
    if (total > K) {
      long extra = walk_K(box->next, total & 7);
      total -= extra;
    }
  }
  return total;
}
]]

local function source(number)
  local parts = { "static volatile long sink;\n" }
  for i = 1, FUNCTIONS do
    local k = tostring(number * 1000 + i)
    parts[#parts + 1] = (FUNCTION:gsub("FACTOR", tostring(i % 97 + 3)):gsub("K", k))
  end
  return table.concat(parts)
end

local function sh(folder, command)
  local ended = support.run({ "sh", "-c", command }, { cwd = folder, seconds = 600 })
  assert(ended.code == 0, ended.err)
end

--- The library's path.
local function build()
  local folder = support.temp_dir()
  for i = 1, SOURCES do support.write_file(("%s/part%d.c"):format(folder, i), source(i)) end
  sh(folder, "ls part*.c | xargs -P2 -n1 cc -O1 -g -fPIC -c")
  for i = 1, SOURCES do
    for copy = 2, COPIES do
      sh(folder, ("objcopy --prefix-symbols=again%d_ part%d.o copy%d_%d.o"):format(copy, i, i, copy))
    end
  end
  sh(folder, "cc -shared -Wl,--build-id=sha1 -o libparts.so *.o && rm *.o")
  return folder .. "/libparts.so"
end

local function measure(what, path)
  local program, elapsed, peak, last = harness.program("symbolize_cost"), {}, 0, nil
  for i = 1, RUNS do
    last = harness.measure { program, what, path, tostring(ADDRESSES) }
    elapsed[i] = last.elapsed_ms
    peak = math.max(peak, last.peak_mb)
  end
  return harness.median(elapsed), peak, last
end

return {
  title = "Names, lines and inlined calls",
  run = function()
    local path = build()
    local bytes = #support.read_file(path)
    local names_ms, names_mb, names = measure("names", path)
    local lines_ms, lines_mb, lines = measure("lines", path)
    support.cleanup()
    -- What was not found did not cost anything.
    assert(names.named >= 0.95 * ADDRESSES and lines.lines >= 0.95 * ADDRESSES and lines.inlines >= ADDRESSES / 2,
      "too little was found")
    return {
      harness.row("10,000 addresses of such a library: names", names_ms, "<=", 50, "ms"),
      harness.row("10,000 addresses: names, lines and inlined calls", lines_ms, "<=", 1000, "ms"),
      harness.row("peak memory of that", lines_mb, "<=", 100, "MiB"),
      harness.row("size of the library", bytes / harness.MIB, ">=", 30, "MiB"),
    }, {
      addresses = ADDRESSES, library_mb = bytes / harness.MIB, names_peak_mb = names_mb, named = names.named,
      lines = lines.lines, inlines = lines.inlines,
    }
  end,
}
