// link: lupe-shared jemalloc
/* embedded_cycles.c -- how long lupe_start and lupe_stop take, and what they leave behind.
 * usage: embedded_cycles CYCLES. Prints the times of each cycle, and what the process had before the first,
 * after it (the runtime's library and jemalloc's arena stay), and after the last. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load.h"
#include "core/lupe.h"
#include "spec/fixtures/own_process.h"

const char *malloc_conf = "prof:true,prof_active:false,lg_prof_sample:19";

static void print_state(const char *name) {
  printf(
      "\"%s\":{\"tasks\":%d,\"descriptors\":%d,\"timers\":%d,\"maps\":%d,\"maps_of_files\":%d,"
      "\"mapped_bytes\":%" PRIu64 "}",
      name, own_threads(), own_descriptors(), own_timers(), own_mappings(), own_lines("/proc/self/maps", "/"),
      (uint64_t)own_mapped_pages() * (uint64_t)sysconf(_SC_PAGESIZE));
}

static void print_times(const char *name, const uint64_t *ns, long count) {
  printf(",\"%s\":[", name);
  for (long i = 0; i < count; i++) printf("%s%.3f", i == 0 ? "" : ",", (double)ns[i] / 1e6);
  putchar(']');
}

static void check(lupe_status status, const char *what) {
  if (status == LUPE_OK) return;
  fprintf(stderr, "embedded_cycles: %s: %s\n", what, lupe_error());
  exit(1);
}

int main(int argc, char **argv) {
  long cycles = argc > 1 ? strtol(argv[1], NULL, 10) : 0;
  const char *settings[] = {"listen=127.0.0.1:0", NULL};
  lupe_options options = LUPE_OPTIONS_INIT;
  options.settings = settings;
  if (cycles < 1 || cycles > 100000) {
    fputs("usage: embedded_cycles CYCLES\n", stderr);
    return 2;
  }
  uint64_t *started = calloc((size_t)cycles, sizeof *started),
           *stopped = calloc((size_t)cycles, sizeof *stopped);
  if (started == NULL || stopped == NULL) load_fail("calloc");
  putchar('{');
  print_state("before");
  for (long i = 0; i < cycles; i++) {
    uint64_t from = load_now_ns();
    check(lupe_start(&options), "lupe_start");
    uint64_t ready = load_now_ns();
    check(lupe_stop(), "lupe_stop");
    started[i] = ready - from;
    stopped[i] = load_now_ns() - ready;
    if (i == 0) {
      putchar(',');
      print_state("after_first");
    }
  }
  putchar(',');
  print_state("after");
  print_times("start_ms", started, cycles);
  print_times("stop_ms", stopped, cycles);
  puts("}");
  free(started);
  free(stopped);
  return 0;
}
