// flags: -O0 -g0
/* many_stacks.c -- a heap with many call sites: 10,000 functions that allocate, each reached by up to
 * 8 ways, and one live block per stack. The blocks are never touched: they cost no memory.
 * usage: many_stacks STACKS SECONDS -- makes them, says so, stays for that long and exits.
 * Run it at a period of 4 KiB: blocks of 32 KiB are sampled all but one in 3,000 times. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SITES = 10000, WAYS = 8, BLOCK_BYTES = 32 * 1024 };

static volatile unsigned last_site;

/* Every function is different, or a linker might fold them into one. */
#define SITE(n)                                           \
  __attribute__((noinline)) static void *site_##n(void) { \
    void *block = malloc(BLOCK_BYTES);                    \
    last_site = 1##n;                                     \
    return block;                                         \
  }
/* clang-format off */
#define TEN(m, n) m(n##0) m(n##1) m(n##2) m(n##3) m(n##4) m(n##5) m(n##6) m(n##7) m(n##8) m(n##9)
#define HUNDRED(m, n) \
  TEN(m, n##0) TEN(m, n##1) TEN(m, n##2) TEN(m, n##3) TEN(m, n##4) \
  TEN(m, n##5) TEN(m, n##6) TEN(m, n##7) TEN(m, n##8) TEN(m, n##9)
#define THOUSAND(m, n) \
  HUNDRED(m, n##0) HUNDRED(m, n##1) HUNDRED(m, n##2) HUNDRED(m, n##3) HUNDRED(m, n##4) \
  HUNDRED(m, n##5) HUNDRED(m, n##6) HUNDRED(m, n##7) HUNDRED(m, n##8) HUNDRED(m, n##9)
#define ALL(m) \
  THOUSAND(m, 0) THOUSAND(m, 1) THOUSAND(m, 2) THOUSAND(m, 3) THOUSAND(m, 4) \
  THOUSAND(m, 5) THOUSAND(m, 6) THOUSAND(m, 7) THOUSAND(m, 8) THOUSAND(m, 9)
/* clang-format on */
#define ENTRY(n) site_##n,

ALL(SITE)

static void *(*const sites[SITES])(void) = {ALL(ENTRY)};

__attribute__((noinline)) static void *reach(unsigned site, unsigned way) {
  if (way == 0) return sites[site]();
  void *volatile block = reach(site, way - 1);
  return block;
}

int main(int argc, char **argv) {
  long stacks = argc > 1 ? strtol(argv[1], NULL, 10) : 0, stay = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
  if (stacks < 1 || stacks > (long)SITES * WAYS || stay < 0 || stay > 3600) {
    fprintf(stderr, "usage: many_stacks STACKS SECONDS (1 to %d, 0 to 3600)\n", SITES * WAYS);
    return 2;
  }
  void **live = calloc((size_t)stacks, sizeof *live);
  for (long i = 0; i < stacks && live != NULL; i++)
    live[i] = reach((unsigned)(i % SITES), (unsigned)(i / SITES));
  printf("{\"stacks\":%ld}\n", stacks);
  fflush(stdout);
  sleep((unsigned)stay);
  return 0; /* the blocks stay live to the end: the last profile shows them */
}
