#include "core/agent/proof_mappings.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/agent/proof_lines.h"

typedef struct reader {
  lupe_proof_mapping current;
  bool has_current;
  void (*take)(void *arg, const lupe_proof_mapping *m);
  void *arg;
} reader;

static void deliver(reader *r) {
  if (r->has_current) r->take(r->arg, &r->current);
  r->has_current = false;
}

/* The end of a path tells more than its beginning. */
static void keep_end(char *to, const char *text) {
  size_t length = strlen(text);
  snprintf(to, LUPE_PROOF_PATH_BYTES, "%s",
           length < LUPE_PROOF_PATH_BYTES ? text : text + length - (LUPE_PROOF_PATH_BYTES - 1));
}

/* "7f00-7f10 rw-p 00000000 00:00 0    [stack]" */
static bool begin_mapping(reader *r, char *line) {
  char *at;
  lupe_proof_mapping m = {.span.lo = strtoull(line, &at, 16)};
  if (at == line || *at != '-') return false;
  m.span.hi = strtoull(at + 1, &at, 16);
  if (*at != ' ' || strlen(at) < 6) return false;
  m.readable = at[1] == 'r';
  m.writable = at[2] == 'w';
  m.executable = at[3] == 'x';
  m.shared = at[4] == 's';
  at += 5;
  strtoull(at, &at, 16); /* offset */
  while (*at == ' ') at++;
  at = strchr(at, ' '); /* device */
  if (!at) return false;
  m.anonymous = strtoull(at, &at, 10) == 0; /* inode */
  while (*at == ' ') at++;
  keep_end(m.path, at);
  deliver(r);
  r->current = m;
  r->has_current = true;
  return true;
}

/* The rest of a line that begins with `name`; NULL: it does not. */
static const char *figure(const char *line, const char *name) {
  size_t length = strlen(name);
  return strncmp(line, name, length) == 0 ? line + length : NULL;
}

/* Of smaps. */
static void take_figure(lupe_proof_mapping *m, const char *line) {
  const char *flags = figure(line, "VmFlags:"), *resident = figure(line, "Rss:"),
             *swapped = figure(line, "Swap:");
  if (flags) snprintf(m->flags, sizeof m->flags, "%.*s ", LUPE_PROOF_PATH_BYTES - 2, flags);
  if (resident && strtoull(resident, NULL, 10) > 0) m->filled = true;
  if (swapped && strtoull(swapped, NULL, 10) > 0) m->filled = m->swapped = true;
}

static void on_line(void *arg, char *line) {
  reader *r = arg;
  if (!isupper((unsigned char)line[0]))
    begin_mapping(r, line);
  else if (r->has_current)
    take_figure(&r->current, line);
}

bool lupe_proof_mappings_read(const char *path, void (*take)(void *arg, const lupe_proof_mapping *m),
                              void *arg) {
  reader r = {.take = take, .arg = arg};
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  bool whole = lupe_proof_lines_read(fd, on_line, &r);
  close(fd);
  deliver(&r);
  return whole;
}

bool lupe_proof_mapping_has(const lupe_proof_mapping *m, const char *flag) {
  char wanted[8];
  snprintf(wanted, sizeof wanted, " %s ", flag);
  return strstr(m->flags, wanted) != NULL;
}
