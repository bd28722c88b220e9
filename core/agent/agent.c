#include "core/agent/agent.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/agent/agent_internal.h"
#include "core/agent/control.h"
#include "core/agent/cpu.h"
#include "core/agent/heap_pages.h"
#include "core/agent/marks.h"
#include "core/agent/own_memory.h"
#include "core/agent/own_threads.h"
#include "core/agent/quiet_fork.h"
#include "core/agent/wiped.h"

enum { TURN_WAIT_MS = 3000 }; /* longer than a start and a stop take */

/* ---- whose turn it is ----
 * Threads start and stop one after the other. Who exits does not wait for a turn: a signal handler may exit
 * amid one. A turn that the thread of a forked child's parent had does not count there. */

typedef struct turn {
  bool mine;
  int cancel; /* the thread's own cancelability */
} turn;

static _Atomic uint64_t holder; /* process << 32 | thread; 0: nobody */

static turn take_turn(void) {
  turn t = {.mine = false};
  uint64_t pid = (uint64_t)getpid(), me = pid << 32 | (uint32_t)gettid();
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &t.cancel);
  for (int waited_ms = 0; waited_ms < TURN_WAIT_MS; waited_ms++) {
    uint64_t seen = atomic_load(&holder);
    if (seen == me) break; /* a signal handler, amid it */
    if (seen >> 32 != pid && atomic_compare_exchange_strong(&holder, &seen, me)) {
      t.mine = true;
      break;
    }
    poll(NULL, 0, 1);
  }
  if (!t.mine) pthread_setcancelstate(t.cancel, NULL);
  return t;
}

static void end_turn(const turn *t) {
  atomic_store(&holder, 0);
  pthread_setcancelstate(t->cancel, NULL);
}

/* ---- once in a process's life ---- */

static void before_fork(void) {
  lupe_heap_pages_before_fork();
  lupe_cpu_before_fork();
}

static void after_fork(void) {
  lupe_cpu_after_fork();
  lupe_heap_pages_after_fork();
}

static void after_fork_in_child(void) {
  lupe_cpu_after_fork();
  lupe_heap_after_fork_in_child();
  lupe_heap_pages_after_fork_in_child();
  if (lupe_control_has_left()) return; /* behind a filter: no system call */
  lupe_quiet_fork_after_fork_in_child();
  lupe_marks_after_fork_in_child();
  lupe_wiped_after_fork();
  lupe_control_after_fork();
}

/* Children of vfork share their parent's memory, which goes on with its own. */
static bool is_borrowed(void) {
  pid_t its = lupe_wiped_page ? atomic_load(&lupe_wiped_page->pid) : 0;
  return its != 0 && its != getpid();
}

static lupe_status prepare(void) {
  static bool prepared;
  if (prepared) {
    if (atomic_load(&lupe_wiped_page->pid) == 0) lupe_wiped_after_fork(); /* no fork handler ran */
    return LUPE_OK;
  }
  /* A first allocation makes jemalloc register its fork handlers. Ours must come later: in the child
   * they run in this order, and ours needs an allocator that works again. Before a fork they run the other
   * way round, so what ours waits for does not wait for the allocator. */
  void *volatile block = malloc(1);
  free(block);
  lupe_status status = lupe_wiped_page ? LUPE_OK : lupe_wiped_create();
  if (status == LUPE_OK) status = lupe_control_prepare();
  if (status != LUPE_OK) return status;
  prepared = pthread_atfork(before_fork, after_fork, after_fork_in_child) == 0;
  return prepared ? LUPE_OK : LUPE_ENOMEM;
}

/* ---- start and stop ---- */

static lupe_status start(const char *socket_path, bool leave_allocator, bool until_welcome) {
  lupe_status status = prepare();
  if (status != LUPE_OK) return status;
  if (!lupe_control_may_start()) return LUPE_EINUSE;
  return lupe_control_start(socket_path, leave_allocator, until_welcome);
}

lupe_status lupe__agent_begin(const char *socket_path, bool leave_allocator) {
  return start(socket_path, leave_allocator, false);
}

lupe_status lupe_agent_start(const char *socket_path, bool leave_allocator) {
  if (!socket_path) return LUPE_EINVAL;
  if (is_borrowed()) return LUPE_EUNSUPPORTED;
  turn t = take_turn();
  if (!t.mine) return LUPE_EINUSE;
  lupe_status status = start(socket_path, leave_allocator, true);
  if (status != LUPE_OK && status != LUPE_EINUSE) lupe_control_stop();
  end_turn(&t);
  return status;
}

lupe_status lupe_agent_stop(void) {
  if (!lupe_wiped_page || is_borrowed()) return LUPE_OK;
  turn t = take_turn();
  if (!t.mine) return LUPE_EAGAIN;
  lupe_status status = lupe_control_stop();
  end_turn(&t);
  return status;
}

void lupe_agent_exit(void) {
  lupe_control_finish();
}

bool lupe_agent_online(void) {
  return lupe_control_online();
}

const lupe_heap_info *lupe_agent_heap(void) {
  return lupe_heap_found();
}

__attribute__((destructor)) static void leave(void) {
  lupe_control_finish();
}

/* ---- threads of an embedded runtime ---- */

lupe_status lupe_agent_adopt_thread(void) {
  if (is_borrowed()) return LUPE_EUNSUPPORTED;
  turn t = take_turn();
  if (!t.mine) return LUPE_EAGAIN;
  lupe_status status = prepare();
  if (status == LUPE_OK) status = lupe_own_threads_adopt(gettid());
  if (status == LUPE_OK) lupe_own_memory_enter();
  end_turn(&t);
  return status;
}

void lupe_agent_release_thread(void) {
  if (!lupe_wiped_page) return;
  lupe_own_memory_leave();
  lupe_own_memory_purge();
  lupe_own_threads_release(gettid());
}

void lupe_agent_expect_thread(int change) {
  if (lupe_wiped_page) lupe_own_threads_expect(change);
}
