#include "core/embed/event_queue.h"

#include <stdlib.h>
#include <string.h>

#include "core/wire/frame.h"

enum { EVENTS_MAX = 256 };

struct lupe__queued_event {
  lupe__queued_event *next;
  uint32_t bytes;
  char body[];
};

static void drop_first(lupe__event_queue *q) {
  lupe__queued_event *e = q->first;
  q->first = e->next;
  if (!q->first) q->last = NULL;
  q->count--;
  q->sent = 0;
  free(e);
}

bool lupe__event_queue_add(lupe__event_queue *q, uint32_t kind, const char *const texts[LUPE__EVENT_TEXTS]) {
  size_t total = sizeof kind;
  for (int i = 0; i < LUPE__EVENT_TEXTS; i++) total += strlen(texts[i]) + 1;
  if (q->count >= EVENTS_MAX || total > LUPE_FRAME_MAX_BYTES) return false;
  lupe__queued_event *e = malloc(sizeof *e + total);
  if (!e) return false;
  *e = (lupe__queued_event){.bytes = (uint32_t)total};
  memcpy(e->body, &kind, sizeof kind);
  char *at = e->body + sizeof kind;
  for (int i = 0; i < LUPE__EVENT_TEXTS; i++) at = stpcpy(at, texts[i]) + 1;
  if (q->last) {
    q->last->next = e;
  } else {
    q->first = e;
  }
  q->last = e;
  q->count++;
  return true;
}

bool lupe__event_queue_send(lupe__event_queue *q, int socket) {
  while (q->first) {
    const lupe__queued_event *e = q->first;
    if (lupe__frame_write(socket, e->body, e->bytes, -1, &q->sent, false) == LUPE_EAGAIN) break;
    drop_first(q); /* where nobody is there any more, that shows by reading */
  }
  return q->first != NULL;
}

void lupe__event_queue_clear(lupe__event_queue *q) {
  while (q->first) drop_first(q);
}
