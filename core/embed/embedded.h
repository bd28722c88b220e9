/* embedded.h -- what liblupe.so asks of the runtime that it has started, in a thread or in a helper process,
 * and how. liblupe.so knows nothing else of the runtime; the runtime knows nothing of the host.
 *
 * Two sockets (SOCK_STREAM pairs) join them, with frames of wire/frame.h: on `calls` a request, then its
 * reply, one at a time; on `events` the runtime alone speaks. Each end's closing ends the runtime: a host
 * that died, or gave up, leaves none behind.
 *
 * A request: a uint32_t of lupe_embedded_op, then texts, each with its NUL. A reply: a uint32_t of
 * lupe_status, then the result's texts, or one that explains. An event: a uint32_t of lupe_event_kind, then
 * rule, severity, text and json of lupe_event. */
#ifndef LUPE_EMBED_EMBEDDED_H
#define LUPE_EMBED_EMBEDDED_H

#include <stdint.h>

#include "core/lupe.h"

typedef enum lupe_embedded_op {
  /* Any number of "NAME=VALUE"; first and once. Reply: the agents' socket ("": no agent is wanted), the URL,
   * and "system" where the agent is to leave the allocator alone, else "jemalloc". */
  LUPE_EMBEDDED_START = 1,
  /* The mode, the program's process, its allocator, and why its heap is not profiled ("": it is). Reply: JSON
   * of what runs and what is not available. */
  LUPE_EMBEDDED_ABOUT,
  LUPE_EMBEDDED_REPORT,     /* the program's process; reply: JSON */
  LUPE_EMBEDDED_SNAPSHOT,   /* an absolute path */
  LUPE_EMBEDDED_EVALUATE,   /* a rule's id; reply: JSON */
  LUPE_EMBEDDED_GET,        /* a path; reply: HTTP status, body */
  LUPE_EMBEDDED_ADD_RULE,   /* name, text */
  LUPE_EMBEDDED_ADD_ROUTE,  /* name, text */
  LUPE_EMBEDDED_ADD_MODULE, /* name, text */
  LUPE_EMBEDDED_EVENTS,     /* "1": from now on events are told; "0": they are not */
  LUPE_EMBEDDED_STOP,       /* reply: when nothing is left but the link itself. Then the runtime returns */
} lupe_embedded_op;

/* What a runtime inside the host's process is given. */
typedef struct lupe_embedded {
  int calls, events; /* the runtime's ends; it closes them */
  /* Called on each thread that the runtime starts, as its first and last act; the thread that calls
   * lupe_embedded_main is the caller's to adopt. NULL: nothing to do. */
  void (*thread_begins)(void);
  void (*thread_ends)(void);
} lupe_embedded;

/* The runtime, from START to STOP or until an end is closed. Returns when it has left nothing behind: no
 * thread, descriptor, process or memory. Of liblupe-runtime.so, and of `lupe embedded CALLS EVENTS`
 * (descriptors). Thread: one of its own, signals blocked, with a descriptor table of its own or the
 * process's. */
typedef void lupe_embedded_main_fn(const lupe_embedded *e);
__attribute__((visibility("default"))) lupe_embedded_main_fn lupe_embedded_main;

#endif
