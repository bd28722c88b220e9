--- What is known of every program of the zoo.
-- An entry: `program` (a file here), `scenario`, `language` (C, C++), `label`, `functions` (names of which one is
-- to be accused, empty where nothing is), `about` (the shape, in words). Labels:
--
-- * `leak` -- the functions' memory is lost: nothing points to it any more
-- * `growing` -- it grows without end, and is reachable all the while
-- * `clean` -- whatever it looks like for a while, it is bounded

local labels = {}

local function family(program, language, label, list)
  for _, entry in ipairs(list) do
    local functions = {}
    for name in entry[2]:gmatch("%S+") do functions[#functions + 1] = name end
    labels[#labels + 1] = {
      program = program, scenario = entry[1], language = language, label = label, functions = functions,
      about = entry[3],
    }
  end
end

family("lost", "C", "leak", {
  { "linear", "read_record", "at one pace, 20 to 300 KiB/s" },
  { "slow", "remember_user_agent", "at one pace, 45 to 90 MiB/h" },
  { "bursty", "import_row", "hundreds of KiB at once, every 2 to 8 s" },
  { "realloc", "grow_message", "buffers grown by realloc, lost when they are whole" },
  { "large", "render_tile", "blocks of more than 1 MiB, one in two lost" },
  { "tiny", "note_key", "blocks of 16 to 48 bytes" },
  { "late", "renew_token", "nothing for 12 to 25 s, then all that is replaced" },
  { "warmed", "fetch_row", "a table that fills, then what is replaced in it, at the same site" },
  { "pausing", "accept_upload", "traffic of 4 to 9 s, pauses of 3 to 7 s" },
  { "sawtooth", "stage_row", "a sawtooth of which 12 to 30 % are overlooked" },
})
family("lost_paths", "C", "leak", {
  { "error", "decode_frame", "where a check fails, 6 to 14 % of all; the others are freed" },
  { "nth", "make_reply", "one in 20 to 50 of the blocks of a busy site" },
  { "known_wrapper", "parse_header", "behind xmalloc, that sound code calls too" },
  -- The helper is none that lupe knows: to name it is right, to name who called it is better.
  { "private_wrapper", "allocate_or_die build_query", "behind a helper of the program, that sound code calls too" },
  { "callback", "collect_match", "in a function that libc calls back" },
  { "session_table", "create_session", "chains that fall out of a hash table with their first node" },
  { "fork_worker", "serve_job", "in one of two forked workers" },
})
family("lost_threads", "C", "leak", {
  { "one_of_many", "copy_message", "in one of 4 to 10 threads that do the same" },
  { "leftover", "thread_scratch", "what ended threads had for themselves" },
  { "full_queue", "make_event", "what finds a queue full" },
})
family("lost_cxx", "C++", "leak", {
  { "unique_ptr", "draw_widget", "release() of a unique_ptr" },
  { "cycle", "make_room", "shared_ptr in a circle" },
  { "container", "build_index", "a map of strings that is forgotten" },
  { "string", "render_name", "strings whose destructor is never called" },
  { "exception", "open_channel", "plain new, and an exception goes past its delete" },
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

return labels
