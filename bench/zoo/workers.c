// link: m pthread
/* workers.c -- threads and processes that come, work, hand over and go, and lose nothing. */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "background.h"

static void start(pthread_t *thread, void *(*body)(void *), void *argument) {
  if (pthread_create(thread, NULL, body, argument) != 0) abort();
}

/* thread_pool: grows to its size over 10 to 22 s, each thread with a work area of its own. */
ZOO_SITE char *worker_area(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void *pool_worker(void *bytes) {
  char *area = worker_area(*(size_t *)bytes);
  while (!zoo_over()) {
    zoo_sleep(0.1);
    area[0]++;
  }
  free(area);
  return NULL;
}

static void thread_pool(void) {
  enum { MOST = 20 };
  static pthread_t threads[MOST];
  size_t bytes = zoo_bytes(100 * ZOO_KIB, 700 * ZOO_KIB), count = 0, most = zoo_bytes(8, MOST);
  double seconds = zoo_uniform(10, 22);
  while (zoo_tick()) {
    while (count < most && (double)count < (double)most * zoo_elapsed() / seconds) {
      start(&threads[count++], pool_worker, &bytes);
    }
  }
  for (size_t i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

/* lagged_free: what one thread allocates another frees, 1 to 6 s later, and not evenly. */
enum { QUEUE = 8192 };
static struct {
  pthread_mutex_t lock;
  struct {
    char *block;
    double made_at;
  } items[QUEUE]; /* by lock, as are the next two */
  size_t first, count;
} handed = {.lock = PTHREAD_MUTEX_INITIALIZER};

ZOO_SITE char *hand_over(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

typedef struct lag {
  double mean, swing, period;
} lag;

static void *free_later(void *argument) {
  const lag *late = argument;
  while (zoo_tick()) {
    double now = zoo_elapsed(), by = late->mean + late->swing * sin(2 * M_PI * now / late->period);
    pthread_mutex_lock(&handed.lock);
    while (handed.count > 0 && handed.items[handed.first].made_at + by < now) {
      free(handed.items[handed.first].block);
      handed.first = (handed.first + 1) % QUEUE;
      handed.count--;
    }
    pthread_mutex_unlock(&handed.lock);
  }
  return NULL;
}

static void lagged_free(void) {
  lag late = {.mean = zoo_uniform(2, 5), .period = zoo_uniform(4, 12)};
  late.swing = late.mean * zoo_uniform(0.2, 0.5);
  size_t bytes = zoo_bytes(500, 5000);
  double rate = zoo_uniform(200, 600);
  pthread_t thread;
  zoo_pace pace = {0};
  start(&thread, free_later, &late);
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      char *block = hand_over(bytes);
      pthread_mutex_lock(&handed.lock);
      if (handed.count == QUEUE) {
        free(block);
      } else {
        size_t last = (handed.first + handed.count++) % QUEUE;
        handed.items[last].block = block;
        handed.items[last].made_at = zoo_elapsed();
      }
      pthread_mutex_unlock(&handed.lock);
    }
  }
  pthread_join(thread, NULL);
}

/* thread_churn: tasks of 0.2 to 3 s, each a thread with buffers of its own, which it frees. */
ZOO_SITE char *task_buffer(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

typedef struct task {
  uint64_t seed;
  size_t bytes;
} task;

static void *run_task(void *argument) {
  enum { BUFFERS = 16 };
  task mine = *(task *)argument;
  char *buffers[BUFFERS];
  free(argument);
  zoo_seed(mine.seed);
  double pause = zoo_uniform(0.2, 3) / BUFFERS;
  for (int i = 0; i < BUFFERS; i++) {
    buffers[i] = task_buffer(zoo_bytes(mine.bytes / 2, mine.bytes));
    zoo_sleep(pause);
  }
  for (int i = 0; i < BUFFERS; i++) free(buffers[i]);
  return NULL;
}

static void thread_churn(void) {
  size_t bytes = zoo_bytes(4 * ZOO_KIB, 40 * ZOO_KIB);
  double rate = zoo_uniform(2, 6);
  pthread_attr_t detached;
  zoo_pace pace = {0};
  pthread_attr_init(&detached);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      task *next = zoo_used(malloc(sizeof *next), sizeof *next);
      *next = (task){.seed = zoo_random(), .bytes = bytes};
      pthread_t thread;
      if (pthread_create(&thread, &detached, run_task, next) != 0) abort();
    }
  }
  pthread_attr_destroy(&detached);
  zoo_sleep(0.2); /* those that still run end with the process */
}

/* prefork: three processes, started one after the other; one is replaced by a fresh one now and then. */
ZOO_SITE char *session_buffer(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void serve(size_t bytes, size_t most, double seconds, double until) {
  enum { SLOTS = 2048 };
  static char *slots[SLOTS];
  size_t next = 0;
  zoo_pace pace = {0};
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  while (zoo_tick() && zoo_elapsed() < until) {
    for (long n = zoo_due(&pace, (double)most / seconds); n > 0; n--) {
      char **slot = &slots[next++ % most];
      free(*slot);
      *slot = session_buffer(bytes);
    }
  }
}

static void prefork(void) {
  enum { WORKERS = 3 };
  size_t bytes = zoo_bytes(500, 3000), most = zoo_bytes(500, 2048);
  double seconds = zoo_uniform(3, 8), next = 1, replace = zoo_uniform(14, 20), apart = zoo_uniform(2, 4);
  int started = 0;
  while (zoo_tick()) {
    if (zoo_elapsed() < next) continue;
    bool replacing = started >= WORKERS;
    /* The first of the three lives until it is replaced, the others to the end. */
    double until = started == 0 || replacing ? zoo_elapsed() + replace : zoo_seconds;
    pid_t pid = fork();
    if (pid < 0) abort();
    if (pid == 0) {
      serve(bytes, most, seconds, until);
      _exit(0);
    }
    started++;
    next = started < WORKERS ? next + apart : next + replace;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
  }
  while (wait(NULL) > 0) {
  }
}

int main(int argc, char **argv) {
  static const zoo_scenario scenarios[] = {{"thread_pool", thread_pool},
                                           {"lagged_free", lagged_free},
                                           {"thread_churn", thread_churn},
                                           {"prefork", prefork},
                                           {NULL, NULL}};
  return zoo_main(argc, argv, scenarios);
}
