// link: m pthread
/* growing.c -- memory that grows without end and is reachable all the while. */
#include <pthread.h>

#include "background.h"

/* cache: a hash table from questions to answers; questions never repeat enough, and nothing is evicted. */
typedef struct answer {
  struct answer *next;
  uint64_t question;
  char text[];
} answer;

enum { BUCKETS = 4096 };
static answer *cache[BUCKETS];

ZOO_SITE answer *cache_answer(uint64_t question, size_t bytes) {
  answer *a = zoo_used(malloc(sizeof *a + bytes), sizeof *a + bytes);
  a->question = question;
  a->next = cache[question % BUCKETS];
  cache[question % BUCKETS] = a;
  return a;
}

static answer *find_answer(uint64_t question, size_t bytes) {
  for (answer *a = cache[question % BUCKETS]; a; a = a->next) {
    if (a->question == question) return a;
  }
  return cache_answer(question, bytes);
}

static void unbounded_cache(void) {
  size_t bytes = zoo_bytes(300, 3000);
  double rate = zoo_uniform(60, 250) * ZOO_KIB / (double)bytes;
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      find_answer(zoo_random() >> 24, bytes); /* new */
      find_answer(7, bytes);                  /* known */
    }
  }
}

/* audit: entries are appended to a list that nobody empties. */
typedef struct entry {
  struct entry *next;
  char text[];
} entry;

ZOO_SITE entry *append_audit_entry(size_t bytes) {
  entry *e = zoo_used(malloc(sizeof *e + bytes), sizeof *e + bytes);
  e->next = NULL;
  return e;
}

static entry *first_entry, **last_entry = &first_entry;

static void audit(void) {
  size_t bytes = zoo_bytes(80, 600);
  double rate = zoo_uniform(40, 200) * ZOO_KIB / (double)bytes;
  zoo_pace pace = {0};
  while (zoo_tick()) {
    zoo_kept(&first_entry);
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      *last_entry = append_audit_entry(bytes);
      last_entry = &(*last_entry)->next;
    }
  }
}

/* transcript: one array that realloc makes longer, in steps of one size. */
ZOO_SITE char *extend_transcript(char *text, size_t bytes) {
  return zoo_used(realloc(text, bytes), bytes);
}

static void transcript(void) {
  static char *text;
  size_t step = zoo_bytes(8 * ZOO_KIB, 64 * ZOO_KIB), bytes = 0;
  double rate = zoo_uniform(60, 250) * ZOO_KIB / (double)step;
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) text = extend_transcript(text, bytes += step);
  }
}

/* lagging_queue: what is posted waits for a thread that is a little too slow. */
typedef struct job {
  struct job *next;
  char payload[];
} job;

static struct {
  pthread_mutex_t lock;
  job *first, **last; /* by lock */
} jobs = {.lock = PTHREAD_MUTEX_INITIALIZER};

ZOO_SITE void post_job(size_t bytes) {
  job *j = zoo_used(malloc(sizeof *j + bytes), sizeof *j + bytes);
  j->next = NULL;
  pthread_mutex_lock(&jobs.lock);
  if (jobs.first == NULL) jobs.last = &jobs.first;
  *jobs.last = j;
  jobs.last = &j->next;
  pthread_mutex_unlock(&jobs.lock);
}

static void *do_jobs(void *rate) {
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, *(double *)rate); n > 0; n--) {
      pthread_mutex_lock(&jobs.lock);
      job *j = jobs.first;
      if (j != NULL) jobs.first = j->next;
      pthread_mutex_unlock(&jobs.lock);
      free(j);
    }
  }
  return NULL;
}

static void lagging_queue(void) {
  size_t bytes = zoo_bytes(300, 4000);
  double rate = zoo_uniform(200, 500) * ZOO_KIB / (double)bytes, done = rate * zoo_uniform(0.4, 0.75);
  pthread_t thread;
  zoo_pace pace = {0};
  if (pthread_create(&thread, NULL, do_jobs, &done) != 0) abort();
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) post_job(bytes);
  }
  pthread_join(thread, NULL);
}

int main(int argc, char **argv) {
  static const zoo_scenario scenarios[] = {{"cache", unbounded_cache},
                                           {"audit", audit},
                                           {"transcript", transcript},
                                           {"lagging_queue", lagging_queue},
                                           {NULL, NULL}};
  return zoo_main(argc, argv, scenarios);
}
