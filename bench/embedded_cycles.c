// link: lupe-shared jemalloc
/* embedded_cycles.c -- how long lupe_start and lupe_stop take, and what they leave behind.
 * usage: embedded_cycles CYCLES. Prints the times of each cycle, and what the process had before the first,
 * after it (the runtime's library and jemalloc's arena stay), and after the last. */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load.h"
#include "core/lupe.h"

const char *malloc_conf = "prof:true,prof_active:false,lg_prof_sample:19";

static unsigned entries_of(const char *path) {
  DIR *folder = opendir(path);
  unsigned count = 0;
  if (folder == NULL) load_fail(path);
  while (readdir(folder) != NULL) count++;
  closedir(folder);
  return count - 2; /* . and .. */
}

/* Lines of a file of /proc that have `word` in them, and bytes of what they map where they map something. */
static unsigned lines_with(const char *path, const char *word, uint64_t *bytes) {
  char line[8192];
  unsigned count = 0;
  FILE *file = fopen(path, "r");
  if (file == NULL) load_fail(path);
  while (fgets(line, sizeof line, file) != NULL) {
    uint64_t from, to;
    if (strstr(line, word) == NULL) continue;
    count++;
    if (bytes != NULL && sscanf(line, "%" SCNx64 "-%" SCNx64, &from, &to) == 2) *bytes += to - from;
  }
  fclose(file);
  return count;
}

/* Who joins a thread may see it a moment longer: it is on its way out of the kernel. */
static unsigned tasks_left(void) {
  const struct timespec pause = {.tv_nsec = 1000 * 1000};
  unsigned count = 0;
  for (int i = 0; i < 200 && (count = entries_of("/proc/self/task")) > 1; i++) nanosleep(&pause, NULL);
  return count;
}

static void print_state(const char *name) {
  uint64_t mapped = 0;
  unsigned maps = lines_with("/proc/self/maps", "-", &mapped),
           files = lines_with("/proc/self/maps", "/", NULL);
  printf(
      "\"%s\":{\"tasks\":%u,\"descriptors\":%u,\"timers\":%u,\"maps\":%u,\"maps_of_files\":%u,"
      "\"mapped_bytes\":%" PRIu64 "}",
      name, tasks_left(), entries_of("/proc/self/fd") - 1 /* that of the look itself */,
      lines_with("/proc/self/timers", "ID:", NULL), maps, files, mapped);
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
