// link: m
/* batches.c -- memory that grows for a while, and for a reason: batches, loads, snapshots, generations. */
#include "background.h"

/* sawtooth_*: rows pile up and are all freed, every 3 to 8 or 20 to 27 s. */
ZOO_SITE char *collect_row(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void sawtooth(double period) {
  enum { ROWS = 8192 };
  static char *rows[ROWS];
  size_t count = 0, bytes = zoo_bytes(300, 2500), most = zoo_bytes(2500, ROWS);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, (double)most / period); n > 0; n--) {
      if (count == most) {
        while (count > 0) free(rows[--count]);
      }
      rows[count++] = collect_row(bytes);
    }
  }
}

static void sawtooth_short(void) {
  sawtooth(zoo_uniform(3, 8));
}
static void sawtooth_long(void) {
  sawtooth(zoo_uniform(20, 27));
}

/* nightly: a batch grows for 18 to 25 s, is held for some more, is freed; then there is a pause. */
ZOO_SITE char *batch_record(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void nightly(void) {
  enum { RECORDS = 8192 };
  static char *records[RECORDS];
  size_t count = 0, bytes = zoo_bytes(300, 2500), most = zoo_bytes(3000, RECORDS);
  double grow = zoo_uniform(18, 25), hold = zoo_uniform(1, 4), pause = zoo_uniform(1, 6);
  double period = grow + hold + pause, phase = zoo_uniform(0, pause);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    double at = fmod(zoo_elapsed() + phase, period);
    bool growing = at < grow;
    for (long n = zoo_due(&pace, growing ? (double)most / grow : 0); n > 0 && count < most; n--) {
      records[count++] = batch_record(bytes);
    }
    if (at < grow + hold) continue;
    while (count > 0) free(records[--count]);
  }
}

/* dataset: rows are loaded at a constant pace for 26 to 36 s; from then on they are only read. */
ZOO_SITE char *load_rows(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void dataset(void) {
  enum { ROWS = 16384 };
  static char *rows[ROWS];
  size_t count = 0, bytes = zoo_bytes(400, 2000), most = zoo_bytes(6000, ROWS);
  double rate = (double)most / zoo_uniform(26, 36);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0 && count < most; n--) rows[count++] = load_rows(bytes);
    zoo_kept(rows);
  }
}

/* warm_up: modules are loaded, ever fewer, for 6 to 18 s. */
ZOO_SITE char *load_module(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void warm_up(void) {
  enum { MODULES = 400 };
  static char *modules[MODULES];
  size_t count = 0, most = zoo_bytes(80, MODULES);
  double seconds = zoo_uniform(6, 18);
  while (zoo_tick()) {
    zoo_kept(modules);
    double done = zoo_elapsed() / seconds;
    size_t wanted = (size_t)((double)most * (done < 1 ? 1 - (1 - done) * (1 - done) : 1));
    while (count < wanted) modules[count++] = load_module(zoo_bytes(5 * ZOO_KIB, 60 * ZOO_KIB));
  }
}

/* snapshots: every 4 to 9 s a new one is built, over some seconds, and the one before the last is freed. */
typedef struct snapshot {
  size_t count;
  char *parts[2048];
} snapshot;

ZOO_SITE char *copy_part(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void snapshots(void) {
  static snapshot two[2];
  snapshot *building = &two[0], *serving = &two[1];
  size_t bytes = zoo_bytes(500, 3000), most = zoo_bytes(600, 2048);
  double build = zoo_uniform(1, 4), period = build + zoo_uniform(3, 5);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    bool busy = fmod(zoo_elapsed(), period) < build;
    for (long n = zoo_due(&pace, busy ? (double)most / build : 0); n > 0; n--) {
      if (building->count == most) {
        snapshot *old = serving;
        serving = building;
        building = old;
        while (old->count > 0) free(old->parts[--old->count]);
      }
      building->parts[building->count++] = copy_part(bytes);
    }
  }
}

/* generations: the young are collected every second or so, survivors are promoted, and the old are collected
 * every 9 to 16 s. */
ZOO_SITE char *allocate_object(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void generations(void) {
  enum { YOUNG = 8192, OLD = 16384 };
  static char *young[YOUNG], *old[OLD];
  size_t young_count = 0, old_count = 0, bytes = zoo_bytes(100, 900);
  double rate = zoo_uniform(600, 1500), minor = zoo_uniform(0.7, 2), major = zoo_uniform(9, 16);
  double survive = zoo_uniform(0.05, 0.15), next_minor = minor, next_major = major;
  zoo_pace pace = {0};
  while (zoo_tick()) {
    double now = zoo_elapsed();
    for (long n = zoo_due(&pace, rate); n > 0 && young_count < YOUNG; n--) {
      young[young_count++] = allocate_object(bytes);
    }
    if (now >= next_minor) {
      next_minor += minor;
      while (young_count > 0) {
        char *one = young[--young_count];
        if (old_count < OLD && zoo_chance(survive)) {
          old[old_count++] = one;
        } else {
          free(one);
        }
      }
    }
    if (now >= next_major) {
      next_major += major;
      size_t kept = 0;
      for (size_t i = 0; i < old_count; i++) {
        if (i < 200) {
          old[kept++] = old[i];
        } else {
          free(old[i]);
        }
      }
      old_count = kept;
    }
  }
}

/* trim: memory may grow to a threshold, and is cut to a quarter of it there, every 7 to 16 s. */
ZOO_SITE char *retain_block(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void trim(void) {
  enum { BLOCKS = 8192 };
  static char *blocks[BLOCKS];
  size_t count = 0, bytes = zoo_bytes(500, 3000), most = zoo_bytes(3000, BLOCKS);
  double rate = 0.75 * (double)most / zoo_uniform(7, 16);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      blocks[count++] = retain_block(bytes);
      if (count < most) continue;
      while (count > most / 4) free(blocks[--count]);
    }
  }
}

/* compaction: segments are written until there are enough, and then merged into one, of what is still
 * current. */
ZOO_SITE char *write_segment(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}
ZOO_SITE char *compact_segments(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void compaction(void) {
  enum { SEGMENTS = 64 };
  static char *segments[SEGMENTS];
  static char *merged;
  size_t count = 0, bytes = zoo_bytes(50 * ZOO_KIB, 250 * ZOO_KIB), most = zoo_bytes(12, SEGMENTS);
  double rate = (double)most / zoo_uniform(5, 13);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      segments[count++] = write_segment(zoo_bytes(bytes / 2, bytes));
      if (count < most) continue;
      char *fresh = compact_segments(zoo_bytes(8 * bytes, 11 * bytes));
      free(merged);
      merged = fresh;
      while (count > 0) free(segments[--count]);
    }
  }
}

int main(int argc, char **argv) {
  static const zoo_scenario scenarios[] = {
      {"sawtooth_short", sawtooth_short},
      {"sawtooth_long", sawtooth_long},
      {"nightly", nightly},
      {"dataset", dataset},
      {"warm_up", warm_up},
      {"snapshots", snapshots},
      {"generations", generations},
      {"trim", trim},
      {"compaction", compaction},
      {NULL, NULL},
  };
  return zoo_main(argc, argv, scenarios);
}
