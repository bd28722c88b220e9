// link: pthread
// flags: -O2
/* proof_heap.c -- a heap of a given size and kind, and a thread that works on while a leak proof looks at it.
 * usage: proof_heap blocks|buffers|pointers MIB spin|MIB_PER_S
 *
 *   blocks    64 bytes to 8 KiB, each pointing to another one
 *   buffers   1 MiB each, of bytes that are no pointers
 *   pointers  64 bytes each, all of them pointers to others
 *
 * The thread either spins (allocates, frees, writes to the heap, and notes how long each turn took), or
 * writes to so many MiB a second of the heap's pages, one after the other; at 0 it sleeps. Commands are lines
 * on standard input, each is answered by one line of JSON: `open` begins a window, `close` ends it and tells
 * its longest turns, with and without the time that the thread waited for a processor; `fork` forks a child
 * that exits at once; `quit`. */
#include "bench/load.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/wait.h>

enum { MIB = 1024 * 1024, PAGE = 4096, LONG_TURN_NS = 50000, KEPT = 5, SLOTS = 4096 };

typedef struct heap {
  char **blocks;
  size_t *sizes;
  size_t count, bytes;
} heap;

typedef struct window {
  uint64_t longest_ns[KEPT], longest_running_ns[KEPT];
} window;

static heap held;
static double write_mib_per_s;
static _Atomic uint64_t written_bytes;
static atomic_bool stopping;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static window current; /* by lock; the thread takes it only after a long turn */
static _Atomic uint64_t opened_at_ns;
static uint64_t random_state = UINT64_C(88172645463325252);

static uint64_t next_random(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

/* Odd numbers of more than 48 bits: nothing has such an address. */
static void fill_buffer(char *block, size_t bytes) {
  uint64_t *words = (uint64_t *)(void *)block;
  for (size_t i = 0; i < bytes / sizeof *words; i++) {
    words[i] = next_random(&random_state) | UINT64_C(0x8000000080000001);
  }
}

static size_t size_of_next(const char *kind) {
  if (strcmp(kind, "buffers") == 0) return MIB;
  if (strcmp(kind, "pointers") == 0) return 64;
  return (size_t)64 << next_random(&random_state) % 8;
}

static void build(const char *kind, size_t bytes) {
  bool pointers = strcmp(kind, "pointers") == 0, buffers = strcmp(kind, "buffers") == 0;
  size_t most = bytes / (buffers ? MIB : 64) + 1;
  held.blocks = malloc(most * sizeof *held.blocks);
  held.sizes = malloc(most * sizeof *held.sizes);
  if (held.blocks == NULL || held.sizes == NULL) load_fail("malloc");
  while (held.bytes < bytes) {
    size_t size = size_of_next(kind);
    char *block = malloc(size);
    if (block == NULL) load_fail("malloc");
    if (buffers) {
      fill_buffer(block, size);
    } else {
      void **words = (void **)(void *)block;
      for (size_t at = 0; at < size; at += PAGE) block[at] = 1;
      for (size_t i = 0; i < (pointers ? size / sizeof *words : 1); i++) {
        words[i] = held.count == 0 ? NULL : held.blocks[next_random(&random_state) % held.count];
      }
    }
    held.blocks[held.count] = block;
    held.sizes[held.count++] = size;
    held.bytes += size;
  }
}

static void keep_longest(uint64_t *list, uint64_t value) {
  for (int i = 0; i < KEPT; i++) {
    if (value <= list[i]) continue;
    uint64_t other = list[i];
    list[i] = value;
    value = other;
  }
}

/* Time that this thread has waited for a processor so far. */
static uint64_t waited_ns(int schedstat) {
  char text[128];
  unsigned long long ran, waited;
  ssize_t n = pread(schedstat, text, sizeof text - 1, 0);
  if (n <= 0) load_fail("schedstat");
  text[n] = '\0';
  if (sscanf(text, "%llu %llu", &ran, &waited) != 2) load_fail("schedstat");
  return waited;
}

static void spin(void) {
  static char *slots[SLOTS];
  uint64_t state = 7, last_ns = load_now_ns(), opened_ns = 0;
  int schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
  if (schedstat < 0) load_fail("schedstat");
  uint64_t waited = waited_ns(schedstat);
  while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
    char **slot = &slots[next_random(&state) % SLOTS];
    free(*slot);
    *slot = malloc(64 + next_random(&state) % 2048);
    if (*slot == NULL) load_fail("malloc");
    **slot = 1;
    size_t which = next_random(&state) % held.count;
    held.blocks[which][held.sizes[which] - 1] = (char)state;
    uint64_t now_ns = load_now_ns(), took_ns = now_ns - last_ns;
    if (took_ns > LONG_TURN_NS) {
      uint64_t waited_now = waited_ns(schedstat), waited_meanwhile = waited_now - waited;
      waited = waited_now;
      opened_ns = atomic_load(&opened_at_ns);
      if (opened_ns > 0 && last_ns > opened_ns) {
        pthread_mutex_lock(&lock);
        keep_longest(current.longest_ns, took_ns);
        keep_longest(current.longest_running_ns, took_ns > waited_meanwhile ? took_ns - waited_meanwhile : 0);
        pthread_mutex_unlock(&lock);
      }
      now_ns = load_now_ns(); /* what was just done is no part of a turn */
    }
    last_ns = now_ns;
  }
}

