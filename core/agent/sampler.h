/* sampler.h -- what the agent's thread does by the clock while sampling is on: looks for threads five times a
 * second, gives each its CPU timer, takes the wall's looks. Owns the table of threads and both samplers.
 * Wakes nobody while neither is wanted. Thread: the agent's only, for every function. */
#ifndef LUPE_AGENT_SAMPLER_H
#define LUPE_AGENT_SAMPLER_H

#include <stdint.h>
#include <sys/types.h>

#include "core/agent/thread_table.h"
#include "core/agent/wall.h"
#include "core/wire/record.h"

/* All zeros: not opened. Times are lupe_session_now_ms(). */
typedef struct lupe_sampler {
  lupe_thread_table *threads; /* NULL: cannot be read, so nothing is sampled */
  lupe_wall wall;
  lupe_segment *segment; /* NULL: both are off */
  uint32_t cpu_hz, wall_hz;
  uint32_t generation;              /* of the CPU timers that are noted as made */
  uint32_t own_changes;             /* own_threads.h, at the last list of threads */
  int64_t now_ms;                   /* of the round that is under way */
  int64_t scanned_ms, scan_cost_ns; /* of the last list of threads */
  int64_t scan_due_ms, tick_due_ms, cost_due_ms;
} lupe_sampler;

/* As early as possible: what is opened here stays readable when the program changes its user. */
void lupe_sampler_open(lupe_sampler *s);

/* So many samples a second from now on, with records and counters into `segment`. 0: none. */
void lupe_sampler_begin(lupe_sampler *s, lupe_segment *segment, uint32_t cpu_hz, uint32_t wall_hz);

/* The same while it runs. What goes on is not disturbed: threads keep their timers and their files unless the
 * rate that these are for changes, and a wall that only changes its rate opens nothing anew. */
void lupe_sampler_change(lupe_sampler *s, lupe_segment *segment, uint32_t cpu_hz, uint32_t wall_hz);

/* When to call lupe_sampler_run; INT64_MAX: never. */
int64_t lupe_sampler_due_ms(const lupe_sampler *s);

/* Does what is due. Threads of own_threads.h are left out. */
void lupe_sampler_run(lupe_sampler *s, int64_t now_ms);

/* No sample comes after this. What was gathered is pushed, and counters stay as they are. */
void lupe_sampler_end(lupe_sampler *s);

void lupe_sampler_close(lupe_sampler *s);

#endif
