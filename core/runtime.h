/* runtime.h -- one running lupe: collector, worker, Lua and HTTP on one loop.
 * Owner and thread: the loop. The vm is the caller's, with `config` already known to it (the registry's
 * "lupe.config"). */
#ifndef LUPE_RUNTIME_H
#define LUPE_RUNTIME_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "core/lupe.h"
#include "core/paths.h"
#include "core/pool.h"
#include "core/script/vm.h"
#include "core/store/session.h"

#define LUPE_CONFIG_KEY "lupe.config" /* in the Lua registry: the effective configuration */

typedef struct lupe_runtime lupe_runtime;

typedef struct lupe_runtime_options {
  uv_loop_t *loop;
  lupe_vm *vm;
  const lupe_paths *paths;
  const char *host; /* numeric address to listen on */
  uint16_t port;
  bool port_given; /* false: a taken port means the next free one, up to 100 further */
  uint32_t heap_interval_ms, memory_interval_ms;
  uint32_t cpu_hz, wall_hz; /* samples per second; 0: none */
  const char *socket;       /* of the agents, an absolute path; NULL: one that only the program is told */
  bool serves; /* programs of all kinds come and go, and each is judged by itself: `lupe serve` */
  lupe_peers
      peers; /* whose programs, beside its own user's; needs `socket`. Then the socket is everybody's */
  /* It runs in a process of somebody else's: it tells its own threads' cost, not the process's. */
  bool embedded;
  const lupe_pool_hooks *pool_hooks; /* of the threads that it starts; NULL: none. Copied */
} lupe_runtime_options;

/* How the program ended, for the report. */
typedef struct lupe_ending {
  const char *unknown; /* why it is not known how, or whether, it ended; NULL: it is, and here is how */
  int exit_code;       /* -1 where a signal ended it */
  int signal;          /* 0: none */
  bool timed_out;      /* ended by lupe, after the duration it was given */
  pid_t pid;
  char *const *argv;  /* of the program, NULL-terminated; NULL: not known */
  const char *reason; /* why it could not be profiled, NULL: none that was known before it ran */
  bool color;         /* the report goes to a terminal */
  unsigned columns;   /* its width */
} lupe_ending;

/* `text` (NULL where there is none to give) is valid during the call. */
typedef void (*lupe_report_cb)(void *arg, const char *text, size_t bytes);
typedef void (*lupe_runtime_close_cb)(void *arg);

/* Errors are explained in `error`. LUPE_EINUSE: the address or the socket is taken; LUPE_EINVAL: a setting;
 * LUPE_ESCRIPT; LUPE_EIO; LUPE_ENOMEM. */
lupe_status lupe_runtime_create(lupe_runtime **out, const lupe_runtime_options *options, char *error,
                                size_t error_bytes);
const char *lupe_runtime_socket(const lupe_runtime *r); /* for LUPE_SOCKET of the program */
uint16_t lupe_runtime_port(const lupe_runtime *r);
/* Pushes the table that lua/lupe/server.lua made. For C inside a protected call. */
void lupe_runtime_push(const lupe_runtime *r, lua_State *L);
/* Whether an agent ever spoke for this process. */
bool lupe_runtime_saw(const lupe_runtime *r, pid_t pid);

/* The last profiles are taken in, the rules run, and the report is written by Lua. Once. Source lines that
 * are not known yet are looked for, `lines_ms` at most: what is left then is told without. */
void lupe_runtime_report(lupe_runtime *r, const lupe_ending *ending, uint32_t lines_ms, lupe_report_cb done,
                         void *arg);
/* Stops everything and frees `r`; then calls `done`: no thread, process or descriptor of its own is left, and
 * after one more turn of the loop no handle. What runs on a thread of the pool ends first (reading a dump,
 * writing a snapshot: nothing interrupts them); what waits there does not begin. */
void lupe_runtime_close(lupe_runtime *r, lupe_runtime_close_cb done, void *arg);

#endif
