--- What a script may take: rules and users' routes, in the worker process and as the loop waits for it.
-- @module lupe.budgets

return {
  call_ms = 500, -- of the worker's CPU time (core/script/guard.h): one check, one request, one file that is loaded
  memory_bytes = 64 * 2 ^ 20, -- likewise
  -- These end a loop at the same place on a busy machine and on an idle one. 50 million are a tenth of a second or so
  -- of the interpreter, and a thousand for each of 50,000 sites.
  instructions = 50e6,
  load_instructions = 200000, -- a file's own code: it only has to make a table
  system_ms = 2000, -- what the worker does itself, such as mapping a snapshot
}
