/* zoo.h -- what the programs of the zoo share: chance by a seed, time, pace, and memory that is used.
 *
 *   PROGRAM SCENARIO --seed N --seconds S [--clock real|ticks] [--rest on|off]
 *
 * A program is one family of shapes of memory over time; a scenario is one of them, and the seed gives it its
 * sizes, rates, periods and phases, and the work beside it (background.h). labels.lua tells which function of
 * which scenario loses memory, or lets it grow. Everything is paced by timers: a program takes about 1 % of a
 * core. With `--clock ticks` nobody waits: each thread's time is what it has ticked and slept, so that a
 * minute takes a moment. With `--rest on` a program stands still when its time is over, with all that it
 * holds: it prints `resting` and waits for a byte on standard input. Where the function that loses also holds
 * some, it then frees those and rests a second time. Random numbers belong to a thread. Without memory a
 * program ends by abort; where the machine does not offer what it is about, with code 77. */
#ifndef LUPE_BENCH_ZOO_H
#define LUPE_BENCH_ZOO_H

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A function that stays itself: not inlined, not cloned, its name in every stack. clang knows no such word:
 * what it builds is built without inlining (CMakeLists.txt). */
#define ZOO_SITE __attribute__((noipa)) static

typedef struct zoo_scenario {
  const char *name;
  void (*run)(void);
} zoo_scenario;

enum { ZOO_KIB = 1024, ZOO_MIB = 1024 * 1024, ZOO_TICK_NS = 20000000, ZOO_PAGE = 4096 };
enum { ZOO_NOT_HERE = 77 };

static struct timespec zoo_start;
static double zoo_seconds = 60;
static bool zoo_waits = true;
static bool zoo_rests = false;
static __thread double zoo_ticked; /* seconds, where nobody waits */
static __thread uint64_t zoo_state = 1;
static __thread struct timespec zoo_due_at;
static __thread bool zoo_in_background; /* this thread does the work beside the subject, too */

/* Chance --------------------------------------------------------------------------------------- */

static inline void zoo_seed(uint64_t seed) {
  zoo_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
}

static inline uint64_t zoo_random(void) {
  zoo_state ^= zoo_state >> 12;
  zoo_state ^= zoo_state << 25;
  zoo_state ^= zoo_state >> 27;
  return zoo_state * UINT64_C(0x2545f4914f6cdd1d);
}

/* 0 up to, not including, 1. */
static inline double zoo_share(void) {
  return (double)(zoo_random() >> 11) * 0x1p-53;
}

static inline double zoo_uniform(double low, double high) {
  return low + (high - low) * zoo_share();
}

/* Both ends included. */
static inline long zoo_between(long low, long high) {
  return low + (long)(zoo_random() % (uint64_t)(high - low + 1));
}

static inline size_t zoo_bytes(size_t low, size_t high) {
  return (size_t)zoo_between((long)low, (long)high);
}

static inline bool zoo_chance(double share) {
  return zoo_share() < share;
}

static inline double zoo_exponential(double mean) {
  return -mean * log(1 - zoo_share());
}

/* Time ----------------------------------------------------------------------------------------- */

static inline double zoo_elapsed(void) {
  struct timespec now;
  if (!zoo_waits) return zoo_ticked;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)(now.tv_sec - zoo_start.tv_sec) + (double)(now.tv_nsec - zoo_start.tv_nsec) / 1e9;
}

static inline bool zoo_over(void) {
  return zoo_elapsed() >= zoo_seconds;
}

static inline void zoo_sleep(double seconds) {
  zoo_ticked += seconds;
  if (!zoo_waits) return;
  struct timespec pause = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - floor(seconds)) * 1e9)};
  while (clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, &pause) == EINTR) {
  }
}

static void zoo_background(void);

static inline void zoo_wait_for_tick(void) {
  zoo_ticked += ZOO_TICK_NS / 1e9;
  if (!zoo_waits) return;
  if (zoo_due_at.tv_sec == 0) clock_gettime(CLOCK_MONOTONIC, &zoo_due_at);
  zoo_due_at.tv_nsec += ZOO_TICK_NS;
  if (zoo_due_at.tv_nsec >= 1000000000) {
    zoo_due_at.tv_nsec -= 1000000000;
    zoo_due_at.tv_sec++;
  }
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &zoo_due_at, NULL) == EINTR) {
  }
}

/* Waits for this thread's next tick of 20 ms; false when the program's time is over. */
static inline bool zoo_tick(void) {
  zoo_wait_for_tick();
  if (zoo_in_background) zoo_background();
  return !zoo_over();
}

