#include "core/embed/link.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/embed/error.h"
#include "core/embed/link_state.h"
#include "core/embed/patience.h"
#include "core/embed/runtime_thread.h"
#include "core/wire/frame.h"

enum { LATE_MS = 200 /* that the link's thread may end later than it was told */ };

lupe__link_state lupe__link = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* Of those that open and close it. */
static struct {
  pthread_t thread;
  bool runs; /* until it was joined */
} own;

/* ---- requests and replies ---- */

void lupe__reply_clear(lupe__reply *r) {
  free(r->body);
  *r = (lupe__reply){0};
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

/* ---- calls ---- */

/* The link's thread waits on a bare futex: a signal handler that exits may have interrupted any wait on
 * `changed`, whose waiters a broadcast there would wait for. */
static void wake_link(void) {
  atomic_fetch_add(&lupe__link.wanted, 1);
  syscall(SYS_futex, &lupe__link.wanted, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* With the lock. Who was about to call when lupe was stopped may come as it is being started again. */
static bool takes(const lupe__call *c) {
  return lupe__link.there && !lupe__link.closing && (lupe__link.started || c->starts);
}

/* Waits its turn, and then for the answer. Who is cancelled meanwhile waits on: the link's thread writes to
 * `c`, and it is not the only one that waits for the lock. */
static lupe_status put(lupe__call *c) {
  int cancel;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
  pthread_mutex_lock(&lupe__link.lock);
  while (takes(c) && lupe__link.call) pthread_cond_wait(&lupe__link.changed, &lupe__link.lock);
  if (takes(c)) {
    lupe__link.call = c;
    wake_link();
    while (!c->done) pthread_cond_wait(&lupe__link.changed, &lupe__link.lock);
    if (c->starts) lupe__link.started = true;
  } else {
    c->status = LUPE_ENOENT;
  }
  bool closing = lupe__link.closing || (lupe__link.there && !lupe__link.started);
  pthread_mutex_unlock(&lupe__link.lock);
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
                      LUPE__CALL_MS / 1000);
  }
  return lupe__fail(c->status, "the runtime's answer cannot be taken: %s", lupe_status_text(c->status));
}

lupe_status lupe__link_call(lupe_embedded_op op, const char *const *texts, size_t count, lupe__reply *reply) {
  lupe__call c = {.reply = {.fd = -1}, .starts = op == LUPE_EMBEDDED_START};
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

/* ---- opening and closing ---- */

static void join_link(void) {
  if (own.runs) pthread_join(own.thread, NULL);
  own.runs = false;
}

lupe_status lupe__link_open(lupe_mode mode) {
  sigset_t all, before;
  if (own.runs && !atomic_load(&lupe__link.ended)) {
    return lupe__fail(LUPE_EINUSE, "what lupe_stop could not end in time has not ended yet: try again later");
  }
  join_link();
  lupe__link.mode = mode;
  lupe__link.until_ms = 0;
  pthread_mutex_lock(&lupe__link.lock); /* who called the last link may still be on the way back from it */
  lupe__link.opening = true;
  lupe__link.there = lupe__link.started = false;
  lupe__link.closing = lupe__link.exiting = lupe__link.given_up = false;
  pthread_mutex_unlock(&lupe__link.lock);
  atomic_store(&lupe__link.ended, false);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* lupe's threads take none of the program's signals */
  int failed = lupe__link_start_thread(&own.thread, lupe__link_thread);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (failed) return lupe__fail(LUPE_ENOMEM, "no thread can be started: %s", strerror(failed));
  own.runs = true;
  pthread_mutex_lock(&lupe__link.lock);
  while (lupe__link.opening) pthread_cond_wait(&lupe__link.changed, &lupe__link.lock);
  lupe_status status = lupe__link.status;
  pthread_mutex_unlock(&lupe__link.lock);
  if (status == LUPE_OK) return status;
  join_link();
  return lupe__fail(status, "%s", lupe__link.why);
}

bool lupe__link_close(int64_t wait_ms, bool joins) {
  int64_t until_ms = lupe__now_ms() + wait_ms;
  if (!lupe__lock_until(&lupe__link.lock, until_ms)) return false;
  lupe__link.until_ms = until_ms;
  lupe__link.closing = true;
  lupe__link.exiting = !joins;
  if (joins)
    pthread_cond_broadcast(&lupe__link.changed); /* who waits for a turn; not where the program exits */
  pthread_mutex_unlock(&lupe__link.lock);
  wake_link();
  if (!lupe__wait_until(&lupe__link.ended, until_ms + LATE_MS)) return false;
  if (joins) join_link();
  return !lupe__link.given_up;
}

void lupe__link_forget(void) {
  lupe__link.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
  lupe__link.changed = (pthread_cond_t)PTHREAD_COND_INITIALIZER; /* the parent's threads waited there */
  lupe__link.there = false;
  lupe__link.call = NULL;
  own.runs = false;
  lupe__runtime_forget();
}
