// link: m
/* lost.c -- memory that one function loses, in the shapes that time gives it. */
#include "background.h"

/* linear: only the latest record is kept, and the one before it is forgotten. */
static char *latest_record;

ZOO_SITE char *read_record(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void linear(void) {
  size_t bytes = zoo_bytes(200, 4000);
  double rate = zoo_uniform(20, 300) * ZOO_KIB / (double)bytes;
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) latest_record = read_record(bytes);
  }
}

/* slow: 45 to 90 MiB an hour, the slowest that a minute of samples, one per 64 KiB, can show. */
static char *last_agent;

ZOO_SITE char *remember_user_agent(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void slow(void) {
  size_t bytes = zoo_bytes(150, 1200);
  double rate = zoo_uniform(45, 90) * ZOO_MIB / 3600 / (double)bytes;
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) last_agent = remember_user_agent(bytes);
  }
}

/* bursty: each import loses its rows, all within one tick, and then nothing for seconds. */
static char *last_row;

ZOO_SITE char *import_row(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void bursty(void) {
  size_t bytes = zoo_bytes(300, 3000);
  double period = zoo_uniform(2.5, 6), burst = zoo_uniform(150, 900) * ZOO_KIB, next = zoo_uniform(0, period);
  while (zoo_tick()) {
    if (zoo_elapsed() < next) continue;
    double rows = burst * zoo_uniform(0.6, 1.4) / (double)bytes;
    for (double i = 0; i < rows; i++) last_row = import_row(bytes);
    next += period * zoo_uniform(0.7, 1.3);
  }
}

/* realloc: a message grows by pieces; when it is whole it is handed on, and nobody frees it. */
ZOO_SITE char *grow_message(char *message, size_t bytes) {
  return zoo_used(realloc(message, bytes), bytes);
}

static void by_realloc(void) {
  size_t piece = zoo_bytes(500, 6000), most = piece * zoo_bytes(8, 40);
  double rate = zoo_uniform(40, 250) * ZOO_KIB / (double)piece;
  static char *message;
  size_t held = 0;
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      message = grow_message(message, held += piece);
      if (held < most) continue;
      message = NULL;
      held = 0;
    }
  }
  zoo_rest();
  free(message);
  message = NULL;
}

/* large: tiles of more than a MiB, of which hardly any survives its map; one in two is forgotten. */
ZOO_SITE char *render_tile(size_t bytes) {
  return zoo_used(malloc(bytes), ZOO_PAGE);
}

static void large(void) {
  double period = zoo_uniform(0.8, 1.6), next = 0;
  char *tile = NULL;
  while (zoo_tick()) {
    if (zoo_elapsed() < next) continue;
    if (zoo_chance(0.5)) free(tile);
    tile = render_tile(zoo_bytes(1100 * ZOO_KIB, 2200 * ZOO_KIB));
    next += period;
  }
}

/* tiny: keys of 16 to 48 bytes. */
static char *last_key;

ZOO_SITE char *note_key(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void tiny(void) {
  double rate = zoo_uniform(1500, 5000);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) last_key = note_key(zoo_bytes(16, 48));
  }
}

/* late: tokens are renewed and freed, until something happens after which the old one is no longer freed. */
ZOO_SITE char *renew_token(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void late(void) {
  enum { USERS = 64 };
  static char *tokens[USERS];
  size_t bytes = zoo_bytes(400, 3000);
  double rate = zoo_uniform(60, 250) * ZOO_KIB / (double)bytes, broken_at = zoo_uniform(12, 25);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      char **token = &tokens[zoo_between(0, USERS - 1)];
      if (zoo_elapsed() < broken_at) free(*token);
      *token = renew_token(bytes);
    }
  }
  zoo_rest();
  for (int i = 0; i < USERS; i++) free(tokens[i]);
}

/* warmed: a table fills within seconds, and then rows are replaced without being freed, at the same site. */
ZOO_SITE char *fetch_row(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void warmed(void) {
  enum { ROWS = 4096 };
  static char *rows[ROWS];
  size_t bytes = zoo_bytes(1000, 4000), filled = 0;
  double warm_seconds = zoo_uniform(4, 10), rate = zoo_uniform(40, 160) * ZOO_KIB / (double)bytes;
  zoo_pace filling = {0}, pace = {0};
  while (zoo_tick()) {
    zoo_kept(rows);
    for (long n = zoo_due(&filling, ROWS / warm_seconds); n > 0 && filled < ROWS; n--) {
      rows[filled++] = fetch_row(bytes);
    }
    if (filled < ROWS) continue;
    for (long n = zoo_due(&pace, rate); n > 0; n--) rows[zoo_between(0, ROWS - 1)] = fetch_row(bytes);
  }
  zoo_rest();
  for (size_t i = 0; i < filled; i++) free(rows[i]);
}

/* pausing: a leak whose traffic comes and goes. */
static char *last_upload;

ZOO_SITE char *accept_upload(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void pausing(void) {
  size_t bytes = zoo_bytes(500, 9000);
  double rate = zoo_uniform(60, 300) * ZOO_KIB / (double)bytes;
  double work = zoo_uniform(4, 9), pause = zoo_uniform(3, 7), phase = zoo_uniform(0, work);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    bool busy = fmod(zoo_elapsed() + phase, work + pause) < work;
    for (long n = zoo_due(&pace, busy ? rate : 0); n > 0; n--) last_upload = accept_upload(bytes);
  }
}

/* sawtooth: rows are staged and freed batch by batch, but for a few of each that are overlooked. */
ZOO_SITE char *stage_row(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void under_sawtooth(void) {
  enum { STAGED = 4096 };
  static char *staged[STAGED];
  size_t bytes = zoo_bytes(300, 1200), count = 0, most = zoo_bytes(1500, STAGED);
  double period = zoo_uniform(3, 8), overlooked = zoo_uniform(0.12, 0.3);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, (double)most / period); n > 0; n--) {
      if (count == most) {
        while (count > 0) {
          if (!zoo_chance(overlooked)) free(staged[count - 1]);
          staged[--count] = NULL;
        }
      }
      staged[count++] = stage_row(bytes);
    }
  }
  zoo_rest();
  while (count > 0) free(staged[--count]);
}

int main(int argc, char **argv) {
  static const zoo_scenario scenarios[] = {
      {"linear", linear},   {"slow", slow},
      {"bursty", bursty},   {"realloc", by_realloc},
      {"large", large},     {"tiny", tiny},
      {"late", late},       {"warmed", warmed},
      {"pausing", pausing}, {"sawtooth", under_sawtooth},
      {NULL, NULL},
  };
  return zoo_main(argc, argv, scenarios);
}
