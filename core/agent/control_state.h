/* control_state.h -- what control.c, which is asked from outside, and the agent's thread share. */
#ifndef LUPE_AGENT_CONTROL_STATE_H
#define LUPE_AGENT_CONTROL_STATE_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

#include "core/agent/heap.h"

enum { LUPE__WAKE_SIGNAL = SIGURG /* ignored by default: harmless wherever it might end up */ };

typedef enum lupe__phase {
  PHASE_NONE,      /* there is no thread */
  PHASE_STARTING,  /* not connected yet */
  PHASE_CONNECTED, /* connected, HELLO not said */
  PHASE_ONLINE,    /* HELLO said, the heap's sampling on */
  PHASE_WELCOMED,  /* all sampling is as the runtime wants it */
  PHASE_FINISHED,  /* the thread touches nothing any more */
} lupe__phase;

/* What the agent's thread is asked to do. */
typedef enum lupe__wish { STAY, LEAVE_POLITELY, LEAVE_SILENTLY } lupe__wish;

/* Written by the thread that starts the agent's, before it does; `current`, `leave` and `segment` by both. */
typedef struct lupe__control_state {
  char path[sizeof((struct sockaddr_un *)0)->sun_path];
  lupe_heap_info heap; /* and by the agent's after a daemon was away */
  bool leave_allocator;
  bool forked;
  _Atomic pid_t pid; /* whose thread it is: differs in vforked and unhandled forked children */
  pthread_t thread;
  atomic_bool joinable;   /* `thread` is, and nobody is about to */
  atomic_bool outlived;   /* a thread that outlives it has been started */
  atomic_bool deserted;   /* by all threads but lupe's, of which some would stay */
  atomic_bool stopping;   /* by lupe_control_stop */
  atomic_bool comes_back; /* the runtime has said so: it is a daemon. Of a forked child's parent, too */
  atomic_bool away;       /* a daemon is: the thread looks for it */
  atomic_bool given_up;   /* a runtime inside of the program has failed: no child looks for it */
  _Atomic(lupe_segment *) segment; /* of this process; may be there still when the thread has finished */
  _Atomic(lupe_segment *) parents_segment; /* in a forked child: still mapped, to be unmapped */
  _Atomic uint32_t current;                /* phase; a futex */
  _Atomic uint32_t leave;                  /* wish; a futex */
  atomic_bool exiting;                     /* LEAVE_POLITELY, since the program exits */
  _Atomic int64_t
      proves_until;         /* lupe_session_now_ms(): at exit, a proof is under way at the longest; 0: none */
  _Atomic uint32_t outcome; /* lupe_status: why the thread has finished */
  uint64_t memory_functions[LUPE_MEMORY_FUNCTIONS];
  atomic_bool left; /* by lupe_control_leave: once and for all */
} lupe__control_state;
extern lupe__control_state lupe__control;

/* The next phase; whoever waits for it is woken. Thread: any. */
void lupe__control_enter(lupe__phase next);

/* Unless a thread is in the midst of writing to it. */
bool lupe__control_unmap(_Atomic(lupe_segment *) *segment);

/* What the agent's thread does, from its first to its last; all signals are blocked. */
void *lupe__control_thread(void *unused);

/* /proc/PID/stat of the leading thread: its state, the process's thread count and start. Zeros where /proc is
 * not to be read. */
typedef struct lupe__leader {
  char state;
  long threads;
  unsigned long long start_ticks;
} lupe__leader;
lupe__leader lupe__control_leader(void);

#endif
