/* marks.h -- the reader of the segment in which a process marks its work (core/wire/marks.h): the names of
 * its tags and spans, and what its spans add up to since the last reading. The process may write anything
 * there at any time: every number is loaded once and checked, every text is copied, cut and cleaned, and
 * counts that go back are taken as no change. Owner: a target. Thread: one at a time. Bounded: 1.3 KiB for
 * each name that has spans, and 32 bytes for each block. */
#ifndef LUPE_STORE_MARKS_H
#define LUPE_STORE_MARKS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/wire/marks.h"

typedef struct lupe_marks_reader lupe_marks_reader;

/* What ended under one name since the last reading. */
typedef struct lupe_span_change {
  uint32_t name;       /* its number in the segment */
  uint64_t count;      /* the sum of the buckets; above 0 */
  uint64_t total_ns;   /* may lag behind by spans that are just being counted */
  uint64_t longest_ns; /* not below where its highest bucket begins */
  uint32_t buckets[LUPE_SPAN_BUCKETS];
} lupe_span_change;

/* Called for each name in turn; `change` is valid meanwhile. */
typedef void (*lupe_span_change_cb)(void *arg, const lupe_span_change *change);

/* Maps what `fd` (borrowed) holds. LUPE_ECORRUPT: it is no such segment, or can still shrink; LUPE_EVERSION,
 * LUPE_ENOMEM, LUPE_EIO. What other runtimes have read of it is not told again: the first reading begins
 * where the segment stands. */
lupe_status lupe_marks_reader_create(lupe_marks_reader **out, int fd);
void lupe_marks_reader_free(lupe_marks_reader *r); /* NULL is a no-op */

/* Whether both read the same segment. */
bool lupe_marks_reader_same(const lupe_marks_reader *a, const lupe_marks_reader *b);

/* The text of a name: valid UTF-8 without control characters, never empty. False: there is none. */
bool lupe_marks_reader_name(const lupe_marks_reader *r, uint32_t number, char out[LUPE_MARK_NAME_BYTES]);
/* A return address inside the function that began its first span; 0: not known. */
uint64_t lupe_marks_reader_place(const lupe_marks_reader *r, uint32_t number);

/* Tells what ended since the last reading, by number ascending, and lets the longest ones begin anew.
 * LUPE_ENOMEM: of some names it could not be told, and will be the next time. */
lupe_status lupe_marks_reader_read(lupe_marks_reader *r, lupe_span_change_cb each, void *arg);

/* As the process counts them: names that came too late, spans that found no block. */
uint64_t lupe_marks_reader_names_lost(const lupe_marks_reader *r);
uint64_t lupe_marks_reader_spans_lost(const lupe_marks_reader *r);

/* Where bucket `b` of durations begins, ns. */
uint64_t lupe_span_bucket_begins(uint32_t b);

#endif
