/* link_thread.c -- "lupe-link": it has the sockets, starts the runtime and ends it, and puts calls to it; and
 * "lupe-reader", which takes what the runtime tells by itself. */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/agent/agent.h"
#include "core/embed/embedded.h"
#include "core/embed/events.h"
#include "core/embed/helper.h"
#include "core/embed/link_state.h"
#include "core/embed/patience.h"
#include "core/embed/runtime_thread.h"
#include "core/wire/frame.h"

enum {
  STACK_BYTES = 256 << 10,
  LOOK_MS = 10, /* between two looks whether the link is to be closed, while an answer is waited for */
};

/* Of the descriptor table that only the two threads have. */
static struct {
  pthread_t reader;
  int calls, events;
} own;

/* ---- calls ---- */

static bool is_closing(void) {
  pthread_mutex_lock(&lupe__link.lock);
  bool closing = lupe__link.closing;
  pthread_mutex_unlock(&lupe__link.lock);
  return closing;
}

/* With the lock, which it lets go of meanwhile. */
static void wait_until_wanted(void) {
  uint32_t seen = atomic_load(&lupe__link.wanted);
  pthread_mutex_unlock(&lupe__link.lock);
  syscall(SYS_futex, &lupe__link.wanted, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
  pthread_mutex_lock(&lupe__link.lock);
}

static void finish(lupe__call *c, lupe_status status) {
  pthread_mutex_lock(&lupe__link.lock);
  c->status = status;
  c->done = true;
  lupe__link.call = NULL;
  if (status != LUPE_OK) lupe__link.there = false; /* what comes next could be the answer to this */
  if (!lupe__link.exiting) pthread_cond_broadcast(&lupe__link.changed);
  pthread_mutex_unlock(&lupe__link.lock);
}

/* Reads one frame. LUPE_EAGAIN: the link is to be closed, and `heed` said to look for that. */
static lupe_status read_frame(lupe__frame *frame, int64_t until_ms, bool heed) {
  for (;;) {
    lupe_status status = lupe__frame_read(frame, own.calls, false);
    if (status != LUPE_EAGAIN) return status;
    if (heed && is_closing()) return LUPE_EAGAIN;
    if (lupe__now_ms() >= until_ms) return LUPE_EIO;
    poll(&(struct pollfd){.fd = own.calls, .events = POLLIN}, 1, LOOK_MS);
  }
}

static lupe_status write_frame(const void *body, uint32_t bytes, int64_t until_ms) {
  size_t sent = 0;
  for (;;) {
    lupe_status status = lupe__frame_write(own.calls, body, bytes, -1, &sent, false);
    if (status != LUPE_EAGAIN) return status;
    if (lupe__now_ms() >= until_ms) return LUPE_EIO;
    poll(&(struct pollfd){.fd = own.calls, .events = POLLOUT}, 1, LOOK_MS);
  }
}

/* Returns false where an answer is still to come that nobody waits for any more. */
static bool exchange(lupe__call *c) {
  int64_t until = lupe__now_ms() + LUPE__CALL_MS;
  lupe_status status = write_frame(c->request, c->bytes, until);
  if (status == LUPE_OK) status = read_frame(&c->reply, until, true);
  if (status == LUPE_EAGAIN) {
    lupe__frame_clear(&c->reply);
    finish(c, LUPE_ENOENT);
    return false;
  }
  finish(c, status);
  return true;
}

/* The last exchange; `owed` answers come before its own. */
static void stop_runtime(int owed) {
  const uint32_t request = LUPE_EMBEDDED_STOP;
  if (write_frame(&request, sizeof request, lupe__link.until_ms) != LUPE_OK) return;
  for (int i = 0; i <= owed; i++) {
    lupe__frame frame = {.fd = -1};
    lupe_status status = read_frame(&frame, lupe__link.until_ms, false);
    lupe__frame_clear(&frame);
    if (status != LUPE_OK) return;
  }
}

static void serve(void) {
  bool answered = true;
  for (;;) {
    pthread_mutex_lock(&lupe__link.lock);
    while (!lupe__link.call && !lupe__link.closing) wait_until_wanted();
    lupe__call *c = lupe__link.call;
    bool closing = lupe__link.closing;
    pthread_mutex_unlock(&lupe__link.lock);
    if (c && closing) {
      finish(c, LUPE_ENOENT);
    } else if (c) {
      answered = exchange(c);
    }
    if (closing || !answered) {
      stop_runtime(answered ? 0 : 1);
      return;
    }
  }
}

/* ---- the runtime ---- */

/* The first three numbers are kept for what writes to "stderr", whatever they are in this program. */
static lupe_status fill_standard_streams(void) {
  for (int fd = 0; fd <= STDERR_FILENO; fd++) {
    if (fcntl(fd, F_GETFD) >= 0) continue;
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (nothing < 0) return LUPE_EIO;
    if (nothing != fd) close(nothing); /* cannot be: the lowest free number is taken */
  }
  return LUPE_OK;
}

static void close_link(void) {
  close(own.calls); /* whatever it is doing, the runtime ends now */
  close(own.events);
}

static bool end_runtime(void) {
  int64_t left_ms = lupe__link.until_ms - lupe__now_ms();
  if (left_ms < 0) left_ms = 0;
  return lupe__link.mode == LUPE_MODE_HELPER ? lupe__helper_end(left_ms, !lupe__link.exiting)
                                             : lupe__runtime_join(left_ms);
}

static lupe_status connect_to_runtime(char *why) {
  int calls[2], events[2];
  lupe_status status = LUPE_OK;
  if (lupe__link.mode == LUPE_MODE_IN_PROCESS) status = lupe__runtime_load(why, LUPE__WHY_BYTES);
  if (status != LUPE_OK) return status;
  if (close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_UNSHARE) != 0) {
    snprintf(why, LUPE__WHY_BYTES,
             "this kernel, or a filter of the program's, gives a thread no descriptor table of "
             "its own (close_range: %s)",
             strerror(errno));
    return LUPE_EUNSUPPORTED;
  }
  if (fill_standard_streams() != LUPE_OK || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, calls) != 0) {
    snprintf(why, LUPE__WHY_BYTES, "no descriptors for the runtime: %s", strerror(errno));
    return LUPE_EIO;
  }
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, events) != 0) {
    snprintf(why, LUPE__WHY_BYTES, "no descriptors for the runtime: %s", strerror(errno));
    close(calls[0]);
    close(calls[1]);
    return LUPE_EIO;
  }
  own.calls = calls[0];
  own.events = events[0];
  const int ours[2] = {calls[0], events[0]};
  status = lupe__link.mode == LUPE_MODE_HELPER
               ? lupe__helper_start(calls[1], events[1], why, LUPE__WHY_BYTES)
               : lupe__runtime_run(calls[1], events[1], ours, why, LUPE__WHY_BYTES);
  close(calls[1]);
  close(events[1]);
  return status;
}

