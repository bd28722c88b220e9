#include "core/store/record_queue.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_BYTES = 16384 }; /* a power-of-two part of LUPE_RECORD_QUEUE_BYTES, and more than one record */

static bool reserve(lupe_record_queue *q, size_t bytes) {
  while (q->room - q->used < bytes) {
    if (q->room == LUPE_RECORD_QUEUE_BYTES) return false;
    size_t room = q->room ? 2 * q->room : FIRST_BYTES;
    char *larger = realloc(q->bytes, room);
    if (!larger) return false;
    q->bytes = larger;
    q->room = room;
  }
  return true;
}

bool lupe_record_queue_add(lupe_record_queue *q, const lupe_thread_sample *s, const uint64_t *addresses,
                           size_t depth) {
  size_t bytes = sizeof(lupe_queued_record) + depth * sizeof *addresses;
  if (!reserve(q, bytes)) return false;
  lupe_queued_record *r = (lupe_queued_record *)(q->bytes + q->used);
  r->sample = *s;
  r->depth = depth;
  if (depth) memcpy(r->addresses, addresses, depth * sizeof *addresses);
  q->used += bytes;
  return true;
}

const lupe_queued_record *lupe_record_queue_next(const lupe_record_queue *q, size_t *at) {
  if (*at >= q->used) return NULL;
  const lupe_queued_record *r = (const lupe_queued_record *)(q->bytes + *at);
  *at += sizeof *r + r->depth * sizeof r->addresses[0];
  return r;
}

void lupe_record_queue_clear(lupe_record_queue *q) {
  free(q->bytes);
  *q = (lupe_record_queue){0};
}
