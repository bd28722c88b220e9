// link: lupe-shared jemalloc
/* embedded_data.c -- a program that holds data and does little, with lupe in it or without.
 * usage: embedded_data MB lupe|bare
 * MB of values of 1,000 bytes each, as bench/memory.lua fills redis with, asked for on 512 different stacks;
 * a thousand of them a second are replaced by new ones. Says when it is ready, and stays until it is ended.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load.h"
#include "core/lupe.h"

const char *malloc_conf = "prof:true,prof_active:false,lg_prof_sample:19";

enum { VALUE_BYTES = 1000, STACKS = 512, ROUNDS_PER_SECOND = 20, VALUES_PER_ROUND = 50 };

static char *new_value(void) {
  char *value = malloc(VALUE_BYTES);
  if (value == NULL) load_fail("malloc");
  memset(value, 'v', VALUE_BYTES);
  return value;
}

/* Two functions that call each other in the order of the way's bits: nine bits, as many stacks. */
static char *left(unsigned way, unsigned bits);
static char *right(unsigned way, unsigned bits);

static char *turn(unsigned way, unsigned bits) {
  if (bits == 0) return new_value();
  return (way & 1) != 0 ? right(way >> 1, bits - 1) : left(way >> 1, bits - 1);
}

__attribute__((noinline)) static char *left(unsigned way, unsigned bits) {
  char *volatile value = turn(way, bits);
  return value;
}

__attribute__((noinline)) static char *right(unsigned way, unsigned bits) {
  char *volatile value = turn(way, bits);
  return value;
}

static char *value_for(size_t number) {
  return turn((unsigned)(number % STACKS), 9);
}

int main(int argc, char **argv) {
  if (argc != 3 || (strcmp(argv[2], "lupe") != 0 && strcmp(argv[2], "bare") != 0)) {
    fputs("usage: embedded_data MB lupe|bare\n", stderr);
    return 2;
  }
  size_t count = strtoul(argv[1], NULL, 10) * (1 << 20) / VALUE_BYTES, next = 0;
  char **values = calloc(count + 1, sizeof *values);
  if (values == NULL) load_fail("calloc");
  if (strcmp(argv[2], "lupe") == 0) {
    const char *settings[] = {"listen=127.0.0.1:0", NULL};
    lupe_options options = LUPE_OPTIONS_INIT;
    options.settings = settings;
    if (lupe_start(&options) != LUPE_OK) {
      fprintf(stderr, "embedded_data: %s\n", lupe_error());
      return 1;
    }
  }
  for (size_t i = 0; i < count; i++) values[i] = value_for(i);
  puts("ready");
  fflush(stdout);
  while (1) {
    const struct timespec pause = {.tv_nsec = 1000 * 1000 * 1000 / ROUNDS_PER_SECOND};
    nanosleep(&pause, NULL);
    for (int i = 0; i < VALUES_PER_ROUND && count > 0; i++, next = (next + 1) % count) {
      free(values[next]);
      values[next] = value_for(next);
    }
  }
}