/* ---- the threads ---- */

/* "lupe-reader": what the runtime tells by itself. It ends with the runtime's end of that socket. */
static void *reader_main(void *unused) {
  pthread_setname_np(pthread_self(), "lupe-reader");
  (void)lupe_agent_adopt_thread();
  lupe__frame frame = {.fd = -1};
  while (lupe__frame_read(&frame, own.events, true) == LUPE_OK) {
    lupe__events_take(&frame);
    lupe__frame_clear(&frame);
  }
  lupe__frame_clear(&frame);
  lupe_agent_release_thread();
  return unused;
}

int lupe__link_start_thread(pthread_t *thread, void *(*body)(void *)) {
  pthread_attr_t attributes;
  int failed = pthread_attr_init(&attributes);
  if (failed) return failed;
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  failed = pthread_create(thread, &attributes, body, NULL);
  if (failed == EINVAL) failed = pthread_create(thread, NULL, body, NULL); /* much thread-local storage */
  pthread_attr_destroy(&attributes);
  return failed;
}

static lupe_status open_link(char *why) {
  lupe_status status = connect_to_runtime(why);
  if (status != LUPE_OK) return status;
  if (lupe__link_start_thread(&own.reader, reader_main) == 0) return LUPE_OK;
  snprintf(why, LUPE__WHY_BYTES, "no thread for the runtime's events: out of memory, or a limit on threads");
  lupe__link.until_ms = lupe__now_ms() + LOOK_MS;
  close_link();
  end_runtime();
  return LUPE_ENOMEM;
}

void *lupe__link_thread(void *unused) {
  char why[LUPE__WHY_BYTES] = "";
  struct sched_param normal = {0};
  sched_setscheduler(0, SCHED_OTHER, &normal); /* a real-time program's thread started us */
  pthread_setname_np(pthread_self(), "lupe-link");
  (void)lupe_agent_adopt_thread();
  lupe_status status = open_link(why);
  pthread_mutex_lock(&lupe__link.lock);
  lupe__link.status = status;
  memcpy(lupe__link.why, why, sizeof why);
  lupe__link.opening = false;
  lupe__link.there = status == LUPE_OK;
  pthread_cond_broadcast(&lupe__link.changed);
  pthread_mutex_unlock(&lupe__link.lock);
  if (status == LUPE_OK) {
    serve();
    shutdown(own.events, SHUT_RDWR); /* a runtime that hangs keeps its end open */
    pthread_join(own.reader, NULL);
    close_link();
    bool ended = end_runtime();
    pthread_mutex_lock(&lupe__link.lock);
    lupe__link.given_up = !ended;
    pthread_mutex_unlock(&lupe__link.lock);
  }
  lupe_agent_release_thread();
  atomic_store(&lupe__link.ended, true);
  return unused;
}
