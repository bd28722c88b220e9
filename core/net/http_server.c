#include "core/net/http_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "core/net/listener.h"

enum {
  DRAIN_BYTES =
      1024 * 1024, /* a body too large is read up to here, so that the client gets to read the 413 */
  DESCRIPTORS_FOR_OTHERS = 128, /* kept free of connections */
  MIN_CONNECTIONS = 16
};

/* The public part comes first: the handler's pointer is the request's. */
typedef struct request {
  lupe_http_request public;
  lupe_http_server *server;          /* NULL: the connection is gone */
  struct MHD_Connection *connection; /* NULL: likewise */
  struct MHD_Response *response;     /* set by the answer, until MHD has it */
  unsigned status;
  char *method, *target, *body;
  size_t capacity, received; /* of the body */
  char peer[INET6_ADDRSTRLEN];
  bool started;     /* its headers were seen */
  bool kept;        /* the handler has it and has not answered */
  bool dispatching; /* the handler is running */
  bool suspended;
  struct request *previous, *next; /* in server->requests while there is a connection */
} request;

struct lupe_http_server {
  struct MHD_Daemon *daemon;
  uv_poll_t poll;
  uv_timer_t timer;
  int open_handles;
  lupe_http_handler handler; /* NULL: closing */
  void *arg;
  request *requests;
  bool running; /* inside MHD_run */
  bool kicked;  /* a connection was resumed or has closed: run again at once */
  uint16_t port;
  lupe_http_counters counters;
};

static void free_request(request *r) {
  if (r->response) MHD_destroy_response(r->response);
  free(r->method);
  free(r->target);
  free(r->body);
  free(r);
}

static void write_peer(struct MHD_Connection *connection, char *out, size_t bytes) {
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  const struct sockaddr *address = info ? info->client_addr : NULL;
  const void *number = NULL;
  if (address && address->sa_family == AF_INET) number = &((const struct sockaddr_in *)address)->sin_addr;
  if (address && address->sa_family == AF_INET6) number = &((const struct sockaddr_in6 *)address)->sin6_addr;
  if (!number || !inet_ntop(address->sa_family, number, out, (socklen_t)bytes)) out[0] = '\0';
}

/* The request line was read. MHD hands what is returned to on_access and, in any case, to on_completed. */
static void *on_request_line(void *arg, const char *uri, struct MHD_Connection *connection) {
  lupe_http_server *s = arg;
  request *r = calloc(1, sizeof *r);
  if (!r) return NULL;
  r->target = strdup(uri);
  if (!r->target) {
    free(r);
    return NULL;
  }
  char *mark = strchr(r->target, '?');
  if (mark) *mark = '\0';
  r->public.path = r->target;
  r->public.query = mark ? mark + 1 : "";
  r->public.method = r->public.body = "";
  write_peer(connection, r->peer, sizeof r->peer);
  r->public.peer = r->peer;
  r->server = s;
  r->connection = connection;
  r->next = s->requests;
  if (r->next) r->next->previous = r;
  s->requests = r;
  return r;
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code) {
  lupe_http_server *s = arg;
  request *r = *context;
  (void)connection;
  *context = NULL;
  if (!r) return;
  if (code != MHD_REQUEST_TERMINATED_COMPLETED_OK && r->started) s->counters.aborted++;
  if (r->previous) {
    r->previous->next = r->next;
  } else {
    s->requests = r->next;
  }
  if (r->next) r->next->previous = r->previous;
  if (r->kept) {
    s->counters.pending--;
    r->server = NULL;
    r->connection = NULL;
  } else {
    free_request(r);
  }
}

static enum MHD_Result send_answer(request *r) {
  enum MHD_Result queued = MHD_queue_response(r->connection, r->status, r->response);
  MHD_destroy_response(r->response);
  r->response = NULL;
  return queued;
}

static enum MHD_Result dispatch(lupe_http_server *s, request *r, bool may_wait) {
  if (r->received > LUPE_HTTP_BODY_BYTES) r->public.too_large = true;
  if (!r->public.too_large && r->body) {
    r->body[r->received] = '\0';
    r->public.body = r->body;
    r->public.body_bytes = r->received;
  }
  r->kept = r->dispatching = true;
  s->counters.requests++;
  s->counters.pending++;
  s->handler(s->arg, &r->public);
  r->dispatching = false;
  if (r->response) return send_answer(r);
  if (!may_wait) return MHD_NO;
  r->suspended = true;
  MHD_suspend_connection(r->connection);
  return MHD_YES;
}

/* Returns false where memory is out. Past the bound only the count goes on. */
static bool keep_body(request *r, const char *bytes, size_t count) {
  size_t total = r->received + count;
  if (total <= LUPE_HTTP_BODY_BYTES) {
    if (total + 1 > r->capacity) {
      size_t capacity = r->capacity ? r->capacity : 1024;
      while (capacity < total + 1) capacity *= 2;
      char *grown = realloc(r->body, capacity);
      if (!grown) return false;
      r->body = grown;
      r->capacity = capacity;
    }
    memcpy(r->body + r->received, bytes, count);
  }
  r->received = total;
  return true;
}

