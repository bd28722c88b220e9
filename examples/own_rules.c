/* own_rules.c -- a program that gives lupe a rule, a module and a route of its own.
 *
 *   build/examples/own_rules             a budget is passed; what rule and route say of it
 *   build/examples/own_rules 60          the same, and it stays for 60 s: look at /api/x/budgets
 *
 * The files stand beside this one, in own_rules/:
 *   budgets.lua            the module: how much memory each part of this program may hold
 *   component_budget.lua   the rule: a part holds more than that. It runs with every check of lupe's
 *   budgets_route.lua      the route: GET /api/x/budgets, every part with its budget and what it holds
 * A program that is to be one file has such texts in it; lupe asks for a text, and not where it came from. */
#include <lupe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef OWN_RULES_DIR
#define OWN_RULES_DIR "examples/own_rules"
#endif

const char *malloc_conf = "prof:true,prof_active:false,lg_prof_sample:14";

enum {
  PAGES = 3000,
  PAGE_BYTES = 4000,
  WORDS = 20000,
  WORD_BYTES = 48,
  TEXT_BYTES_MAX = 64 * 1024,
  TRIES = 200
};

/* ---- The program: a cache, larger than it may be, and an index that is not ----------------------- */

static char *pages[PAGES], *words[WORDS];

static void *checked(void *memory) {
  if (memory == NULL) {
    fputs("own_rules: out of memory\n", stderr);
    abort();
  }
  return memory;
}

__attribute__((noinline)) static void cache_page(int number) {
  pages[number] = checked(malloc(PAGE_BYTES));
  memset(pages[number], 'x', PAGE_BYTES);
}

__attribute__((noinline)) static void index_word(int number) {
  words[number] = checked(malloc(WORD_BYTES));
  snprintf(words[number], WORD_BYTES, "word %d", number);
}

/* ---- lupe -------------------------------------------------------------------------------------- */

typedef lupe_status add_text(const char *name, const char *text);

/* A file of own_rules/, handed to lupe under a name. Ends the program where it cannot be read, or lupe does
 * not take it.
 */
static void add_file(add_text *add, const char *name, const char *file_name) {
  char path[4096], *text = checked(malloc(TEXT_BYTES_MAX));
  snprintf(path, sizeof path, "%s/%s", OWN_RULES_DIR, file_name);
  FILE *file = fopen(path, "r");
  size_t bytes = file != NULL ? fread(text, 1, TEXT_BYTES_MAX - 1, file) : 0;
  text[bytes] = '\0';
  if (file == NULL || ferror(file)) {
    perror(path);
    exit(1);
  }
  fclose(file);
  if (add(name, text) != LUPE_OK) {
    fprintf(stderr, "own_rules: %s: %s\n", name, lupe_error());
    exit(1);
  }
  free(text);
}

/* The rule, as soon as it has something to say: heap profiles come about once a second, and it sees the last.
 */
static lupe_status evaluate(char **out) {
  const struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};
  lupe_status status = LUPE_EAGAIN; /* there is no profile yet */
  *out = NULL;
  for (int i = 0; i < TRIES; i++) {
    lupe_free(*out);
    *out = NULL;
    status = lupe_evaluate("alert.component-budget", out);
    if (status != LUPE_EAGAIN && (status != LUPE_OK || strstr(*out, "\"findings\":[]") == NULL)) break;
    nanosleep(&pause, NULL);
  }
  return status;
}

int main(int argc, char **argv) {
  add_file(lupe_add_module, "budgets", "budgets.lua"); /* before those that require it */
  add_file(lupe_add_rule, "component_budget.lua", "component_budget.lua");
  if (lupe_start(NULL) != LUPE_OK) {
    fprintf(stderr, "own_rules: lupe: %s\n", lupe_error());
    return 1;
  }
  add_file(lupe_add_route, "budgets_route.lua", "budgets_route.lua"); /* while it runs is early enough, too */

  for (int i = 0; i < PAGES; i++) cache_page(i);
  for (int i = 0; i < WORDS; i++) index_word(i);

  char *findings = NULL, *budgets = NULL;
  int http_status = 0;
  if (evaluate(&findings) != LUPE_OK || lupe_get("/api/x/budgets", &http_status, &budgets) != LUPE_OK) {
    fprintf(stderr, "own_rules: lupe: %s\n", lupe_error());
    return 1;
  }
  printf("%s\n%d %s\n", findings, http_status, budgets);
  fflush(stdout);
  lupe_free(findings);
  lupe_free(budgets);
  if (argc > 1) sleep((unsigned)strtoul(argv[1], NULL, 10));
  lupe_stop();
  return 0;
}
