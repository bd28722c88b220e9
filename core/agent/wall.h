/* wall.h -- what the program's threads do by the clock on the wall, seen without disturbing them.
 * The agent's thread looks at every thread some times a second: /proc/self/task/TID/syscall tells whether it
 * runs or where it waits; the live part of a waiting thread's stack is copied and unwound. No signal, so no
 * system call of the program is interrupted and nothing is woken. A thread that has not been on a core since
 * the last look is known to stand where it stood, and costs one short read.
 *
 * Looks that found the same are gathered: a record (LUPE_RECORD_WALL) is pushed when a thread does something
 * else, and else once a second, weighing the microseconds that passed. They add up to the time that the
 * thread was known, however late or seldom the looks were (but for a time in which the whole process stood
 * still). A thread that was woken and has not got a core yet still counts as waiting.
 *
 * Memory: what is in lupe_wall_thread, nothing else; no malloc. Descriptors: two per thread for at most 512
 * threads, in the table of the thread that calls. Thread: the agent's only, for every function. */
#ifndef LUPE_AGENT_WALL_H
#define LUPE_AGENT_WALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/wire/record.h"

enum { LUPE_WALL_THREADS_PER_TICK = 32 };

typedef struct lupe_thread_table lupe_thread_table;

/* All zeros: not looking. */
typedef struct lupe_wall {
  lupe_segment *segment; /* NULL: not looking */
  uint64_t interval_ns;  /* between two ticks */
  size_t next;           /* the thread whose turn it is */
  int tasks;             /* /proc/self/task, the caller's */
  uint32_t pairs_left;   /* of descriptors that may be kept open */
  uint32_t started;      /* threads */
  uint32_t unread;       /* of these: the last look at them was refused */
} lupe_wall;

/* One thread. May be moved in memory; zeros are a thread that was not started. */
typedef struct lupe_wall_thread {
  pid_t tid;
  int syscall_fd, schedstat_fd; /* -1: opened at each look */
  bool unread;                  /* the last look was refused */
  bool settled;                 /* waiting, at `runs`: if that stays, so does everything else */
  uint64_t runs;                /* how often it was put on a core; 0: this kernel does not tell */
  uint64_t looked_ns;           /* CLOCK_MONOTONIC, the last look */
  /* The record being gathered. */
  uint64_t gathered_ns;
  uint64_t switches;
  uint32_t state;
  uint16_t depth;
  uint8_t flags;
  uint64_t frames[LUPE_MAX_FRAMES];
} lupe_wall_thread;

/* From now on `hz` ticks a second are to come, with records into `s`. hz 0: looks at nothing. To be called
 * before any thread is started. `tasks`: /proc/self/task, to stay open meanwhile. */
void lupe_wall_begin(lupe_wall *w, lupe_segment *s, int tasks, uint32_t hz);

/* Another number of ticks a second, not 0, for a wall that looks. Nothing is opened anew. */
void lupe_wall_set_rate(lupe_wall *w, uint32_t hz);

/* A thread was found. To be called soon after its start: what is opened here stays readable when the program
 * changes its user, and the thread's time counts from here. */
void lupe_wall_thread_start(lupe_wall *w, lupe_wall_thread *t, pid_t tid);

/* It has ended: pushes what was gathered, closes. Does nothing for a thread that was not started. */
void lupe_wall_thread_end(lupe_wall *w, lupe_wall_thread *t);

/* Looks at one thread. `longest_ns`: more than that since its last look is not counted. */
void lupe_wall_look(lupe_wall *w, lupe_wall_thread *t, uint64_t longest_ns);

/* Looks at up to LUPE_WALL_THREADS_PER_TICK threads, in turn. To be called `hz` times a second. */
void lupe_wall_tick(lupe_wall *w, lupe_thread_table *threads);

/* Ends all threads, and looking. */
void lupe_wall_end(lupe_wall *w, lupe_thread_table *threads);

#endif
