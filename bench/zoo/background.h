/* background.h -- what every program of the zoo does beside its subject: honest work at sites that live and
 * die. Six kinds of it, of which the seed takes four or five, with sizes and rates of its own. Each has a
 * bounded number of live blocks, reached within the first seconds. Included once, by the program itself. */
#ifndef LUPE_BENCH_ZOO_BACKGROUND_H
#define LUPE_BENCH_ZOO_BACKGROUND_H

#include "zoo.h"

enum { ZOO_LOG_LINES = 256, ZOO_RESULTS = 1024, ZOO_NODES = 1500 };

static struct {
  bool chosen, requests, connections, log, documents, results, scratch;
  double request_rate, connection_rate, connection_seconds, log_rate, document_period, document_at,
      result_rate;
  size_t request_bytes, connection_bytes, result_bytes, node_bytes, node_count, scratch_most;
  zoo_pace request_pace, connection_pace, log_pace, result_pace, scratch_pace;
  zoo_bag in_flight;
  char *log_lines[ZOO_LOG_LINES], *result_slots[ZOO_RESULTS], *scratch_bytes, *settings;
  size_t log_next, result_slots_used;
} zoo_beside;

ZOO_SITE char *receive_request(size_t bytes) {
  return (char *)zoo_used(malloc(bytes), bytes);
}
ZOO_SITE char *open_connection(size_t bytes) {
  return (char *)zoo_used(calloc(1, bytes), bytes);
}
ZOO_SITE char *load_settings(size_t bytes) {
  return (char *)zoo_used(malloc(bytes), bytes);
}
ZOO_SITE char *keep_result(size_t bytes) {
  return (char *)zoo_used(malloc(bytes), bytes);
}
ZOO_SITE char *format_log_line(size_t bytes) {
  return (char *)zoo_used(malloc(bytes), bytes);
}
ZOO_SITE void *parse_node(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}
ZOO_SITE char *size_scratch(char *old, size_t bytes) {
  return (char *)zoo_used(realloc(old, bytes), bytes);
}

static void zoo_choose_background(void) {
  long left_out = zoo_between(0, 8);
  zoo_beside.requests = left_out != 0;
  zoo_beside.connections = left_out != 1;
  zoo_beside.log = left_out != 2 && left_out != 6;
  zoo_beside.documents = left_out != 3 && left_out != 7;
  zoo_beside.results = left_out != 4 && left_out != 6;
  zoo_beside.scratch = left_out != 5 && left_out != 8;
  zoo_beside.request_rate = zoo_uniform(20, 150);
  zoo_beside.request_bytes = zoo_bytes(1000, 12000);
  zoo_beside.connection_rate = zoo_uniform(5, 40);
  zoo_beside.connection_seconds = zoo_uniform(0.5, 3);
  zoo_beside.connection_bytes = zoo_bytes(2000, 9000);
  zoo_beside.log_rate = zoo_uniform(50, 200);
  zoo_beside.result_rate = zoo_uniform(200, 500); /* all slots are taken within 2 to 5 s */
  zoo_beside.result_bytes = zoo_bytes(300, 3000);
  zoo_beside.document_period = zoo_uniform(1.5, 5);
  zoo_beside.node_bytes = zoo_bytes(48, 700);
  zoo_beside.node_count = zoo_bytes(200, ZOO_NODES);
  zoo_beside.scratch_most = zoo_bytes(50 * ZOO_KIB, 500 * ZOO_KIB);
  size_t bytes = zoo_bytes(200 * ZOO_KIB, 3 * ZOO_MIB);
  zoo_beside.settings = load_settings(bytes);
  zoo_kept(&zoo_beside);
  zoo_beside.chosen = true;
}

/* A document is read, looked at and thrown away within one tick. */
static void zoo_read_document(void) {
  static void *nodes[ZOO_NODES];
  for (size_t i = 0; i < zoo_beside.node_count; i++) nodes[i] = parse_node(zoo_beside.node_bytes);
  for (size_t i = 0; i < zoo_beside.node_count; i++) free(nodes[i]);
  memset(nodes, 0, sizeof nodes);
  zoo_kept(nodes);
}

static void zoo_write_log(void) {
  for (long n = zoo_due(&zoo_beside.log_pace, zoo_beside.log_rate); n > 0; n--) {
    char **line = &zoo_beside.log_lines[zoo_beside.log_next++ % ZOO_LOG_LINES];
    free(*line);
    *line = format_log_line(zoo_bytes(60, 400));
  }
}

static void zoo_keep_results(void) {
  for (long n = zoo_due(&zoo_beside.result_pace, zoo_beside.result_rate); n > 0; n--) {
    size_t used = zoo_beside.result_slots_used;
    char **slot = &zoo_beside.result_slots[used < ZOO_RESULTS ? used : zoo_bytes(0, ZOO_RESULTS - 1)];
    if (used < ZOO_RESULTS) zoo_beside.result_slots_used++;
    free(*slot);
    *slot = keep_result(zoo_beside.result_bytes);
  }
}

/* One tick of it. */
static void zoo_background(void) {
  if (!zoo_beside.chosen) zoo_choose_background();
  double now = zoo_elapsed();
  zoo_bag_sweep(&zoo_beside.in_flight, now);
  if (zoo_beside.requests) {
    for (long n = zoo_due(&zoo_beside.request_pace, zoo_beside.request_rate); n > 0; n--) {
      zoo_bag_add(&zoo_beside.in_flight, receive_request(zoo_bytes(200, zoo_beside.request_bytes)),
                  now + zoo_exponential(0.05));
    }
  }
  if (zoo_beside.connections) {
    for (long n = zoo_due(&zoo_beside.connection_pace, zoo_beside.connection_rate); n > 0; n--) {
      zoo_bag_add(&zoo_beside.in_flight, open_connection(zoo_beside.connection_bytes),
                  now + zoo_exponential(zoo_beside.connection_seconds));
    }
  }
  if (zoo_beside.log) zoo_write_log();
  if (zoo_beside.results) zoo_keep_results();
  if (zoo_beside.documents && now >= zoo_beside.document_at) {
    zoo_read_document();
    zoo_beside.document_at = now + zoo_beside.document_period * zoo_uniform(0.7, 1.3);
  }
  if (zoo_beside.scratch && zoo_due(&zoo_beside.scratch_pace, 3) > 0) {
    zoo_beside.scratch_bytes =
        size_scratch(zoo_beside.scratch_bytes, zoo_bytes(ZOO_PAGE, zoo_beside.scratch_most));
  }
}

#endif
