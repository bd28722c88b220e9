// link: m pthread
/* lost_threads.c -- memory that is lost where several threads work. */
#include <pthread.h>

#include "background.h"

static void start(pthread_t *thread, void *(*body)(void *), void *argument) {
  if (pthread_create(thread, NULL, body, argument) != 0) abort();
}

/* one_of_many: all threads copy messages; one has a handler that forgets them. */
typedef struct worker {
  pthread_t thread;
  uint64_t seed;
  size_t bytes;
  double rate;
  bool loses;
} worker;

ZOO_SITE char *copy_message(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void *handle_messages(void *argument) {
  enum { RECENT = 32 };
  const worker *self = argument;
  char *recent[RECENT] = {0};
  size_t next = 0;
  zoo_pace pace = {0};
  zoo_seed(self->seed);
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, self->rate); n > 0; n--) {
      char **slot = &recent[next++ % RECENT];
      if (!self->loses) free(*slot);
      *slot = copy_message(self->bytes);
    }
  }
  for (int i = 0; i < RECENT; i++) free(recent[i]);
  return NULL;
}

static void one_of_many(void) {
  enum { MOST = 10 };
  static worker workers[MOST];
  int count = (int)zoo_between(4, MOST), guilty = (int)zoo_between(0, count - 1);
  size_t bytes = zoo_bytes(300, 4000);
  double rate = zoo_uniform(40, 200) * ZOO_KIB / (double)bytes;
  for (int i = 0; i < count; i++) {
    workers[i] = (worker){.seed = zoo_random(), .bytes = bytes, .rate = rate, .loses = i == guilty};
    start(&workers[i].thread, handle_messages, &workers[i]);
  }
  while (zoo_tick()) {
  }
  for (int i = 0; i < count; i++) pthread_join(workers[i].thread, NULL);
}

/* leftover: threads come and go, and what each kept for itself has no destructor. */
static pthread_key_t scratch_key;
static size_t scratch_bytes;

ZOO_SITE char *thread_scratch(void) {
  return zoo_used(malloc(scratch_bytes), scratch_bytes);
}

static void *short_task(void *unused) {
  pthread_setspecific(scratch_key, thread_scratch());
  zoo_sleep(0.03);
  return unused;
}

static void leftover(void) {
  if (pthread_key_create(&scratch_key, NULL) != 0) abort();
  scratch_bytes = zoo_bytes(8 * ZOO_KIB, 40 * ZOO_KIB);
  double rate = zoo_uniform(4, 10);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      pthread_t thread;
      start(&thread, short_task, NULL);
      pthread_join(thread, NULL);
    }
  }
}

/* full_queue: an event that finds the queue full is dropped: the pointer is, not the memory. */
enum { QUEUE = 64 };
static struct {
  pthread_mutex_t lock;
  char *events[QUEUE]; /* by lock, as are the next two */
  size_t first, count;
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER};

ZOO_SITE char *make_event(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void *consume(void *rate) {
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, *(double *)rate); n > 0; n--) {
      char *event = NULL;
      pthread_mutex_lock(&queue.lock);
      if (queue.count > 0) {
        event = queue.events[queue.first];
        queue.first = (queue.first + 1) % QUEUE;
        queue.count--;
      }
      pthread_mutex_unlock(&queue.lock);
      free(event);
    }
  }
  return NULL;
}

static void produce(size_t bytes) {
  char *event = make_event(bytes);
  pthread_mutex_lock(&queue.lock);
  if (queue.count < QUEUE) queue.events[(queue.first + queue.count++) % QUEUE] = event;
  pthread_mutex_unlock(&queue.lock);
}

static void full_queue(void) {
  size_t bytes = zoo_bytes(500, 5000);
  double rate = zoo_uniform(250, 600) * ZOO_KIB / (double)bytes, consumed = rate * zoo_uniform(0.6, 0.85);
  pthread_t consumer;
  zoo_pace pace = {0};
  start(&consumer, consume, &consumed);
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) produce(bytes);
  }
  pthread_join(consumer, NULL);
  zoo_rest();
  while (queue.count > 0) {
    free(queue.events[queue.first]);
    queue.first = (queue.first + 1) % QUEUE;
    queue.count--;
  }
}

int main(int argc, char **argv) {
  static const zoo_scenario scenarios[] = {
      {"one_of_many", one_of_many}, {"leftover", leftover}, {"full_queue", full_queue}, {NULL, NULL}};
  return zoo_main(argc, argv, scenarios);
}
