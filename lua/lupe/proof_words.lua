--- What the figures of a leak proof mean, in words: how it ended, and what makes less than a proof of it.
-- The numbers are those of core/wire/proof.h; what an operator can do about an outcome stands in its sentence.
-- @module lupe.proof_words

local bit = require("bit")

local error_text = require("lupe.ffi").error_text
local format = require("lupe.format")

local proof_words = {}

--- By lupe_proof_outcome: { word, status ("complete", "refused": nothing was forked, or "gave_up"), sentence }.
-- %READ% is how far it came, %ERROR% what the outcome's `error` says, %ANONYMOUS% the process's memory of its own.
local OUTCOMES = {
  [0] = { "complete", "complete", nil },
  { "busy", "refused", "another proof of this process is under way: ask again when it has ended" },
  { "no_profiling", "refused", "its heap is not profiled, so none of its objects is sampled: /api/targets says why" },
  {
    "unsupported", "refused",
    "its copy could not be hidden from it: that takes x86-64 and Linux 5.11 or newer (syscall user dispatch)",
  },
  {
    "sigsys_taken", "refused",
    "the program handles or blocks SIGSYS itself, which hiding its copy from it takes: there is no proof while it does",
  },
  {
    "no_memory", "refused",
    "too little memory is free, on the machine or in its control group, for what it writes while its copy lives: free "
      .. "some, or lower --proof-min-free-mb and --proof-min-free-share",
  },
  {
    "heap_too_large", "refused",
    "it has %ANONYMOUS% of anonymous memory, more than --proof-max-heap-mb: raise that where the machine can bear the "
      .. "scan",
  },
  { "vfork", "refused", "one of its threads was in the midst of a vfork: ask again" },
  { "no_proc", "refused", "it cannot read /proc, which tells where its memory is: mount it where the program runs" },
  {
    "fork_failed", "refused",
    "it could not be forked (%ERROR%): raise the limit that it has reached, of processes or of memory",
  },
  { "leaving", "refused", "the program was about to exit, or its profiling to be switched off: ask earlier" },
  {
    "time", "gave_up",
    "a scan took longer than --proof-max-secs, and had read %READ%: raise that, or ask when the machine is less busy",
  },
  {
    "short_of_memory", "gave_up",
    "memory ran short meanwhile, on the machine or in its control group, when %READ% were read: ask again when more "
      .. "is free",
  },
  {
    "tables", "gave_up",
    "the scan's own tables would have become larger than --proof-max-table-mb, when %READ% were read: raise that",
  },
  {
    "killed", "gave_up",
    "its copy ended before it was done (%ERROR%): ask again, and see the system's log where that goes on",
  },
  {
    "not_understood", "gave_up",
    "this jemalloc keeps its books in a form that lupe does not know: Debian's libjemalloc2 is of one that it does",
  },
  {
    "too_much_read", "gave_up",
    "it would have read more than four times --proof-max-heap-mb: the program shares much memory, or has lost much",
  },
}

--- Bits of `hidden`, each with its short name: where pointers may be that no reading finds.
local HIDDEN = {
  { 1, "io_uring", "io_uring keeps pointers of requests under way in the kernel" },
  { 2, "aio", "asynchronous I/O (io_submit) keeps pointers of requests under way in the kernel" },
  { 4, "timers", "POSIX timers keep pointers in the kernel, and /proc does not show them here" },
  { 8, "epoll", "epoll keeps pointers in the kernel, and /proc does not show them here" },
  { 16, "luajit", "LuaJIT keeps light userdata in parts, so that no word of memory is the pointer" },
  { 32, "runtime", "a runtime that encodes pointers is loaded (V8, a JVM or CoreCLR)" },
  { 64, "not_forked", "the program has memory that a fork leaves out (MADV_DONTFORK)" },
  { 128, "wiped", "the program has memory that a fork empties (MADV_WIPEONFORK)" },
  { 256, "device", "the program maps memory of a device, which is not read" },
  { 512, "userfault", "the program has memory that another process fills on demand (userfaultfd)" },
  { 1024, "unreadable", "some of the program's memory could not be read" },
}

local NUMBER_OF = {}
for number, entry in pairs(OUTCOMES) do NUMBER_OF[entry[1]] = number end

local function error_words(word, number)
  if word == "fork_failed" then return error_text(number) end
  if number < 0 then return ("exit status %d"):format(-number) end
  return ("signal %d"):format(number)
end

--- How a proof ended.
-- @param outcome its number
-- @param[opt] error what belongs to it
-- @param[opt] read_bytes how far it came
-- @param[opt] anonymous_bytes of the process
-- @return a word; "complete", "refused" or "gave_up"; why it is not complete and what can be done (else nil)
function proof_words.outcome(outcome, error, read_bytes, anonymous_bytes)
  local entry = OUTCOMES[outcome]
  if not entry then
    local why = ("it ended in a way that this lupe does not know (%d): its agent is newer"):format(outcome)
    return "unknown", "gave_up", why
  end
  local word, status, sentence = entry[1], entry[2], entry[3]
  sentence = sentence and sentence:gsub("%%(%u+)%%", {
    READ = format.bytes(read_bytes or 0), ERROR = error_words(word, error or 0),
    ANONYMOUS = format.bytes(anonymous_bytes or 0),
  })
  return word, status, sentence
end

--- The number of an outcome's word; nil where there is none.
function proof_words.outcome_number(word) return NUMBER_OF[word] end

--- Sentences for the bits of `hidden`.
function proof_words.hidden(bits)
  local list, known = {}, 0
  for _, entry in ipairs(HIDDEN) do
    known = bit.bor(known, entry[1])
    if bit.band(bits, entry[1]) ~= 0 then list[#list + 1] = entry[3] end
  end
  if bit.band(bits, bit.bnot(known)) ~= 0 then list[#list + 1] = "pointers may be where this lupe does not look" end
  return list
end

--- The bit with a short name, such as "luajit"; nil where there is none.
function proof_words.hidden_bit(name)
  for _, entry in ipairs(HIDDEN) do
    if entry[2] == name then return entry[1] end
  end
end

local function objects(count) return format.plural(count, "sampled object") end

--- Why what nothing leads to in a process may yet be in use: fewer structures than pointers that may be missed.
function proof_words.registers(groups, registers)
  return ("it is %s, and as many as %s of its threads are in no memory that can be read"):format(
    format.plural(groups, "structure"), format.plural(registers, "register"))
end

--- What can still be reached, and how.
-- @param counts { reachable, interior, stack_only, holder (nil: not known) }
-- @treturn {string,...} at least one
function proof_words.reachable(counts)
  local all = counts.reachable + counts.interior + counts.stack_only
  local list = { ("%s can still be reached"):format(objects(all)) }
  if counts.interior > 0 then
    list[2] = ("%s only by pointers into the middle"):format(format.count(counts.interior))
  end
  if counts.stack_only > 0 then
    list[#list + 1] = ("%s only from threads' stacks"):format(format.count(counts.stack_only))
  end
  if not counts.holder and counts.stack_only < all then
    list[#list + 1] = "what holds them is not sampled, or a global"
  end
  return list
end

--- What the two scans do not agree on.
function proof_words.unsettled(count)
  return ("%s came or moved between the two scans, so nothing is known of %s"):format(objects(count),
    count == 1 and "it" or "them")
end

proof_words.NEVER_RUN = "no leak proof was run"
proof_words.NOT_SAMPLED = "none of its objects was sampled when the proof was run"

return proof_words
