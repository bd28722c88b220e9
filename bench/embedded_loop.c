// link: lupe-shared jemalloc uv
/* embedded_loop.c -- a program with a libuv loop of its own: how long lupe holds that.
 * usage: embedded_loop SECONDS lupe|bare [RULE_FILE]
 *
 * Every millisecond a timer does a little work. At the end of each turn of the loop: what did the turn take,
 * of that spent waiting for events (uv_metrics_idle_time), of that in the program's own callbacks? The rest
 * is libuv's and lupe's, and without lupe libuv's alone. It is told by the clock and by the thread's CPU
 * time: on a busy machine the first counts turns in which the thread had no core. With lupe it says first
 * where that answers. RULE_FILE is a rule that always has something new to say. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "bench/load.h"
#include "core/lupe.h"

const char *malloc_conf = "prof:true,prof_active:false,lg_prof_sample:16";

enum { WORK_BLOCKS = 64, WORK_BYTES = 512, RULE_BYTES_MAX = 64 * 1024 };

typedef struct moment {
  uint64_t wall_ns, idle_ns, cpu_ns;
} moment;

static struct {
  uint64_t own_wall_ns, own_cpu_ns; /* in callbacks of the program's, this turn */
  moment turn_began;
  unsigned long events, events_before;
  load_samples wall, cpu;             /* of all turns */
  load_samples event_wall, event_cpu; /* of those in which lupe called */
} measured;

static uint64_t cpu_now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static void on_event(void *arg, const lupe_event *event) {
  (void)arg;
  (void)event;
  measured.events++;
}

static void on_timer(uv_timer_t *timer) {
  (void)timer;
  uint64_t wall = load_now_ns(), cpu = cpu_now_ns();
  void *blocks[WORK_BLOCKS];
  for (int i = 0; i < WORK_BLOCKS; i++) {
    blocks[i] = malloc(WORK_BYTES);
    if (blocks[i] == NULL) load_fail("malloc");
    memset(blocks[i], i, WORK_BYTES);
  }
  for (int i = 0; i < WORK_BLOCKS; i++) free(blocks[i]);
  measured.own_cpu_ns += cpu_now_ns() - cpu;
  measured.own_wall_ns += load_now_ns() - wall;
}

static uint64_t rest(uint64_t whole, uint64_t parts) {
  return whole > parts ? whole - parts : 0;
}

static void on_turn(uv_check_t *check) {
  moment now = {
      .wall_ns = load_now_ns(), .idle_ns = uv_metrics_idle_time(check->loop), .cpu_ns = cpu_now_ns()};
  const moment *began = &measured.turn_began;
  uint64_t idle = now.idle_ns - began->idle_ns;
  uint64_t wall = rest(now.wall_ns - began->wall_ns, idle + measured.own_wall_ns);
  uint64_t cpu = rest(now.cpu_ns - began->cpu_ns, measured.own_cpu_ns);
  if (began->wall_ns != 0) {
    load_add(&measured.wall, wall);
    load_add(&measured.cpu, cpu);
    if (measured.events != measured.events_before) {
      load_add(&measured.event_wall, wall);
      load_add(&measured.event_cpu, cpu);
    }
  }
  measured.own_wall_ns = measured.own_cpu_ns = 0;
  measured.events_before = measured.events;
  now.cpu_ns = cpu_now_ns(); /* what the noting took is nobody's */
  now.wall_ns = load_now_ns();
  measured.turn_began = now;
}

static void on_end(uv_timer_t *timer) {
  uv_stop(timer->loop);
}

static void check(lupe_status status, const char *what) {
  if (status == LUPE_OK) return;
  fprintf(stderr, "embedded_loop: %s: %s\n", what, lupe_error());
  exit(1);
}

static void start_lupe(uv_loop_t *loop, const char *rule_path) {
  const char *settings[] = {"listen=127.0.0.1:0", "rate-reads=0", "rate-leak=0", NULL};
  lupe_options options = LUPE_OPTIONS_INIT;
  options.settings = settings;
  options.loop = loop;
  if (rule_path != NULL) {
    static char text[RULE_BYTES_MAX];
    FILE *file = fopen(rule_path, "r");
    if (file == NULL || fread(text, 1, sizeof text - 1, file) == 0) load_fail(rule_path);
    fclose(file);
    check(lupe_add_rule("restless.lua", text), "lupe_add_rule");
  }
  check(lupe_set_callback(on_event, NULL), "lupe_set_callback");
  check(lupe_start(&options), "lupe_start");
  char *about = NULL;
  check(lupe_about(&about), "lupe_about");
  puts(about);
  fflush(stdout);
  lupe_free(about);
}

static void print_samples(const char *name, load_samples *samples) {
  printf(",\"%s\":{", name);
  if (samples->count > 0) load_print(samples);
  putchar('}');
}

int main(int argc, char **argv) {
  if (argc < 3 || (strcmp(argv[2], "lupe") != 0 && strcmp(argv[2], "bare") != 0)) {
    fputs("usage: embedded_loop SECONDS lupe|bare [RULE_FILE]\n", stderr);
    return 2;
  }
  uv_loop_t loop;
  uv_timer_t work, end;
  uv_check_t turn;
  uv_loop_init(&loop);
  uv_loop_configure(&loop, UV_METRICS_IDLE_TIME);
  uv_timer_init(&loop, &work);
  uv_timer_init(&loop, &end);
  uv_check_init(&loop, &turn);
  bool with_lupe = strcmp(argv[2], "lupe") == 0;
  if (with_lupe) start_lupe(&loop, argc > 3 ? argv[3] : NULL);
  uv_timer_start(&work, on_timer, 1, 1);
  uv_timer_start(&end, on_end, (uint64_t)(strtod(argv[1], NULL) * 1000), 0);
  uv_check_start(&turn, on_turn);
  uv_run(&loop, UV_RUN_DEFAULT);
  if (with_lupe) check(lupe_stop(), "lupe_stop");

  uv_close((uv_handle_t *)&work, NULL);
  uv_close((uv_handle_t *)&end, NULL);
  uv_close((uv_handle_t *)&turn, NULL);
  uv_run(&loop, UV_RUN_DEFAULT);
  int left = uv_loop_close(&loop);
  printf("{\"events\":%lu,\"loop_closed\":%s", measured.events, left == 0 ? "true" : "false");
  print_samples("wall", &measured.wall);
  print_samples("cpu", &measured.cpu);
  print_samples("event_wall", &measured.event_wall);
  print_samples("event_cpu", &measured.event_cpu);
  puts("}");
  return 0;
}
