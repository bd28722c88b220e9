/* runtime_link.h -- the runtime's end of the link with the program (embedded.h): it takes requests, sends the
 * reply to each, and events as the program takes them. Thread: the runtime's loop. */
#ifndef LUPE_EMBED_RUNTIME_LINK_H
#define LUPE_EMBED_RUNTIME_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "core/embed/event_queue.h"
#include "core/lupe.h"
#include "core/wire/frame.h"

/* The link is over after `stop` and after `gone`: whoever is told calls lupe__runtime_link_close. */
typedef struct lupe__runtime_link_events {
  void (*request)(void *arg, uint32_t op); /* whole, and in `request` until this returns; not STOP */
  void (*stop)(void *arg);                 /* was asked; its reply is lupe__runtime_link_end's */
  void (*gone)(void *arg, const char *why);
  void *arg;
} lupe__runtime_link_events;

typedef struct lupe__runtime_link {
  lupe__runtime_link_events on;
  int calls_fd, events_fd;
  uv_poll_t calls, events;
  bool open;           /* it listens */
  bool busy;           /* a request has no reply yet */
  lupe__frame request; /* comes in */
  char *reply;         /* goes out; NULL: none */
  size_t reply_bytes, sent;
  lupe__event_queue queue;
} lupe__runtime_link;

/* Takes the two ends over, and waits for the first request, which is left in `request`. Returns its op; 0:
 * there is none. */
uint32_t lupe__runtime_link_begin(lupe__runtime_link *l, int calls, int events);

/* From here on it listens; the first request is forgotten. */
void lupe__runtime_link_listen(lupe__runtime_link *l, uv_loop_t *loop, const lupe__runtime_link_events *on);

/* The reply to the request under way: `bytes` of texts, each with its NUL. Without memory for it the program
 * counts as gone. */
void lupe__runtime_link_reply(lupe__runtime_link *l, lupe_status status, const char *texts, size_t bytes);
void lupe__runtime_link_reply_text(lupe__runtime_link *l, lupe_status status, const char *text);

/* An event. Where the program is slow to take them it may be lost. */
void lupe__runtime_link_tell(lupe__runtime_link *l, uint32_t kind,
                             const char *const texts[LUPE__EVENT_TEXTS]);

/* It listens no more; two handles are left for the loop to close. */
void lupe__runtime_link_close(lupe__runtime_link *l);

/* After the loop: closes the ends, with a last reply first where `stopped`, and frees what it holds. */
void lupe__runtime_link_end(lupe__runtime_link *l, bool stopped);

#endif