typedef struct zoo_pace {
  double at, owed;
} zoo_pace;

/* How many events are due since the last call, at so many per second. Starts zeroed. */
static inline long zoo_due(zoo_pace *pace, double per_second) {
  double now = zoo_elapsed();
  if (pace->at > 0) pace->owed += (now - pace->at) * per_second;
  pace->at = now;
  long whole = (long)pace->owed;
  pace->owed -= (double)whole;
  return whole;
}

/* Memory --------------------------------------------------------------------------------------- */

/* Writes to every page, as a program would that asked for them, and hides the pointer from the optimizer. */
static inline void *zoo_used(void *memory, size_t bytes) {
  char *at = (char *)memory;
  if (memory == NULL) abort();
  for (size_t i = 0; i < bytes; i += ZOO_PAGE) at[i] = (char)bytes;
  __asm__ volatile("" : "+r"(at) : : "memory");
  return at;
}

/* As if something somewhere would still read what is behind this pointer: what it holds is kept. */
static inline void zoo_kept(const void *memory) {
  __asm__ volatile("" : : "r"(memory) : "memory");
}

enum { ZOO_BAG_MAX = 16384 };

/* Blocks that die at a time known when they are born. Zeroed is empty; past its end a newcomer dies at once.
 * Places that are empty hold no stale pointer: to a reader of memory that would be a reference to whatever
 * takes the block's place. */
typedef struct zoo_bag {
  size_t count;
  struct {
    void *block;
    double until;
  } items[ZOO_BAG_MAX];
} zoo_bag;

static inline void zoo_bag_add(zoo_bag *bag, void *block, double until) {
  if (bag->count == ZOO_BAG_MAX) {
    free(block);
    return;
  }
  bag->items[bag->count].block = block;
  bag->items[bag->count++].until = until;
}

static inline void zoo_bag_sweep(zoo_bag *bag, double now) {
  for (size_t i = 0; i < bag->count;) {
    if (bag->items[i].until > now) {
      i++;
      continue;
    }
    free(bag->items[i].block);
    bag->items[i] = bag->items[--bag->count];
    bag->items[bag->count].block = NULL;
  }
}

/* Lets all that are in it die. */
static inline void zoo_bag_empty(zoo_bag *bag) {
  zoo_bag_sweep(bag, INFINITY);
}

/* Rest ----------------------------------------------------------------------------------------- */

static inline void zoo_rest(void) {
  static const char told[] = "resting\n";
  char byte;
  if (!zoo_rests) return;
  if (write(STDOUT_FILENO, told, sizeof told - 1) < 0) abort();
  while (read(STDIN_FILENO, &byte, 1) < 0 && errno == EINTR) {
  }
}

/* Start ---------------------------------------------------------------------------------------- */

static int zoo_usage(const char *program, const zoo_scenario *scenarios) {
  fprintf(stderr, "usage: %s SCENARIO --seed N --seconds S [--clock real|ticks] [--rest on|off]; scenarios:",
          program);
  for (; scenarios->name; scenarios++) fprintf(stderr, " %s", scenarios->name);
  fputc('\n', stderr);
  return 2;
}

static int zoo_main(int argc, char **argv, const zoo_scenario *scenarios) {
  uint64_t seed = 1;
  if (argc < 2) return zoo_usage(argv[0], scenarios);
  for (int i = 2; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--seed") == 0) {
      seed = strtoull(argv[i + 1], NULL, 10);
    } else if (strcmp(argv[i], "--seconds") == 0) {
      zoo_seconds = strtod(argv[i + 1], NULL);
    } else if (strcmp(argv[i], "--clock") == 0) {
      zoo_waits = strcmp(argv[i + 1], "ticks") != 0;
    } else if (strcmp(argv[i], "--rest") == 0) {
      zoo_rests = strcmp(argv[i + 1], "on") == 0;
    } else {
      return zoo_usage(argv[0], scenarios);
    }
  }
  for (const zoo_scenario *s = scenarios; s->name; s++) {
    if (strcmp(s->name, argv[1]) != 0) continue;
    for (const char *c = s->name; *c; c++) seed = seed * 131 + (unsigned char)*c; /* no two scenarios alike */
    zoo_seed(seed);
    for (int i = 0; i < 8; i++) zoo_random();
    clock_gettime(CLOCK_MONOTONIC, &zoo_start);
    zoo_in_background = true;
    s->run();
    zoo_rest();
    return 0;
  }
  return zoo_usage(argv[0], scenarios);
}

#endif
