/* link_state.h -- what link.c, which the program's threads call, and the link's thread share. */
#ifndef LUPE_EMBED_LINK_STATE_H
#define LUPE_EMBED_LINK_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/wire/frame.h"

enum {
  LUPE__CALL_MS =
      60000, /* what takes longer has failed: a rule may take half a second, and there are some tens */
  LUPE__WHY_BYTES = 1024,
};

/* Owned by whoever calls, and waits until it is done. */
typedef struct lupe__call {
  char *request;
  uint32_t bytes;
  lupe__frame reply;
  bool starts;        /* LUPE_EMBEDDED_START */
  lupe_status status; /* of the exchange, not the runtime's */
  bool done;
} lupe__call;

/* `lock` is held for moments only. `mode` is written before there is a thread. */
typedef struct lupe__link_state {
  pthread_mutex_t lock;
  pthread_cond_t changed;  /* for those who call */
  _Atomic uint32_t wanted; /* for the link's thread: counted up when there is something for it; a futex */
  lupe_mode mode;
  bool there;   /* it may be called: */
  bool started; /* not for START alone, which is the first */
  bool opening; /* the thread has not said yet how that went */
  bool closing, exiting;
  int64_t until_ms;  /* closing: the thread gives up then */
  atomic_bool ended; /* the thread does nothing more */
  bool given_up;
  lupe__call *call; /* under way; NULL: none */
  lupe_status status;
  char why[LUPE__WHY_BYTES]; /* of `status` */
} lupe__link_state;
extern lupe__link_state lupe__link;

/* What "lupe-link" does, from its first to its last. */
void *lupe__link_thread(void *unused);

/* Starts a thread with the attributes of all our small ones; signals as the caller's. 0, or an errno. */
int lupe__link_start_thread(pthread_t *thread, void *(*body)(void *));

#endif
