#include "core/store/connections.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/wire/channel.h"

enum {
  HELLO_WAIT_MS = 10000, /* a forked child says nothing for 0.1 s */
  SILENT_MAX = 256,      /* of one user */
};

struct lupe_connection {
  uv_poll_t poll;
  lupe_connection *next;
  lupe_connections *all;
  lupe_session *session; /* NULL once it is gone and only the handle is left to close */
  uint64_t since_ms;     /* of the loop's clock */
  bool rates_due;        /* it has not been told of the rates that hold now */
  bool exit_due;         /* nor whether it is to prove as it exits */
};

struct lupe_connections {
  uv_loop_t *loop;
  lupe_aggregator *aggregator;
  lupe_connections_options options;
  char *socket_path;
  int listen_fd;
  uv_poll_t listening;
  lupe_connection *first;
  uint64_t refused;
  bool deaf;                /* no new one could be taken in; the next look is at the next tending */
  lupe_agent_cost departed; /* of sessions that ended */
  uint32_t open_handles;
};

/* -- those that are there --------------------------------------------------------------------- */

lupe_session *lupe_connections_next(const lupe_connections *c, lupe_connection **at) {
  do *at = *at ? (*at)->next : c->first;
  while (*at && !(*at)->session);
  return *at ? (*at)->session : NULL;
}

lupe_session *lupe_connections_find(const lupe_connections *c, pid_t pid) {
  lupe_session *s;
  for (lupe_connection *k = NULL; (s = lupe_connections_next(c, &k));) {
    if (lupe_session_target(s) && lupe_session_pid(s) == pid) return s;
  }
  return NULL;
}

void lupe_connections_drain(lupe_connections *c) {
  lupe_session *s;
  for (lupe_connection *k = NULL; (s = lupe_connections_next(c, &k));) lupe_session_drain(s);
}

void lupe_connections_measure(lupe_connections *c, int32_t pid) {
  lupe_session *s;
  for (lupe_connection *k = NULL; (s = lupe_connections_next(c, &k));) {
    if (pid <= 0 || lupe_session_pid(s) == pid) lupe_session_measure(s);
  }
}

void lupe_connections_cost(const lupe_connections *c, lupe_agent_cost *out) {
  lupe_session *s;
  *out = c->departed;
  for (lupe_connection *k = NULL; (s = lupe_connections_next(c, &k));) lupe_session_add_cost(s, out);
}

uint64_t lupe_connections_refused(const lupe_connections *c) {
  return c->refused;
}

/* -- leaving ---------------------------------------------------------------------------------- */

static void on_listening_closed(uv_handle_t *handle) {
  lupe_connections *c = handle->data;
  c->open_handles--;
  c->options.events.idle(c->options.events.session.arg);
}

static void on_connection_closed(uv_handle_t *handle) {
  lupe_connection *k = handle->data;
  lupe_connections *c = k->all;
  lupe_connection **link = &c->first;
  while (*link != k) link = &(*link)->next;
  *link = k->next;
  free(k);
  c->open_handles--;
  c->options.events.idle(c->options.events.session.arg);
}

static void disconnect(lupe_connection *k) {
  lupe_connections *c = k->all;
  const lupe_connections_events *events = &c->options.events;
  if (!k->session) return;
  uv_poll_stop(&k->poll);
  lupe_session_drain(k->session);
  lupe_session_add_cost(k->session, &c->departed);
  c->departed.own_heap_bytes = 0; /* it went with its process */
  lupe_session *ended = k->session;
  k->session = NULL;
  events->leaving(events->session.arg, ended);
  lupe_session_free(ended);
  uv_close((uv_handle_t *)&k->poll, on_connection_closed);
  events->left(events->session.arg);
}

static void receive(lupe_connection *k) {
  if (k->session && lupe_session_receive(k->session) == LUPE_ENOENT) disconnect(k);
}

static void on_readable(uv_poll_t *poll, int status, int events) {
  (void)status, (void)events; /* an error shows again, with its reason, when reading */
  receive(poll->data);
}

/* -- coming ----------------------------------------------------------------------------------- */

/* The first one is told; whoever does it on purpose shall not fill the log. */
static void refuse(lupe_connections *c, pid_t pid, const char *why) {
  if (c->refused++ > 0) return;
  fprintf(stderr,
          "lupe: process %d could not be taken in: %s; further ones are only counted "
          "(lupe_refused_connections)\n",
          (int)pid, why);
}

static bool is_silent(const lupe_connection *k) {
  return k->session && !lupe_session_target(k->session);
}

/* Nobody but lupe's own user takes all descriptors by connecting. */
static bool has_too_many(const lupe_connections *c, uid_t uid) {
  size_t count = 0;
  if (uid == geteuid()) return false;
  for (const lupe_connection *k = c->first; k; k = k->next) {
    count += is_silent(k) && lupe_session_uid(k->session) == uid;
  }
  return count >= SILENT_MAX;
}

static void end_silent(lupe_connections *c) {
  uint64_t wait_ms = c->options.hello_wait_ms ? c->options.hello_wait_ms : HELLO_WAIT_MS;
  for (lupe_connection *k = c->first; k; k = k->next) {
    if (!is_silent(k) || uv_now(c->loop) - k->since_ms < wait_ms) continue;
    receive(k); /* it may have spoken while this process stood still */
    if (!is_silent(k)) continue;
    refuse(c, lupe_session_pid(k->session), "it has connected and says nothing");
    disconnect(k);
  }
}

