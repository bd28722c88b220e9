/* seconds.h -- what is kept of each of the last ten minutes' seconds: a ring of records, by second ascending.
 * A second is a Unix time in whole seconds. A record is of any size and begins with its second, an int64_t;
 * the rest is the owner's. Not every second has one.
 * Bounded: LUPE_SECONDS_MAX records, made at once. Owner: a log. Thread: one at a time. */
#ifndef LUPE_STORE_SECONDS_H
#define LUPE_STORE_SECONDS_H

#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"

enum { LUPE_SECONDS_MAX = 600 };

typedef struct lupe_seconds lupe_seconds;

/* `drop` is called for each record before it goes: it frees what the owner keeps there. */
lupe_status lupe_seconds_create(lupe_seconds **out, size_t record_bytes,
                                void (*drop)(void *arg, void *record), void *arg);
void lupe_seconds_free(lupe_seconds *s); /* drops all; NULL is a no-op */

/* Records that are there, and each of them: 0 is the oldest. They stay in place until one is added,
 * or dropped themselves. */
size_t lupe_seconds_count(const lupe_seconds *s);
void *lupe_seconds_at(const lupe_seconds *s, size_t i);

/* The first record that is not before `second`; NULL: all are. Quick for the newest ones. */
void *lupe_seconds_find(const lupe_seconds *s, int64_t second);
/* Makes the record of a second that has none: all zeros behind its second. Those that are ten minutes older
 * go. NULL: it is itself ten minutes older than the newest. */
void *lupe_seconds_add(lupe_seconds *s, int64_t second);

/* There must be one. */
void lupe_seconds_drop_oldest(lupe_seconds *s);
/* From this second on nothing has been dropped; INT64_MIN before anything was. */
int64_t lupe_seconds_from(const lupe_seconds *s);

#endif
