/* host.h -- what Lua on the loop may ask of C: the table `lupe_host`.
 * Questions answer at once, from memory or /proc; tasks take a callback as their last argument and call it
 * later on the loop, with an error (nil or a text) first. docs/host.md lists every function.
 * Thread: the loop. */
#ifndef LUPE_SCRIPT_HOST_H
#define LUPE_SCRIPT_HOST_H

#include <lua.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "core/lupe.h"
#include "core/pool.h"
#include "core/script/vm.h"
#include "core/script/worker.h"
#include "core/store/aggregator.h"
#include "core/store/collector.h"

typedef struct lupe_http_figures {
  uint64_t requests, responses, aborted, pending;
} lupe_http_figures;

typedef struct lupe_host_services {
  lupe_vm *vm;
  uv_loop_t *loop;
  lupe_pool *pool;
  lupe_aggregator *aggregator; /* this and the collector are NULL where no program runs: then the host has */
  lupe_collector *collector;   /* only what needs neither */
  lupe_worker *worker;         /* the rules' */
  lupe_worker *routes_worker;  /* that of the users' routes; NULL where no program runs */
  void (*http_figures)(void *arg, lupe_http_figures *out);
  void *http_arg;
  double started_ms;
  bool embedded; /* see lupe_runtime_options */
} lupe_host_services;

typedef struct lupe_host lupe_host;

/* Makes the global table `lupe_host` in the vm. `services` is copied; what it points to outlives the host.
 * LUPE_ENOMEM, or LUPE_ESCRIPT with `error` written. */
lupe_status lupe_host_create(lupe_host **out, const lupe_host_services *services, char *error,
                             size_t error_bytes);
/* From here on no callback comes. NULL is a no-op. May be called while Lua runs. */
void lupe_host_close(lupe_host *h);
/* Not while Lua runs. Tasks under way end by themselves as the loop runs on. NULL is a no-op. */
void lupe_host_free(lupe_host *h);

/* Pushes address (light userdata), size and a userdata that holds a reference; takes `s` over. For C inside
 * a protected call. */
void lupe_host_push_snapshot(lua_State *L, lupe_snapshot *s);

#endif