/* MHD calls this when the headers are there, for every piece of the body, when all is there, and again after
 * a resume. MHD_NO cuts the connection. */
static enum MHD_Result on_access(void *arg, struct MHD_Connection *connection, const char *url,
                                 const char *method, const char *version, const char *upload,
                                 size_t *upload_bytes, void **context) {
  lupe_http_server *s = arg;
  request *r = *context;
  (void)url;
  (void)version;
  if (!r || !s->handler) return MHD_NO;
  if (r->response) return send_answer(r);
  if (!r->started) {
    r->started = true;
    r->method = strdup(method);
    if (!r->method) return MHD_NO;
    r->public.method = r->method;
    const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
    if (length && strtoull(length, NULL, 10) > DRAIN_BYTES) {
      r->public.too_large = true;
      return dispatch(s, r, false); /* MHD can't wait here: it would go on to read the body */
    }
    return MHD_YES;
  }
  if (*upload_bytes > 0) {
    if (!keep_body(r, upload, *upload_bytes) || r->received > DRAIN_BYTES) return MHD_NO;
    *upload_bytes = 0;
    return MHD_YES;
  }
  return dispatch(s, r, true);
}

/* At its limit MHD takes the listener out of the epoll set, and puts it back at the beginning of the next run
 * only, which it asks for by no timeout. Where the last connections close in one run nothing would ever cause
 * another. */
static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code) {
  lupe_http_server *s = arg;
  (void)connection;
  (void)context;
  if (code == MHD_CONNECTION_NOTIFY_CLOSED) s->kicked = true;
}

static void on_timer(uv_timer_t *timer);

static void run(lupe_http_server *s) {
  s->running = true;
  s->kicked = false;
  MHD_run(s->daemon);
  s->running = false;
  MHD_UNSIGNED_LONG_LONG timeout_ms = 0;
  if (s->kicked || !s->handler) {
    uv_timer_start(&s->timer, on_timer, 0, 0);
  } else if (MHD_get_timeout(s->daemon, &timeout_ms) == MHD_YES) {
    uv_timer_start(&s->timer, on_timer, timeout_ms, 0);
  } else {
    uv_timer_stop(&s->timer);
  }
}

static void on_handle_closed(uv_handle_t *handle) {
  lupe_http_server *s = handle->data;
  if (--s->open_handles == 0) free(s);
}

static void shut_down(lupe_http_server *s) {
  /* MHD must not be stopped with suspended connections; on_access cuts them off when they are resumed. */
  bool resumed = false;
  for (request *r = s->requests; r; r = r->next) {
    if (!r->suspended) continue;
    r->suspended = false;
    MHD_resume_connection(r->connection);
    resumed = true;
  }
  if (resumed) MHD_run(s->daemon);
  uv_close((uv_handle_t *)&s->poll, on_handle_closed); /* before its descriptor goes */
  uv_close((uv_handle_t *)&s->timer, on_handle_closed);
  MHD_stop_daemon(s->daemon);
}

static void on_timer(uv_timer_t *timer) {
  lupe_http_server *s = timer->data;
  if (s->handler) {
    run(s);
  } else {
    shut_down(s);
  }
}

static void on_readable(uv_poll_t *poll, int status, int events) {
  (void)status; /* an error of the epoll descriptor shows up in MHD_run */
  (void)events;
  lupe_http_server *s = poll->data;
  if (s->handler) run(s);
}

static unsigned connection_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return LUPE_HTTP_CONNECTIONS;
  if (limit.rlim_cur >= LUPE_HTTP_CONNECTIONS + DESCRIPTORS_FOR_OTHERS) return LUPE_HTTP_CONNECTIONS;
  if (limit.rlim_cur <= MIN_CONNECTIONS + DESCRIPTORS_FOR_OTHERS) return MIN_CONNECTIONS;
  return (unsigned)limit.rlim_cur - DESCRIPTORS_FOR_OTHERS;
}

lupe_status lupe_http_server_create(lupe_http_server **out, uv_loop_t *loop, const char *host, uint16_t port,
                                    lupe_http_handler handler, void *arg) {
  if (!host || !handler) return LUPE_EINVAL;
  lupe_http_server *s = calloc(1, sizeof *s);
  if (!s) return LUPE_ENOMEM;
  int listener;
  lupe_status status = lupe__listen(host, port, &listener, &s->port);
  if (status != LUPE_OK) goto fail_listen;
  s->handler = handler;
  s->arg = arg;
  status = LUPE_EIO;
  s->daemon = MHD_start_daemon(
      MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_access, s, MHD_OPTION_LISTEN_SOCKET,
      listener, MHD_OPTION_CONNECTION_LIMIT, connection_limit(), MHD_OPTION_CONNECTION_TIMEOUT,
      (unsigned)LUPE_HTTP_TIMEOUT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)LUPE_HTTP_CONNECTION_BYTES,
      MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_URI_LOG_CALLBACK, on_request_line, s,
      MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
      MHD_OPTION_END);
  if (!s->daemon) goto fail_daemon;
  const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);
  if (!info || uv_poll_init(loop, &s->poll, info->epoll_fd) != 0) goto fail_poll;
  uv_timer_init(loop, &s->timer);
  s->poll.data = s->timer.data = s;
  s->open_handles = 2;
  uv_poll_start(&s->poll, UV_READABLE, on_readable);
  *out = s;
  return LUPE_OK;