static void write_paced(void) {
  uint64_t began_ns = load_now_ns();
  size_t which = 0, offset = 0;
  struct timespec pause = {.tv_nsec = 1000000};
  while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
    nanosleep(&pause, NULL);
    double due = write_mib_per_s * MIB * (double)(load_now_ns() - began_ns) / 1e9;
    while ((double)atomic_load(&written_bytes) < due) {
      held.blocks[which][offset] = (char)due;
      size_t step = held.sizes[which] - offset < PAGE ? held.sizes[which] - offset : PAGE;
      atomic_fetch_add(&written_bytes, step);
      offset += step;
      if (offset < held.sizes[which]) continue;
      offset = 0;
      which = (which + 1) % held.count;
    }
  }
}

static void *work(void *how) {
  if (how == NULL) {
    spin();
  } else {
    write_paced();
  }
  return NULL;
}

static void print_list(const char *name, const uint64_t *list) {
  printf(",\"%s\":[", name);
  for (int i = 0; i < KEPT; i++) printf("%s%.3f", i ? "," : "", (double)list[i] / 1e6);
  putchar(']');
}

static void close_window(uint64_t written_before) {
  uint64_t opened_ns = atomic_exchange(&opened_at_ns, 0);
  pthread_mutex_lock(&lock);
  window ended = current;
  pthread_mutex_unlock(&lock);
  printf("{\"seconds\":%.3f,\"written_bytes\":%llu", (double)(load_now_ns() - opened_ns) / 1e9,
         (unsigned long long)(atomic_load(&written_bytes) - written_before));
  print_list("longest_ms", ended.longest_ns);
  print_list("longest_running_ms", ended.longest_running_ns);
  puts("}");
}

static void fork_once(void) {
  uint64_t before_ns = load_now_ns();
  pid_t pid = fork();
  if (pid == 0) _exit(0);
  if (pid < 0) load_fail("fork");
  uint64_t after_ns = load_now_ns();
  if (waitpid(pid, NULL, 0) != pid) load_fail("waitpid");
  printf("{\"fork_ms\":%.3f}\n", (double)(after_ns - before_ns) / 1e6);
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fputs("usage: proof_heap blocks|buffers|pointers MIB spin|MIB_PER_S\n", stderr);
    return 2;
  }
  bool spins = strcmp(argv[3], "spin") == 0;
  uint64_t written_before = 0;
  char line[64];
  pthread_t thread;
  write_mib_per_s = strtod(argv[3], NULL);
  build(argv[1], strtoull(argv[2], NULL, 10) * MIB);
  if (pthread_create(&thread, NULL, work, spins ? NULL : &held) != 0) load_fail("pthread_create");
  setvbuf(stdout, NULL, _IOLBF, 0);
  printf("{\"heap_bytes\":%zu,\"blocks\":%zu}\n", held.bytes, held.count);
  while (fgets(line, sizeof line, stdin)) {
    if (strcmp(line, "open\n") == 0) {
      pthread_mutex_lock(&lock);
      current = (window){0};
      pthread_mutex_unlock(&lock);
      written_before = atomic_load(&written_bytes);
      atomic_store(&opened_at_ns, load_now_ns());
      puts("{}");
    } else if (strcmp(line, "close\n") == 0) {
      close_window(written_before);
    } else if (strcmp(line, "fork\n") == 0) {
      fork_once();
    } else {
      break;
    }
  }
  atomic_store(&stopping, true);
  pthread_join(thread, NULL);
  return 0;
}
