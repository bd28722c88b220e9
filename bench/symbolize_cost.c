// clang-format off
// link: dw elf z iberty
// sources: core/status.c core/unwanted.c core/store/elf_file.c core/store/program_file.c core/store/function_table.c core/store/image.c core/store/demangle.c core/store/symbolizer.c core/store/debug_sections.c core/store/source_lines.c core/store/source_walk.c core/store/text_store.c
// clang-format on
/* symbolize_cost.c -- what it costs to turn COUNT addresses all over a program file into names, or into
 * names, lines and inlined calls, in a process that has done nothing else. Prints JSON. usage: symbolize_cost
 * names|lines FILE COUNT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "core/clock.h"
#include "core/store/elf_file.h"
#include "core/store/source_lines.h"
#include "core/store/symbolizer.h"

typedef struct found {
  size_t named, lines, inlines;
} found;

static void fail(const char *what, lupe_status status) {
  fprintf(stderr, "symbolize_cost: %s: %s\n", what, lupe_status_text(status));
  exit(1);
}

static int by_value(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

/* Places in the file's code, evenly spread by a generator that is the same everywhere. */
static uint64_t *places(const char *path, size_t count) {
  lupe_elf_file f;
  lupe_status status = lupe_elf_open(path, &f);
  if (status != LUPE_OK) fail(path, status);
  const lupe_elf_segment *code = NULL;
  for (uint32_t i = 0; i < f.segment_count; i++) {
    if (f.segments[i].executable) code = &f.segments[i];
  }
  uint64_t *list = malloc(count * sizeof *list), state = 20240229;
  if (!code || !list) fail(path, LUPE_ENOENT);
  for (size_t i = 0; i < count; i++) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    list[i] = code->offset + (state >> 16) % code->file_bytes;
  }
  lupe_elf_close(&f);
  return list;
}

static void on_found(void *arg, size_t index, const lupe_source_place *place) {
  found *all = arg;
  (void)index;
  all->lines += place->line > 0;
  all->inlines += place->inline_count;
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: symbolize_cost names|lines FILE COUNT\n");
    return 2;
  }
  bool with_lines = strcmp(argv[1], "lines") == 0;
  size_t count = strtoull(argv[3], NULL, 10);
  uint64_t *list = places(argv[2], count);
  found all = {0};

  int64_t start_ns = lupe_clock_ns(CLOCK_MONOTONIC);
  lupe_symbolizer *s;
  lupe_image *image;
  lupe_status status = lupe_symbolizer_create(&s, NULL);
  if (status == LUPE_OK) status = lupe_symbolizer_open(s, argv[2], NULL, NULL, NULL, &image);
  if (status != LUPE_OK) fail("symbolizer", status);
  for (size_t i = 0; i < count; i++) {
    lupe_symbol symbol;
    lupe_symbolizer_resolve(s, image, list[i], &symbol);
    all.named += symbol.named;
    list[i] = symbol.address;
  }
  if (with_lines) {
    lupe_source_lines *lines;
    lupe_source_file file = {.path = argv[2]};
    qsort(list, count, sizeof *list, by_value);
    status = lupe_source_lines_open(&lines, &file);
    if (status == LUPE_OK) status = lupe_source_lines_resolve(lines, list, count, INT64_MAX, on_found, &all);
    if (status != LUPE_OK) fail(argv[2], status);
    lupe_source_lines_close(lines);
  }
  int64_t elapsed_ns = lupe_clock_ns(CLOCK_MONOTONIC) - start_ns;
  lupe_symbolizer_free(s);
  free(list);

  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  printf("{\"elapsed_ms\": %.3f, \"peak_mb\": %.2f, \"named\": %zu, \"lines\": %zu, \"inlines\": %zu}\n",
         (double)elapsed_ns / 1e6, (double)usage.ru_maxrss / 1024, all.named, all.lines, all.inlines);
  return 0;
}
