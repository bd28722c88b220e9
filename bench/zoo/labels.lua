--- What is known of every program of the zoo.
-- An entry: `program` (a file here), `scenario`, `language` (C, C++), `label`, `functions` (names of which one is
-- to be accused, empty where nothing is), `about` (the shape, in words), and the four below. Labels:
--
-- * `leak` -- the functions' memory is lost: nothing points to it any more
-- * `growing` -- it grows without end, and is reachable all the while
-- * `clean` -- whatever it looks like for a while, it is bounded
--
-- `proof` is what a leak proof must answer of these functions, or, where there are none, of `holds`, the functions
-- whose memory is held where few look:
--
-- * `proven` -- it shows that they lose memory
-- * `unreferenced` -- it finds nothing that points there, and must not call that proven
-- * `none` -- it finds what points there
--
-- `settles` is true where these functions hold some of their memory too: then the program rests twice with `--rest on`,
-- before and after it frees that. `trend` is false where the memory's
-- history is not to be judged: families of hidden pointers all have the same one, and a dozen copies of that would
-- only dilute the figures.

local labels = {}
local ANSWERS = { leak = "proven", growing = "none", clean = "none" }

local function words(text)
  local list = {}
  for name in (text or ""):gmatch("%S+") do list[#list + 1] = name end
  return list
end

local function family(program, language, label, list)
  for _, entry in ipairs(list) do
    labels[#labels + 1] = {
      program = program, scenario = entry[1], language = language, label = label, functions = words(entry[2]),
      about = entry[3], proof = entry.proof or ANSWERS[label], holds = words(entry.holds),
      settles = entry.settles or false, trend = not entry.holds,
    }
  end
end

family("lost", "C", "leak", {
  { "linear", "read_record", "at one pace, 20 to 300 KiB/s" },
  { "slow", "remember_user_agent", "at one pace, 45 to 90 MiB/h" },
  { "bursty", "import_row", "hundreds of KiB at once, every 2 to 8 s" },
  { "realloc", "grow_message", "buffers grown by realloc, lost when they are whole", settles = true },
  { "large", "render_tile", "blocks of more than 1 MiB, one in two lost" },
  { "tiny", "note_key", "blocks of 16 to 48 bytes" },
  { "late", "renew_token", "nothing for 12 to 25 s, then all that is replaced", settles = true },
  { "warmed", "fetch_row", "a table that fills, then what is replaced in it, at the same site", settles = true },
  { "pausing", "accept_upload", "traffic of 4 to 9 s, pauses of 3 to 7 s" },
  { "sawtooth", "stage_row", "a sawtooth of which 12 to 30 % are overlooked", settles = true },
})
family("lost_paths", "C", "leak", {
  { "error", "decode_frame", "where a check fails, 6 to 14 % of all; the others are freed", settles = true },
  { "nth", "make_reply", "one in 20 to 50 of the blocks of a busy site", settles = true },
  { "known_wrapper", "parse_header", "behind xmalloc, that sound code calls too", settles = true },
  -- The helper is none that lupe knows: to name it is right, to name who called it is better.
  {
    "private_wrapper", "allocate_or_die build_query", "behind a helper of the program, that sound code calls too",
    settles = true,
  },
  { "callback", "collect_match", "in a function that libc calls back" },
  { "session_table", "create_session", "chains that fall out of a hash table with their first node", settles = true },
  { "fork_worker", "serve_job", "in one of two forked workers" },
})
family("lost_threads", "C", "leak", {
  { "one_of_many", "copy_message", "in one of 4 to 10 threads that do the same" },
  { "leftover", "thread_scratch", "what ended threads had for themselves" },
  { "full_queue", "make_event", "what finds a queue full", settles = true },
})
family("lost_cxx", "C++", "leak", {
  { "unique_ptr", "draw_widget", "release() of a unique_ptr" },
  { "cycle", "make_room", "shared_ptr in a circle" },
  { "container", "build_index", "a map of strings that is forgotten" },
  { "string", "render_name", "strings whose destructor is never called" },
  { "exception", "open_channel", "plain new, and an exception goes past its delete" },
})
family("lost_structures", "C", "leak", {
  -- One structure, ever longer: a register could hold where it begins.
  { "chain", "append_to_chain", "a list that grows at its end; its beginning nobody knows", proof = "unreferenced" },
  { "ring", "add_to_playlist", "lists linked both ways and round, each forgotten for the next", settles = true },
  { "tree", "parse_branch", "trees whose root is forgotten", settles = true },
  { "table", "copy_name new_entry new_buckets", "hash tables of strings that are dropped whole", settles = true },
  { "pieces", "add_work", "what stands behind a cut in a list", settles = true },
})
family("growing", "C", "growing", {
  { "cache", "cache_answer", "a cache without a limit" },
  { "audit", "append_audit_entry", "a list that is never emptied" },
  { "transcript", "extend_transcript", "one array made longer by realloc" },
  { "lagging_queue", "post_job", "a queue whose consumer is too slow" },
})
family("growing_cxx", "C++", "growing", {
  { "visits", "count_visit", "an unordered_map with a new key per visitor" },
  { "observers", "subscribe", "a vector of shared_ptr that nobody unsubscribes from" },
})
family("caches", "C", "clean", {
  { "lru_fast", "", "a cache full after 8 to 15 s" },
  { "lru_middle", "", "a cache full after 20 to 30 s" },
  { "lru_slow", "", "a cache full after 38 to 45 s" },
  { "zipf", "", "a cache of 2,000 keys, some asked for much more often" },
  { "lazy_tables", "", "a table per tenant, made at first use" },
  { "free_list", "", "freed objects kept for the next, up to a limit" },
  { "rehash", "", "a hash table that fills in 10 to 30 s and doubles on the way" },
})
family("batches", "C", "clean", {
  { "sawtooth_short", "", "all freed every 3 to 8 s" },
  { "sawtooth_long", "", "all freed every 20 to 27 s" },
  { "nightly", "", "grows for 18 to 25 s, is held, freed, and comes again" },
  { "dataset", "", "loaded at one pace for 26 to 36 s, then read" },
  { "warm_up", "", "modules loaded for 6 to 18 s, ever fewer" },
  { "snapshots", "", "built anew every 4 to 9 s, the one before the last freed" },
  { "generations", "", "young objects collected every second, old ones every 9 to 16 s" },
  { "trim", "", "cut to a quarter at a threshold, every 7 to 16 s" },
  { "compaction", "", "segments merged into one every 5 to 13 s" },
})
family("buffers", "C", "clean", {
  { "pool", "", "grows when more is wanted at once than ever before" },
  { "arena", "", "chunks freed every 2 to 7 s" },
  { "log_buffers", "", "lines freed when their channel's buffer is written out" },
  { "string_builder", "", "doubled by realloc, replaced when the next is done" },
  { "vector_wave", "", "one array longer and shorter by realloc, over 6 to 18 s" },
  { "fragmentation", "", "blocks of all sizes replacing each other in waves" },
  { "mapped_arena", "", "chunks of mmap, with a directory in malloc" },
  { "churn", "", "connections, of which a few stay very long" },
})
family("workers", "C", "clean", {
  { "thread_pool", "", "grows to 8 to 20 threads within 22 s, each with a work area" },
  { "lagged_free", "", "freed by another thread seconds later" },
  { "thread_churn", "", "threads that come and go with buffers of their own" },
  { "prefork", "", "three processes, one replaced now and then" },
})
family("containers", "C++", "clean", {
  { "deque", "", "a queue in balance, of wandering length" },
  { "ttl", "", "a map whose entries live for 8 to 25 s" },
  { "interning", "", "a set of words, of which there are so many" },
  { "scenes", "", "a graph of shared_ptr built anew every 2 to 9 s" },
})
family("hidden_kernel", "C", "clean", {
  { "epoll", "", "the kernel has the pointers, as epoll's data", holds = "register_connection" },
  { "io_uring", "", "the same as user data of requests", holds = "submit_request", proof = "unreferenced" },
  { "aio", "", "the same of io_submit", holds = "submit_control_block", proof = "unreferenced" },
  { "posix_timers", "", "the same of timers", holds = "arm_timeout" },
})
family("hidden_maps", "C", "clean", {
  { "not_forked", "", "in a mapping that a fork leaves out", holds = "pin_buffer", proof = "unreferenced" },
  { "wiped", "", "in a mapping that a fork empties", holds = "derive_key", proof = "unreferenced" },
  { "own_mapping", "", "in anonymous memory of the program's own", holds = "add_to_index" },
  { "shared_memory", "", "in shared memory", holds = "publish_record" },
  { "private_file", "", "in private copies of a file's pages", holds = "patch_page" },
})
family("hidden_words", "C", "clean", {
  { "low_bits", "", "tagged in the three lowest bits", holds = "box_value" },
  { "high_bits", "", "tagged in the upper 16 bits", holds = "push_node" },
  { "interior", "", "into the middle only", holds = "embed_node" },
  { "packed", "", "at multiples of four", holds = "decode_entry" },
  { "static_tls", "", "in a second thread's variables", holds = "thread_buffer" },
  { "dynamic_tls", "", "behind a second thread's keys", holds = "thread_context" },
  { "in_register", "", "a list whose head is in a register only", holds = "append_step", proof = "unreferenced" },
})
family("hidden_luajit", "C", "clean", {
  { "light_userdata", "", "as light userdata of LuaJIT", holds = "bind_object", proof = "unreferenced" },
})

return labels