static lupe_status adopt(lupe_connections *c, int fd) {
  lupe_connection *k = calloc(1, sizeof *k);
  if (!k) {
    close(fd);
    return LUPE_ENOMEM;
  }
  k->all = c;
  lupe_status status = lupe_session_create(&k->session, fd, c->aggregator, &c->options.welcome,
                                           c->options.events.session, &c->options.peers);
  if (status != LUPE_OK) {
    if (status == LUPE_EPERM) c->refused++;
    free(k);
    return status;
  }
  if (has_too_many(c, lupe_session_uid(k->session))) {
    refuse(c, lupe_session_pid(k->session), "its user has too many connections that say nothing");
    lupe_session_free(k->session);
    free(k);
    return LUPE_OK;
  }
  k->since_ms = uv_now(c->loop);
  uv_poll_init(c->loop, &k->poll, fd);
  k->poll.data = k;
  k->next = c->first;
  c->first = k;
  c->open_handles++;
  uv_poll_start(&k->poll, UV_READABLE, on_readable);
  return LUPE_OK;
}

static void accept_all(lupe_connections *c) {
  for (;;) {
    int fd;
    lupe_status status = lupe_channel_accept(c->listen_fd, &fd);
    if (status == LUPE_EAGAIN) {
      c->deaf = false;
      return;
    }
    if (status != LUPE_OK) { /* out of descriptors: it stays readable, and would take the whole loop */
      if (!c->deaf) {
        fprintf(stderr, "lupe: a process could not be taken in, and may end unprofiled: %s\n",
                strerror(errno));
      }
      c->deaf = true;
      return;
    }
    status = adopt(c, fd);
    if (status != LUPE_OK) {
      fprintf(stderr, "lupe: a process could not be taken in: %s\n", lupe_status_text(status));
    }
  }
}

static void on_connecting(uv_poll_t *poll, int status, int events) {
  (void)status, (void)events;
  lupe_connections *c = poll->data;
  accept_all(c);
  if (c->deaf) uv_poll_stop(&c->listening);
}

static void listen_again(lupe_connections *c) {
  accept_all(c);
  if (!c->deaf) uv_poll_start(&c->listening, UV_READABLE, on_connecting);
}

void lupe_connections_receive(lupe_connections *c) {
  accept_all(c);
  for (lupe_connection *k = c->first; k; k = k->next) receive(k);
}

/* -- what agents are told --------------------------------------------------------------------- */

static void tell_rates(const lupe_connections *c) {
  for (lupe_connection *k = c->first; k; k = k->next) {
    if (!k->session || !k->rates_due) continue;
    const lupe_welcome *w = &c->options.welcome;
    lupe_status status = lupe_session_set_rates(k->session, w->cpu_hz, w->wall_hz);
    k->rates_due = status == LUPE_EAGAIN; /* anything else: it is gone, as reading will show */
  }
}

void lupe_connections_set_rates(lupe_connections *c, uint32_t cpu_hz, uint32_t wall_hz) {
  lupe_welcome *w = &c->options.welcome;
  if (w->cpu_hz == cpu_hz && w->wall_hz == wall_hz) return;
  w->cpu_hz = cpu_hz;
  w->wall_hz = wall_hz;
  lupe_aggregator_set_rates(c->aggregator, cpu_hz, wall_hz, lupe_unix_ms());
  for (lupe_connection *k = c->first; k; k = k->next) k->rates_due = true;
  tell_rates(c);
}

static void tell_exits(const lupe_connections *c) {
  for (lupe_connection *k = c->first; k; k = k->next) {
    if (!k->session || !k->exit_due) continue;
    const lupe_welcome *w = &c->options.welcome;
    k->exit_due =
        lupe_session_set_proof_at_exit(k->session, w->proof_at_exit ? &w->proof : NULL) == LUPE_EAGAIN;
  }
}

void lupe_connections_set_proof_at_exit(lupe_connections *c, const lupe_proof_limits *limits) {
  c->options.welcome.proof_at_exit = limits != NULL;
  c->options.welcome.proof = limits ? *limits : (lupe_proof_limits){0};
  for (lupe_connection *k = c->first; k; k = k->next) k->exit_due = true;
  tell_exits(c);
}

void lupe_connections_tend(lupe_connections *c) {
  if (c->deaf) listen_again(c);
  end_silent(c);
  lupe_connections_drain(c);
  tell_rates(c);
  tell_exits(c);
}

/* -- life ------------------------------------------------------------------------------------- */

lupe_status lupe_connections_create(lupe_connections **out, uv_loop_t *loop, lupe_aggregator *a,
                                    const lupe_connections_options *options) {
  lupe_connections *c = calloc(1, sizeof *c);
  if (!c) return LUPE_ENOMEM;
  lupe_status status = LUPE_ENOMEM;
  c->loop = loop;
  c->aggregator = a;
  c->options = *options;
  c->socket_path = strdup(options->socket_path);
  if (!c->socket_path) goto no_path;
  status = lupe_channel_listen(c->socket_path, &c->listen_fd);
  if (status != LUPE_OK) goto no_socket;
  *out = c;
  return LUPE_OK;

no_socket:
  free(c->socket_path);
no_path:
  free(c);
  return status;
}

void lupe_connections_start(lupe_connections *c) {
  uv_poll_init(c->loop, &c->listening, c->listen_fd);
  c->listening.data = c;
  c->open_handles++;
  uv_poll_start(&c->listening, UV_READABLE, on_connecting);
}

void lupe_connections_close(lupe_connections *c) {
  for (lupe_connection *k = c->first; k; k = k->next) disconnect(k);
  uv_close((uv_handle_t *)&c->listening, on_listening_closed);
}

bool lupe_connections_idle(const lupe_connections *c) {
  return c->open_handles == 0;
}

void lupe_connections_free(lupe_connections *c) {
  if (!c) return;
  unlink(c->socket_path);
  close(c->listen_fd);
  free(c->socket_path);
  free(c);
}
