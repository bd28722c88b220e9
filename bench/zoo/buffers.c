// link: m
/* buffers.c -- pools, arenas and buffers: memory that comes in pieces and is used again. */
#include <sys/mman.h>

#include "background.h"

/* pool: buffers are given back to the pool, which grows when more are wanted at once than ever before. */
ZOO_SITE char *grow_pool(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void pool(void) {
  enum { BUFFERS = 400 };
  static char *buffers[BUFFERS];
  size_t bytes = zoo_bytes(16 * ZOO_KIB, 64 * ZOO_KIB);
  long have = 0, most = zoo_between(100, BUFFERS), mean = most / 2;
  double wanted = 0;
  zoo_pace pace = {0};
  while (zoo_tick()) {
    zoo_kept(buffers);
    for (long n = zoo_due(&pace, 10); n > 0; n--) {
      wanted += 0.15 * ((double)mean - wanted) + zoo_uniform(-1, 1) * (double)mean / 6;
      while ((double)have < wanted && have < most) buffers[have++] = grow_pool(bytes);
    }
  }
}

/* arena: requests take from chunks, and at the end of a phase of 2 to 7 s all chunks but two are freed. */
ZOO_SITE char *arena_chunk(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void arena(void) {
  enum { CHUNKS = 256 };
  static char *chunks[CHUNKS];
  size_t bytes = zoo_bytes(32 * ZOO_KIB, 64 * ZOO_KIB), have = 0, most = zoo_bytes(40, 160), used = 0;
  double period = zoo_uniform(2, 7), end = period;
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, (double)most / period); n > 0 && used < most; n--) {
      if (used == have) chunks[have++] = arena_chunk(bytes);
      used++;
    }
    if (zoo_elapsed() < end) continue;
    end += period;
    most = zoo_bytes(40, 160);
    used = 0;
    while (have > 2) free(chunks[--have]);
  }
}

/* log_buffers: lines pile up per channel until its buffer is written out. */
ZOO_SITE char *buffer_line(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void log_buffers(void) {
  enum { CHANNELS = 12, LINES = 1024 };
  static struct {
    size_t count, most;
    char *lines[LINES];
  } channels[CHANNELS];
  double rate = zoo_uniform(400, 1000);
  size_t bytes = zoo_bytes(150, 900), count = zoo_bytes(3, CHANNELS);
  for (size_t i = 0; i < count; i++) channels[i].most = zoo_bytes(300, LINES);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      size_t at = zoo_bytes(0, count - 1);
      if (channels[at].count == channels[at].most) {
        while (channels[at].count > 0) free(channels[at].lines[--channels[at].count]);
      }
      channels[at].lines[channels[at].count++] = buffer_line(bytes);
    }
  }
}

/* string_builder: a text doubles its buffer until it is done; the finished one is kept until the next is. */
ZOO_SITE char *double_buffer(char *text, size_t bytes) {
  return zoo_used(realloc(text, bytes), bytes);
}

static void string_builder(void) {
  static char *text, *finished;
  size_t capacity = 0, used = 0, most = zoo_bytes(ZOO_MIB, 6 * ZOO_MIB);
  double rate = (double)most / zoo_uniform(2, 12) / 1000;
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      used += 1000;
      if (used > capacity) text = double_buffer(text, capacity = capacity ? 2 * capacity : 4096);
      if (used < most) continue;
      free(finished);
      finished = text;
      text = NULL;
      used = capacity = 0;
    }
  }
}

/* vector_wave: an array follows a load that goes up and down, over 6 to 18 s. */
ZOO_SITE char *resize_window(char *window, size_t bytes) {
  return zoo_used(realloc(window, bytes), bytes);
}

static void vector_wave(void) {
  enum { STEP = 64 * ZOO_KIB };
  static char *window;
  double period = zoo_uniform(6, 18), phase = zoo_uniform(0, period), mean = zoo_uniform(2, 8) * ZOO_MIB;
  size_t bytes = 0;
  while (zoo_tick()) {
    double load = mean * (1 + 0.7 * sin(2 * M_PI * (zoo_elapsed() + phase) / period));
    size_t wanted = ((size_t)load / STEP + 1) * STEP;
    if (wanted != bytes) window = resize_window(window, bytes = wanted);
  }
}

/* fragmentation: blocks of all sizes replace each other in waves; their number stays, the gaps move. */
ZOO_SITE char *place_block(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void fragmentation(void) {
  enum { BLOCKS = 6000 };
  static char *blocks[BLOCKS];
  size_t count = zoo_bytes(2000, BLOCKS);
  double rate = zoo_uniform(300, 900), period = zoo_uniform(5, 12);
  zoo_pace pace = {0};
  for (size_t i = 0; i < count; i++) blocks[i] = place_block(zoo_bytes(64, 4000));
  while (zoo_tick()) {
    size_t most = 2000 + (size_t)(1500 * (1 + sin(2 * M_PI * zoo_elapsed() / period)));
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      char **block = &blocks[zoo_bytes(0, count - 1)];
      free(*block);
      *block = place_block(zoo_bytes(64, most));
    }
  }
}

/* mapped_arena: chunks come from mmap and are given back; what malloc sees is a directory entry per chunk. */
typedef struct chunk {
  struct chunk *next;
  char *memory;
  char notes[2000];
} chunk;

ZOO_SITE chunk *map_chunk(size_t bytes) {
  chunk *c = zoo_used(malloc(sizeof *c), sizeof *c);
  c->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (c->memory == MAP_FAILED) abort();
  c->memory[0] = 1;
  return c;
}

static void mapped_arena(void) {
  enum { BYTES = 64 * ZOO_KIB };
  static chunk *chunks;
  long count = 0, most = zoo_between(150, 400);
  double rate = (double)most / zoo_uniform(4, 14);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      if (count == most) {
        while (count > 5) {
          chunk *gone = chunks;
          chunks = gone->next;
          munmap(gone->memory, BYTES);
          free(gone);
          count--;
        }
      }
      chunk *made = map_chunk(BYTES);
      made->next = chunks;
      chunks = made;
      count++;
    }
  }
}

/* churn: connections of which a few stay very much longer than most. */
ZOO_SITE char *accept_connection(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void churn(void) {
  static zoo_bag connections;
  size_t bytes = zoo_bytes(2000, 16000);
  double rate = zoo_uniform(30, 120), longest = zoo_uniform(10, 25);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    double now = zoo_elapsed();
    zoo_bag_sweep(&connections, now);
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      double seconds = 0.2 * pow(1 - zoo_share(), -1 / 1.2); /* Pareto's */
      zoo_bag_add(&connections, accept_connection(bytes), now + (seconds < longest ? seconds : longest));
    }
  }
}

int main(int argc, char **argv) {
  static const zoo_scenario scenarios[] = {
      {"pool", pool},
      {"arena", arena},
      {"log_buffers", log_buffers},
      {"string_builder", string_builder},
      {"vector_wave", vector_wave},
      {"fragmentation", fragmentation},
      {"mapped_arena", mapped_arena},
      {"churn", churn},
      {NULL, NULL},
  };
  return zoo_main(argc, argv, scenarios);
}
