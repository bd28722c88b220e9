// flags: -O2
// link: lupe-agent
/* marks_cost.c -- the price of a pair of marks, begun and ended at once, beside two readings of the
 * processor's time stamp counter: all of them in short turns, one after the other, so that a busy machine
 * disturbs them alike. The functions are those of a shared library, as in a host.
 * Prints a JSON object of nanoseconds: medians over the turns. usage: marks_cost [TURNS] */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/lupe.h"

enum { PAIRS = 5000, TURNS_MAX = 20000 };

static double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void keep(uint64_t value) {
  __asm__ volatile("" : : "r"(value) : "memory");
}

static void count_ticks(void) {
  for (int i = 0; i < PAIRS; i++) {
    keep(__builtin_ia32_rdtsc());
    keep(__builtin_ia32_rdtsc());
  }
}

static lupe_mark span_mark = LUPE_MARK_INIT("bench");
static void span(void) {
  for (int i = 0; i < PAIRS; i++) {
    LUPE_SPAN("request");
    keep(0);
  }
}

static void nested_spans(void) {
  for (int i = 0; i < PAIRS; i++) {
    lupe_span outer = lupe_span_begin(&span_mark);
    span();
    lupe_span_end(&outer);
    i += PAIRS;
  }
}

static void tag(void) {
  for (int i = 0; i < PAIRS; i++) {
    LUPE_TAG("cache");
    keep(0);
  }
}

static void measure(void (*what)(void), double *out_ns) {
  double start = now_ns();
  what();
  *out_ns = (now_ns() - start) / PAIRS;
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, int count) {
  qsort(values, (size_t)count, sizeof *values, by_size);
  return values[count / 2];
}

int main(int argc, char **argv) {
  static double ticks[TURNS_MAX], spans[TURNS_MAX], tags[TURNS_MAX], beyond[TURNS_MAX];
  int turns = argc > 1 ? atoi(argv[1]) : 2000;
  if (turns < 1 || turns > TURNS_MAX) return 1;
  nested_spans(); /* pages, names and caches */
  tag();
  for (int i = 0; i < turns; i++) {
    measure(count_ticks, &ticks[i]);
    measure(span, &spans[i]);
    measure(tag, &tags[i]);
    beyond[i] = spans[i] - ticks[i];
  }
  printf("{\"counted\":%s,\"two_rdtsc_ns\":%.2f,\"span_ns\":%.2f,\"span_beyond_ns\":%.2f,\"tag_ns\":%.2f}\n",
         span_mark.begun ? "true" : "false", median(ticks, turns), median(spans, turns),
         median(beyond, turns), median(tags, turns));
  return 0;
}
