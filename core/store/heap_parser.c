#include "core/store/heap_parser.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/wire/record.h"

enum state {
  AT_HEADER,   /* nothing read yet */
  AT_TOTAL,    /* the header's figures must follow */
  AT_STACK,    /* threads of the total, or a stack, or the end of stacks */
  AT_FIGURES,  /* a stack was read, its figures must follow */
  AT_TITLE,    /* the empty line was read, the title must follow */
  AT_MAPPINGS, /* until the end */
};

#define PERIOD_MAX (UINT64_C(1) << 48)
#define OBJECTS_MAX (UINT64_C(1) << 48)
#define BYTES_MAX (UINT64_C(1) << 56)

struct lupe_heap_parser {
  lupe_heap_events events;
  enum state state;
  lupe_status failed;
  uint64_t offset; /* in the text, of the line that is looked at */
  uint64_t period;
  uint32_t stacks;
  size_t depth;
  size_t held; /* bytes of an unfinished line in `line` */
  uint64_t addresses[LUPE_MAX_FRAMES];
  char error[192];
  char line[LUPE_HEAP_LINE_MAX];
};

lupe_status lupe_heap_parser_create(lupe_heap_parser **out, const lupe_heap_events *events) {
  lupe_heap_parser *p = malloc(sizeof *p);
  if (!p) return LUPE_ENOMEM;
  memset(p, 0, offsetof(lupe_heap_parser, line)); /* pages of the line are touched when one is cut */
  p->events = *events;
  *out = p;
  return LUPE_OK;
}

void lupe_heap_parser_free(lupe_heap_parser *p) {
  free(p);
}

const char *lupe_heap_parser_error(const lupe_heap_parser *p) {
  return p->error;
}

double lupe_heap_correction(double mean_bytes, double period_bytes) {
  if (!(mean_bytes > 0) || !(period_bytes > 0)) return 1;
  if (mean_bytes < 1) mean_bytes = 1; /* no object is smaller */
  double seen = -expm1(-mean_bytes / period_bytes);
  return seen > 0 && seen < 1 ? 1 / seen : 1;
}

__attribute__((format(printf, 3, 4))) static lupe_status fail(lupe_heap_parser *p, size_t column,
                                                              const char *format, ...) {
  char what[128];
  va_list args;
  va_start(args, format);
  vsnprintf(what, sizeof what, format, args);
  va_end(args);
  snprintf(p->error, sizeof p->error, "heap profile, byte %llu: %s", (unsigned long long)(p->offset + column),
           what);
  return LUPE_ECORRUPT;
}

typedef struct cursor {
  const char *start, *at, *end;
} cursor;

static size_t column(const cursor *c) {
  return (size_t)(c->at - c->start);
}

static bool literal(cursor *c, const char *text) {
  size_t bytes = strlen(text);
  if ((size_t)(c->end - c->at) < bytes || memcmp(c->at, text, bytes) != 0) return false;
  c->at += bytes;
  return true;
}

/* A decimal number of at most `max`; leaves the cursor where it is wrong. */
static bool decimal(cursor *c, uint64_t max, uint64_t *out) {
  uint64_t value = 0;
  const char *first = c->at;
  for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
    uint64_t digit = (uint64_t)(*c->at - '0');
    if (value > (max - digit) / 10) return false;
    value = value * 10 + digit;
  }
  if (c->at == first) return false;
  *out = value;
  return true;
}

static bool hexadecimal(cursor *c, uint64_t *out) {
  uint64_t value = 0;
  int digits = 0;
  for (; c->at < c->end; c->at++, digits++) {
    unsigned char x = (unsigned char)*c->at;
    unsigned digit = x - '0';
    if (digit > 9) {
      digit = x - 'a' + 10u;
      if (digit < 10 || digit > 15) break;
    }
    if (digits == 16) return false;
    value = value << 4 | digit;
  }
  if (digits == 0) return false;
  *out = value;
  return true;
}

static lupe_status parse_header(lupe_heap_parser *p, cursor *c) {
  if (!literal(c, "heap_v2/")) return fail(p, 0, "expected \"heap_v2/\" and the sample period");
  uint64_t period;
  if (!decimal(c, PERIOD_MAX, &period) || period == 0 || c->at != c->end)
    return fail(p, column(c), "expected a sample period of 1 to 2^48 bytes");
  p->period = period;
  p->state = AT_TOTAL;
  return p->events.period ? p->events.period(p->events.arg, period) : LUPE_OK;
}

/* `  tWHO: OBJECTS: BYTES [OBJECTS: BYTES]`, and for a thread (WHO a number) perhaps its name. */
static lupe_status parse_figures(lupe_heap_parser *p, cursor *c, bool whole, uint64_t *objects,
                                 uint64_t *bytes) {
  uint64_t unused;
  if (!literal(c, "  t"))
    return fail(p, column(c), "expected the figures of %s", whole ? "\"t*\"" : "a thread");
  if (!(whole ? literal(c, "*") : decimal(c, UINT64_MAX, &unused)))
    return fail(p, column(c), "expected %s", whole ? "\"t*\"" : "a thread's number");
  if (!literal(c, ": ") || !decimal(c, OBJECTS_MAX, objects))
    return fail(p, column(c), "expected a count of objects, at most 2^48");
  if (!literal(c, ": ") || !decimal(c, BYTES_MAX, bytes))
    return fail(p, column(c), "expected a count of bytes, at most 2^56");
  /* The accumulated figures are 0 without prof_accum, and not used with it. */
  if (!literal(c, " [") || !decimal(c, UINT64_MAX, &unused) || !literal(c, ": ") ||
      !decimal(c, UINT64_MAX, &unused) || !literal(c, "]"))
    return fail(p, column(c), "expected \" [OBJECTS: BYTES]\"");
  if (c->at != c->end && (whole || *c->at != ' ')) return fail(p, column(c), "expected the end of the line");
  return LUPE_OK;
}

