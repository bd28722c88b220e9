#include "core/embed/link.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/agent/agent.h"
#include "core/embed/error.h"
#include "core/embed/events.h"
#include "core/embed/helper.h"
#include "core/embed/patience.h"
#include "core/embed/runtime_thread.h"
#include "core/wire/frame.h"

enum {
  STACK_BYTES = 256 << 10,
  CALL_MS = 60000, /* what takes longer has failed: a rule may take half a second, and there are some tens */
  LATE_MS = 200,   /* that the link's thread may end later than it was told */
  LOOK_MS = 10,    /* between two looks whether the link is to be closed, while an answer is waited for */
  WHY_BYTES = 1024,
};

typedef struct call {
  char *request;
  uint32_t bytes;
  lupe__frame reply;
  bool starts;        /* LUPE_EMBEDDED_START */
  lupe_status status; /* of the exchange, not the runtime's */
  bool done;
} call;

/* Between the threads. `lock` is held for moments only. */
static struct {
  pthread_mutex_t lock;
  pthread_cond_t changed;  /* for those who call */
  _Atomic uint32_t wanted; /* for the link's thread: counted up when there is something for it */
  bool there;              /* it may be called: */
  bool started;            /* not for START alone, which is the first */
  bool opening;            /* the thread has not said yet how that went */
  bool closing, exiting;
  atomic_bool ended; /* the thread does nothing more */
  bool given_up;
  call *call; /* under way; NULL: none */
  lupe_status status;
  char why[WHY_BYTES]; /* of `status` */
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* The link thread's own; set by lupe__link_open before there is one. */
static struct {
  pthread_t thread, reader;
  bool runs; /* until it was joined */
  lupe_mode mode;
  int calls, events;
  int64_t until_ms; /* closing: it gives up then */
} own;

void lupe__reply_clear(lupe__reply *r) {
  free(r->body);
  *r = (lupe__reply){0};
}

/* ---- the thread ---- */

static bool is_closing(void) {
  pthread_mutex_lock(&state.lock);
  bool closing = state.closing;
  pthread_mutex_unlock(&state.lock);
  return closing;
}

/* The link's thread waits on a bare futex: a signal handler that exits may have interrupted any wait on
 * `changed`, whose waiters a broadcast there would wait for. */
static void wake_link(void) {
  atomic_fetch_add(&state.wanted, 1);
  syscall(SYS_futex, &state.wanted, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* With the lock, which it lets go of meanwhile. */
static void wait_until_wanted(void) {
  uint32_t seen = atomic_load(&state.wanted);
  pthread_mutex_unlock(&state.lock);
  syscall(SYS_futex, &state.wanted, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
  pthread_mutex_lock(&state.lock);
}

static void finish(call *c, lupe_status status) {
  pthread_mutex_lock(&state.lock);
  c->status = status;
  c->done = true;
  state.call = NULL;
  if (status != LUPE_OK) state.there = false; /* what comes next could be the answer to this */
  if (!state.exiting) pthread_cond_broadcast(&state.changed);
  pthread_mutex_unlock(&state.lock);
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
static bool exchange(call *c) {
  int64_t until = lupe__now_ms() + CALL_MS;
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
  if (write_frame(&request, sizeof request, own.until_ms) != LUPE_OK) return;
  for (int i = 0; i <= owed; i++) {
    lupe__frame frame = {.fd = -1};
    lupe_status status = read_frame(&frame, own.until_ms, false);
    lupe__frame_clear(&frame);
    if (status != LUPE_OK) return;
  }
}

static void serve(void) {
  bool answered = true;
  for (;;) {
    pthread_mutex_lock(&state.lock);
    while (!state.call && !state.closing) wait_until_wanted();
    call *c = state.call;
    bool closing = state.closing;
    pthread_mutex_unlock(&state.lock);
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
  int64_t left_ms = own.until_ms - lupe__now_ms();
  if (left_ms < 0) left_ms = 0;
  return own.mode == LUPE_MODE_HELPER ? lupe__helper_end(left_ms) : lupe__runtime_join(left_ms);
}

static lupe_status connect_to_runtime(char *why) {
  int calls[2], events[2];
  lupe_status status = LUPE_OK;
  if (own.mode == LUPE_MODE_IN_PROCESS) status = lupe__runtime_load(why, WHY_BYTES);
  if (status != LUPE_OK) return status;
  if (close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_UNSHARE) != 0) {
    snprintf(why, WHY_BYTES,
             "this kernel, or a filter of the program's, gives a thread no descriptor table of "
             "its own (close_range: %s)",
             strerror(errno));
    return LUPE_EUNSUPPORTED;
  }
  if (fill_standard_streams() != LUPE_OK || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, calls) != 0) {
    snprintf(why, WHY_BYTES, "no descriptors for the runtime: %s", strerror(errno));
    return LUPE_EIO;
  }
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, events) != 0) {
    snprintf(why, WHY_BYTES, "no descriptors for the runtime: %s", strerror(errno));
    close(calls[0]);
    close(calls[1]);
    return LUPE_EIO;
  }
  own.calls = calls[0];
  own.events = events[0];
  const int ours[2] = {calls[0], events[0]};
  status = own.mode == LUPE_MODE_HELPER ? lupe__helper_start(calls[1], events[1], why, WHY_BYTES)
                                        : lupe__runtime_run(calls[1], events[1], ours, why, WHY_BYTES);
  close(calls[1]);
  close(events[1]);
  return status;
}

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

/* With the attributes of all our small threads; signals as the caller's. */
static int start_thread(pthread_t *thread, void *(*body)(void *)) {
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
  if (start_thread(&own.reader, reader_main) == 0) return LUPE_OK;
  snprintf(why, WHY_BYTES, "no thread for the runtime's events: out of memory, or a limit on threads");
  own.until_ms = lupe__now_ms() + LOOK_MS;
  close_link();
  end_runtime();
  return LUPE_ENOMEM;
}

static void *link_main(void *unused) {
  char why[WHY_BYTES] = "";
  struct sched_param normal = {0};
  sched_setscheduler(0, SCHED_OTHER, &normal); /* a real-time program's thread started us */
  pthread_setname_np(pthread_self(), "lupe-link");
  (void)lupe_agent_adopt_thread();
  lupe_status status = open_link(why);
  pthread_mutex_lock(&state.lock);
  state.status = status;
  memcpy(state.why, why, sizeof why);
  state.opening = false;
  state.there = status == LUPE_OK;
  pthread_cond_broadcast(&state.changed);
  pthread_mutex_unlock(&state.lock);
  if (status == LUPE_OK) {
    serve();
    shutdown(own.events, SHUT_RDWR); /* a runtime that hangs keeps its end open */
    pthread_join(own.reader, NULL);
    close_link();
    bool ended = end_runtime();
    pthread_mutex_lock(&state.lock);
    state.given_up = !ended;
    pthread_mutex_unlock(&state.lock);
  }
  lupe_agent_release_thread();
  atomic_store(&state.ended, true);
  return unused;
}

/* ---- from outside ---- */

static void join_link(void) {
  if (own.runs) pthread_join(own.thread, NULL);
  own.runs = false;
}

lupe_status lupe__link_open(lupe_mode mode) {
  sigset_t all, before;
  if (own.runs && !atomic_load(&state.ended)) {
    return lupe__fail(LUPE_EINUSE, "what lupe_stop could not end in time has not ended yet: try again later");
  }
  join_link();
  own.mode = mode;
  own.calls = own.events = -1;
  own.until_ms = 0;
  pthread_mutex_lock(&state.lock); /* who called the last link may still be on the way back from it */
  state.opening = true;
  state.there = state.started = state.closing = state.exiting = state.given_up = false;
  pthread_mutex_unlock(&state.lock);
  atomic_store(&state.ended, false);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* lupe's threads take none of the program's signals */
  int failed = start_thread(&own.thread, link_main);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (failed) return lupe__fail(LUPE_ENOMEM, "no thread can be started: %s", strerror(failed));
  own.runs = true;
  pthread_mutex_lock(&state.lock);
  while (state.opening) pthread_cond_wait(&state.changed, &state.lock);
  lupe_status status = state.status;
  pthread_mutex_unlock(&state.lock);
  if (status == LUPE_OK) return status;
  join_link();
  return lupe__fail(status, "%s", state.why);
}

static char *pack(lupe_embedded_op op, const char *const *texts, size_t count, uint32_t *bytes) {
  const uint32_t number = op;
  size_t size = sizeof number;
  for (size_t i = 0; i < count; i++) size += strlen(texts[i]) + 1;
  char *body = size <= LUPE_FRAME_MAX_BYTES ? malloc(size) : NULL, *at = body;
  if (!body) return NULL;
  memcpy(at, &number, sizeof number);
  at += sizeof number;
  for (size_t i = 0; i < count; i++) at = stpcpy(at, texts[i]) + 1;
  *bytes = (uint32_t)size;
  return body;
}

/* Takes the frame's body over. */
static lupe_status unpack(lupe__frame *frame, lupe__reply *out) {
  uint32_t status;
  if (frame->bytes < sizeof status || frame->body[frame->bytes] != '\0') {
    return lupe__fail(LUPE_ECORRUPT, "the runtime's answer is not whole");
  }
  memcpy(&status, frame->body, sizeof status);
  *out = (lupe__reply){.body = frame->body};
  frame->body = NULL;
  for (size_t i = 0; i < LUPE__TEXTS_MAX; i++) out->texts[i] = "";
  const char *at = out->body + sizeof status, *end = out->body + frame->bytes;
  for (; at < end && out->count < LUPE__TEXTS_MAX; at += strlen(at) + 1) out->texts[out->count++] = at;
  return (lupe_status)status;
}

/* With the lock. Who was about to call when lupe was stopped may come as it is being started again. */
static bool takes(const call *c) {
  return state.there && !state.closing && (state.started || c->starts);
}

/* Waits its turn, and then for the answer. Who is cancelled meanwhile waits on: the link's thread writes to
 * `c`, and it is not the only one that waits for the lock. */
static lupe_status put(call *c) {
  int cancel;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
  pthread_mutex_lock(&state.lock);
  while (takes(c) && state.call) pthread_cond_wait(&state.changed, &state.lock);
  if (takes(c)) {
    state.call = c;
    wake_link();
    while (!c->done) pthread_cond_wait(&state.changed, &state.lock);
    if (c->starts) state.started = true;
  } else {
    c->status = LUPE_ENOENT;
  }
  bool closing = state.closing || (state.there && !state.started);
  pthread_mutex_unlock(&state.lock);
  pthread_setcancelstate(cancel, NULL);
  if (c->status == LUPE_OK) return LUPE_OK;
  if (c->status == LUPE_ENOENT && closing) return lupe__fail(LUPE_ENOENT, "lupe was stopped meanwhile");
  if (c->status == LUPE_ENOENT) {
    return lupe__fail(
        LUPE_ENOENT, c->starts ? "lupe's runtime ended as it began; what it had to say is on stderr"
                               : "lupe's runtime has ended; what it had to say is on stderr. Call lupe_stop");
  }
  if (c->status == LUPE_EIO) {
    return lupe__fail(LUPE_EIO, "the runtime did not answer within %d s, and is not asked any more",
                      CALL_MS / 1000);
  }
  return lupe__fail(c->status, "the runtime's answer cannot be taken: %s", lupe_status_text(c->status));
}

lupe_status lupe__link_call(lupe_embedded_op op, const char *const *texts, size_t count, lupe__reply *reply) {
  call c = {.reply = {.fd = -1}, .starts = op == LUPE_EMBEDDED_START};
  lupe__reply got = {0};
  c.request = pack(op, texts, count, &c.bytes);
  if (!c.request) return lupe__fail(LUPE_ENOMEM, "no memory for a request to the runtime");
  lupe_status status = put(&c);
  free(c.request);
  if (status == LUPE_OK) {
    status = unpack(&c.reply, &got);
    if (status != LUPE_OK && got.body)
      lupe__fail(status, "%s", got.count ? got.texts[0] : lupe_status_text(status));
  }
  lupe__frame_clear(&c.reply);
  if (status == LUPE_OK && reply) {
    *reply = got;
  } else {
    lupe__reply_clear(&got);
  }
  return status;
}

bool lupe__link_close(int64_t wait_ms, bool joins) {
  int64_t until_ms = lupe__now_ms() + wait_ms;
  if (!lupe__lock_until(&state.lock, until_ms)) return false;
  own.until_ms = until_ms;
  state.closing = true;
  state.exiting = !joins;
  if (joins) pthread_cond_broadcast(&state.changed); /* who waits for a turn; not where the program exits */
  pthread_mutex_unlock(&state.lock);
  wake_link();
  if (!lupe__wait_until(&state.ended, until_ms + LATE_MS)) return false;
  if (joins) join_link();
  return !state.given_up;
}

void lupe__link_forget(void) {
  state.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
  state.changed = (pthread_cond_t)PTHREAD_COND_INITIALIZER; /* the parent's threads waited there */
  state.there = false;
  state.call = NULL;
  own.runs = false;
  lupe__runtime_forget();
}
