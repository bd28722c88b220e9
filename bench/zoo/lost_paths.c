// link: m
/* lost_paths.c -- memory that one path through the code loses, while others through the same code free it. */
#include <search.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "background.h"

/* error: a frame that fails its checksum is returned from too early. */
ZOO_SITE char *decode_frame(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void error_path(void) {
  static zoo_bag decoded;
  size_t bytes = zoo_bytes(1000, 8000);
  double rate = zoo_uniform(500, 1200) * ZOO_KIB / (double)bytes, bad = zoo_uniform(0.06, 0.14);
  double held = zoo_uniform(0.05, 1.5);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    double now = zoo_elapsed();
    zoo_bag_sweep(&decoded, now);
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      char *frame = decode_frame(bytes);
      if (zoo_chance(bad)) continue;
      zoo_bag_add(&decoded, frame, now + held);
    }
  }
  zoo_rest();
  zoo_bag_empty(&decoded);
}

/* nth: one reply in 20 to 50 is lost, with no error anywhere. */
ZOO_SITE char *make_reply(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void every_nth(void) {
  static zoo_bag sent;
  size_t bytes = zoo_bytes(500, 6000);
  double rate = zoo_uniform(1000, 2000) * ZOO_KIB / (double)bytes;
  long every = zoo_between(20, 50), serial = 0;
  zoo_pace pace = {0};
  while (zoo_tick()) {
    double now = zoo_elapsed();
    zoo_bag_sweep(&sent, now);
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      char *reply = make_reply(bytes);
      if (++serial % every != 0) zoo_bag_add(&sent, reply, now + zoo_exponential(0.2));
    }
  }
  zoo_rest();
  zoo_bag_empty(&sent);
}

/* known_wrapper: everything is allocated by xmalloc; headers are lost, bodies are not. */
ZOO_SITE void *xmalloc(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}
ZOO_SITE char *parse_header(size_t bytes) {
  char *header = xmalloc(bytes);
  header[0] = 'h';
  return header;
}
ZOO_SITE char *parse_body(size_t bytes) {
  char *body = xmalloc(bytes);
  body[0] = 'b';
  return body;
}

/* private_wrapper: the same behind a helper that only this program knows. */
ZOO_SITE void *allocate_or_die(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}
ZOO_SITE char *build_query(size_t bytes) {
  char *query = allocate_or_die(bytes);
  query[0] = 'q';
  return query;
}
ZOO_SITE char *build_answer(size_t bytes) {
  char *answer = allocate_or_die(bytes);
  answer[0] = 'a';
  return answer;
}

static void behind_wrapper(char *(*lost)(size_t), char *(*freed)(size_t)) {
  static zoo_bag live;
  size_t lost_bytes = zoo_bytes(100, 1500), freed_bytes = zoo_bytes(1000, 8000);
  double lost_rate = zoo_uniform(40, 200) * ZOO_KIB / (double)lost_bytes;
  double freed_rate = zoo_uniform(50, 400) * ZOO_KIB / (double)freed_bytes, held = zoo_uniform(0.1, 2);
  zoo_pace losing = {0}, freeing = {0};
  while (zoo_tick()) {
    double now = zoo_elapsed();
    zoo_bag_sweep(&live, now);
    for (long n = zoo_due(&losing, lost_rate); n > 0; n--) lost(lost_bytes);
    for (long n = zoo_due(&freeing, freed_rate); n > 0; n--) {
      zoo_bag_add(&live, freed(freed_bytes), now + zoo_exponential(held));
    }
  }
  zoo_rest();
  zoo_bag_empty(&live);
}

static void known_wrapper(void) {
  behind_wrapper(parse_header, parse_body);
}
static void private_wrapper(void) {
  behind_wrapper(build_query, build_answer);
}

/* callback: libc walks a tree and calls back; what the callback makes of a node is lost. */
static size_t match_bytes;
static char *last_match;

ZOO_SITE void collect_match(const void *node, VISIT visit, int depth) {
  if (visit != postorder && visit != leaf) return;
  last_match = zoo_used(malloc(match_bytes + (size_t)depth), match_bytes);
  last_match[0] = **(const char *const *)node;
}

static int by_text(const void *a, const void *b) {
  return strcmp(a, b);
}

static void callback(void) {
  enum { NODES = 32 };
  static char texts[NODES][8];
  static void *root;
  for (int i = 0; i < NODES; i++) {
    snprintf(texts[i], sizeof texts[i], "%03d", (i * 13) % NODES);
    tsearch(texts[i], &root, by_text);
  }
  match_bytes = zoo_bytes(100, 1000);
  double rate = zoo_uniform(50, 250) * ZOO_KIB / (double)(NODES * match_bytes);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) twalk(root, collect_match);
  }
}

/* session_table: a session that logs out is freed, and with it the rest of its chain falls out of the table.
 */
typedef struct session {
  struct session *next;
  unsigned user;
  char notes[];
} session;

ZOO_SITE session *create_session(unsigned user, size_t bytes) {
  session *s = zoo_used(malloc(sizeof *s + bytes), sizeof *s + bytes);
  s->user = user;
  s->next = NULL;
  return s;
}

static void session_table(void) {
  enum { BUCKETS = 256 };
  static session *buckets[BUCKETS];
  size_t bytes = zoo_bytes(300, 2500);
  double rate = zoo_uniform(100, 350) * ZOO_KIB / (double)bytes;
  unsigned user = 0;
  size_t live = 0, most = zoo_bytes(300, 700);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      session *s = create_session(++user, bytes), **bucket = &buckets[zoo_random() % BUCKETS];
      s->next = *bucket;
      *bucket = s;
      live++;
      while (live > most) {
        session **out = &buckets[zoo_random() % BUCKETS];
        if (*out == NULL) continue;
        for (session *rest = (*out)->next; rest; rest = rest->next) live--; /* as far as the table knows */
        live--;
        free(*out);
        *out = NULL;
      }
    }
  }
  zoo_rest();
  for (int i = 0; i < BUCKETS; i++) {
    while (buckets[i]) {
      session *s = buckets[i];
      buckets[i] = s->next;
      free(s);
    }
  }
}

/* fork_worker: the parent is sound, and one of its workers loses what it was asked. */
ZOO_SITE char *serve_job(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void work(bool loses, size_t bytes, double rate) {
  static zoo_bag jobs;
  zoo_pace pace = {0};
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  while (zoo_tick()) {
    double now = zoo_elapsed();
    zoo_bag_sweep(&jobs, now);
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      char *job = serve_job(bytes);
      if (!loses) zoo_bag_add(&jobs, job, now + zoo_exponential(0.3));
    }
  }
  if (loses) zoo_rest();
}

static void fork_worker(void) {
  enum { WORKERS = 2 };
  size_t bytes = zoo_bytes(400, 4000);
  double rate = zoo_uniform(60, 250) * ZOO_KIB / (double)bytes;
  for (int i = 0; i < WORKERS; i++) {
    pid_t pid = fork();
    if (pid < 0) abort();
    if (pid == 0) {
      work(i == 0, bytes, rate);
      _exit(0);
    }
  }
  while (zoo_tick()) {
  }
  while (wait(NULL) > 0) {
  }
}

int main(int argc, char **argv) {
  static const zoo_scenario scenarios[] = {
      {"error", error_path},
      {"nth", every_nth},
      {"known_wrapper", known_wrapper},
      {"private_wrapper", private_wrapper},
      {"callback", callback},
      {"session_table", session_table},
      {"fork_worker", fork_worker},
      {NULL, NULL},
  };
  return zoo_main(argc, argv, scenarios);
}