static lupe_status parse_stack(lupe_heap_parser *p, cursor *c) {
  if (++p->stacks > LUPE_HEAP_STACKS_MAX)
    return fail(p, 0, "expected at most %d stacks", LUPE_HEAP_STACKS_MAX);
  size_t written = 0;
  c->at++; /* the @ */
  for (; c->at < c->end; written++) {
    uint64_t address;
    if (written == LUPE_HEAP_DEPTH_WRITTEN_MAX)
      return fail(p, column(c), "expected at most %d addresses", LUPE_HEAP_DEPTH_WRITTEN_MAX);
    /* "%#x" prints a zero as plain "0". */
    if (!literal(c, " 0x") && !(literal(c, " ") && c->at < c->end && *c->at == '0'))
      return fail(p, column(c), "expected an address");
    if (!hexadecimal(c, &address)) return fail(p, column(c), "expected an address of 1 to 16 digits");
    if (written < LUPE_MAX_FRAMES) p->addresses[written] = address;
  }
  p->depth = written < LUPE_MAX_FRAMES ? written : LUPE_MAX_FRAMES;
  if (p->depth == 0) p->addresses[p->depth++] = 0;
  p->state = AT_FIGURES;
  return LUPE_OK;
}

static lupe_status parse_stack_figures(lupe_heap_parser *p, cursor *c) {
  lupe_heap_stack s = {.addresses = p->addresses, .depth = p->depth};
  lupe_status status = parse_figures(p, c, true, &s.objects, &s.bytes);
  if (status != LUPE_OK) return status;
  if (s.bytes < s.objects) return fail(p, 0, "expected objects of at least one byte each");
  p->state = AT_STACK;
  if (s.bytes == 0 || !p->events.stack) return LUPE_OK;
  /* Counts are rounded: less than half an object may have been printed as 0. It is one then. */
  double objects = s.objects ? (double)s.objects : 1;
  s.samples = objects;
  double factor = lupe_heap_correction((double)s.bytes / objects, (double)p->period);
  s.inuse_objects = objects * factor;
  s.inuse_space = (double)s.bytes * factor;
  return p->events.stack(p->events.arg, &s);
}

static lupe_status parse_line(lupe_heap_parser *p, const char *line, size_t bytes) {
  cursor c = {line, line, line + bytes};
  uint64_t objects, total;
  switch (p->state) {
    case AT_HEADER:
      return parse_header(p, &c);
    case AT_TOTAL:
      p->state = AT_STACK;
      return parse_figures(p, &c, true, &objects, &total);
    case AT_FIGURES:
      return parse_stack_figures(p, &c);
    case AT_STACK:
      if (bytes == 0) {
        p->state = AT_TITLE;
        return LUPE_OK;
      }
      return line[0] == '@' ? parse_stack(p, &c) : parse_figures(p, &c, false, &objects, &total);
    case AT_TITLE:
      if (!literal(&c, "MAPPED_LIBRARIES:") || c.at != c.end)
        return fail(p, column(&c), "expected \"MAPPED_LIBRARIES:\"");
      p->state = AT_MAPPINGS;
      return LUPE_OK;
    case AT_MAPPINGS:
      if (p->events.mapping) return p->events.mapping(p->events.arg, line, bytes);
      return LUPE_OK;
  }
  return LUPE_EINVAL;
}

/* Keeps the beginning of a line whose end has not come yet. */
static lupe_status hold(lupe_heap_parser *p, const char *text, size_t bytes) {
  if (bytes > sizeof p->line - p->held)
    return fail(p, 0, "expected lines of at most %d bytes", LUPE_HEAP_LINE_MAX);
  memcpy(p->line + p->held, text, bytes);
  p->held += bytes;
  return LUPE_OK;
}

lupe_status lupe_heap_parser_feed(lupe_heap_parser *p, const char *text, size_t bytes) {
  const char *at = text, *end = text + bytes;
  while (p->failed == LUPE_OK && at < end) {
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    const char *stop = newline ? newline : end;
    const char *line = at;
    size_t length = (size_t)(stop - at);
    if (p->held || !newline) {
      p->failed = hold(p, at, length);
      line = p->line;
      length = p->held;
    } else if (length > LUPE_HEAP_LINE_MAX) { /* the same bound, however the pieces fall */
      p->failed = fail(p, 0, "expected lines of at most %d bytes", LUPE_HEAP_LINE_MAX);
    }
    if (p->failed != LUPE_OK || !newline) break;
    p->failed = parse_line(p, line, length);
    p->held = 0;
    p->offset += length + 1;
    at = newline + 1;
  }
  return p->failed;
}

lupe_status lupe_heap_parser_finish(lupe_heap_parser *p) {
  if (p->failed != LUPE_OK) return p->failed;
  if (p->held)
    p->failed = fail(p, p->held, "expected the end of the line, not of the text");
  else if (p->state != AT_MAPPINGS)
    p->failed = fail(p, 0, "expected more: the text ends before its list of mappings");
  return p->failed;
}
