/* worker_main.h -- the worker process's side: limits itself, then serves requests until its socket closes.
 * Runs lua/lupe/worker.lua, which says what the requests are. */
#ifndef LUPE_SCRIPT_WORKER_MAIN_H
#define LUPE_SCRIPT_WORKER_MAIN_H

/* `lua_dir`: where lua/lupe is. Expects the socket at LUPE_WORKER_FD; closes every other descriptor but 0..2.
 * Returns the exit code: 0 when the runtime went away, else 1 with a line on stderr. */
int lupe_worker_main(const char *lua_dir);
#endif
