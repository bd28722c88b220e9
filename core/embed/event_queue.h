/* event_queue.h -- events of the runtime's on their way to the program: bounded, in order; where the program
 * is slow to take them, later ones are lost. Thread: the runtime's loop. */
#ifndef LUPE_EMBED_EVENT_QUEUE_H
#define LUPE_EMBED_EVENT_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LUPE__EVENT_TEXTS = 4 }; /* rule, severity, text, json */

typedef struct lupe__queued_event lupe__queued_event;

/* All zeros: empty. */
typedef struct lupe__event_queue {
  lupe__queued_event *first, *last;
  unsigned count;
  size_t sent; /* of the first */
} lupe__event_queue;

/* Adds one, of embedded.h's form. The texts are copied. False: it is lost. */
bool lupe__event_queue_add(lupe__event_queue *q, uint32_t kind, const char *const texts[LUPE__EVENT_TEXTS]);
/* Writes as much as the socket takes. Returns whether something is left. */
bool lupe__event_queue_send(lupe__event_queue *q, int socket);
void lupe__event_queue_clear(lupe__event_queue *q);

#endif