fail_poll:
  MHD_stop_daemon(s->daemon); /* closes the listener too */
  free(s);
  return status;
fail_daemon:
  close(listener);
fail_listen:
  free(s);
  return status;
}

uint16_t lupe_http_server_port(const lupe_http_server *s) {
  return s->port;
}

void lupe_http_server_counters(const lupe_http_server *s, lupe_http_counters *out) {
  *out = s->counters;
}

void lupe_http_server_close(lupe_http_server *s) {
  if (!s || !s->handler) return;
  s->handler = NULL;
  if (!s->running) shut_down(s); /* else run() starts the timer, which does it */
}

const char *lupe_http_request_header(const lupe_http_request *r, const char *name) {
  struct MHD_Connection *connection = ((const request *)r)->connection;
  return connection ? MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name) : NULL;
}

typedef struct each_header {
  void (*each)(void *arg, const char *name, const char *value);
  void *arg;
} each_header;

static enum MHD_Result on_header(void *arg, enum MHD_ValueKind kind, const char *name, const char *value) {
  const each_header *e = arg;
  (void)kind;
  e->each(e->arg, name, value ? value : "");
  return MHD_YES;
}

void lupe_http_request_headers(const lupe_http_request *r,
                               void (*each)(void *arg, const char *name, const char *value), void *arg) {
  struct MHD_Connection *connection = ((const request *)r)->connection;
  each_header e = {each, arg};
  if (connection) MHD_get_connection_values(connection, MHD_HEADER_KIND, on_header, &e);
}

static bool is_header_name(const char *name) {
  static const char allowed[] =
      "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  return name && *name && name[strspn(name, allowed)] == '\0';
}

static bool is_header_value(const char *value) {
  if (!value) return false;
  for (; *value; value++) {
    if ((unsigned char)*value < 0x20 || *value == 0x7f) return false;
  }
  return true;
}

/* Takes over `response` in any case. */
static lupe_status answer(request *r, int status, const lupe_http_header *headers, size_t header_count,
                          struct MHD_Response *response) {
  if (!response) return LUPE_ENOMEM;
  for (size_t i = 0; i < header_count; i++) {
    if (MHD_add_response_header(response, headers[i].name, headers[i].value) != MHD_YES) {
      MHD_destroy_response(response);
      return LUPE_EINVAL;
    }
  }
  r->response = response;
  r->status = (unsigned)status;
  r->kept = false;
  if (!r->connection) {
    free_request(r);
    return LUPE_OK;
  }
  lupe_http_server *s = r->server;
  s->counters.pending--;
  s->counters.responses++;
  if (r->dispatching) return LUPE_OK; /* dispatch() goes on from here */
  r->suspended = false;
  MHD_resume_connection(r->connection);
  s->kicked = true;
  if (!s->running) uv_timer_start(&s->timer, on_timer, 0, 0);
  return LUPE_OK;
}

static bool can_be_sent(int status, const lupe_http_header *headers, size_t header_count) {
  if (status < 200 || status > 599) return false;
  for (size_t i = 0; i < header_count; i++) {
    if (!is_header_name(headers[i].name) || !is_header_value(headers[i].value)) return false;
  }
  return true;
}

lupe_status lupe_http_respond(lupe_http_request *r, int status, const lupe_http_header *headers,
                              size_t header_count, const void *body, size_t bytes) {
  if (!can_be_sent(status, headers, header_count)) return LUPE_EINVAL;
  /* MHD only reads the buffer: it is copied. */
  return answer((request *)r, status, headers, header_count,
                MHD_create_response_from_buffer(bytes, (void *)body, MHD_RESPMEM_MUST_COPY));
}

lupe_status lupe_http_respond_file(lupe_http_request *r, int status, const lupe_http_header *headers,
                                   size_t header_count, int fd, uint64_t bytes) {
  if (!can_be_sent(status, headers, header_count)) return LUPE_EINVAL;
  int own =
      fcntl(fd, F_DUPFD_CLOEXEC, 0); /* the response closes its descriptor, also when it is thrown away */
  if (own < 0) return LUPE_EIO;
  struct MHD_Response *response = MHD_create_response_from_fd64(bytes, own);
  if (!response) close(own);
  lupe_status result = answer((request *)r, status, headers, header_count, response);
  if (result == LUPE_OK) close(fd);
  return result;
}
