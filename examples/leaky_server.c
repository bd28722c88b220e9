/* leaky_server.c -- a small HTTP server with a leak, to be found by lupe.
 *
 *   lupe run -- build/examples/leaky_server --self-drive 20
 *
 * It keeps three kinds of memory, and all of them grow after the start. Only one is a bug:
 *
 *   remember_session   a session per request. A connection frees its session when it closes, but a
 *                      second request on the same connection overwrites the pointer: the LEAK.
 *   cache_page         rendered pages, older ones thrown out for newer ones: grows to 8 MB, and stays.
 *   grow_pool          work buffers for reports: grows to 12 MB when the first report is asked for.
 *
 * Routes: GET /page/NUMBER, GET /report; anything else is a 404.
 * Flags: --port N (8080; any free one when driving itself), --self-drive SECS (sends itself about 400
 * requests a second over loopback, then exits with 0). Everything runs on one thread, the libuv loop. */
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum {
  PAGE_BYTES = 4096,
  CACHE_PAGES = 2048, /* 8 MB */
  POOL_BUFFER_BYTES = 256 * 1024,
  REPORT_PARTS = 48, /* 12 MB of pool */
  SESSION_BYTES = 2048,
  REQUEST_BYTES_MAX = 2048,
  CLIENTS = 4, /* that drive the server, each with one request every 10 ms */
  CLIENT_PAUSE_MS = 10,
};

/* Out of memory ends an example; a real server would answer 503. */
static void *checked(void *memory) {
  if (memory == NULL) {
    fputs("leaky_server: out of memory\n", stderr);
    abort();
  }
  return memory;
}

/* --- Sessions ---------------------------------------------------------------------------------- */

typedef struct session {
  unsigned serial;
  char notes[SESSION_BYTES - sizeof(unsigned)];
} session;

static unsigned sessions_seen;

__attribute__((noinline)) static session *remember_session(const char *path) {
  session *s = checked(malloc(sizeof *s));
  s->serial = ++sessions_seen;
  snprintf(s->notes, sizeof s->notes, "asked for %s", path);
  return s;
}

/* --- The page cache: a slot per page number modulo its size; a newcomer takes the place ------------ */

typedef struct page {
  unsigned number;
  char text[PAGE_BYTES - sizeof(unsigned)];
} page;

static page *cache[CACHE_PAGES];

__attribute__((noinline)) static page *cache_page(unsigned number) {
  page *p = checked(malloc(sizeof *p));
  p->number = number;
  memset(p->text, 'a' + (int)(number % 26), sizeof p->text);
  return p;
}

static page *find_page(unsigned number) {
  page **slot = &cache[number % CACHE_PAGES];
  if (*slot == NULL || (*slot)->number != number) {
    free(*slot);
    *slot = cache_page(number);
  }
  return *slot;
}

/* --- The pool: buffers are borrowed and given back, never returned to the allocator ---------------- */

typedef struct buffer {
  struct buffer *next_free;
  char bytes[POOL_BUFFER_BYTES - sizeof(void *)];
} buffer;

static buffer *free_buffers;

__attribute__((noinline)) static buffer *grow_pool(void) {
  buffer *b = checked(malloc(sizeof *b));
  memset(b, '.', sizeof *b); /* touched, as real work would */
  return b;
}

static buffer *borrow_buffer(void) {
  buffer *b = free_buffers;
  if (b == NULL) return grow_pool();
  free_buffers = b->next_free;
  return b;
}

static void give_back_buffer(buffer *b) {
  b->next_free = free_buffers;
  free_buffers = b;
}

/* --- The server ------------------------------------------------------------------------------------- */

typedef struct connection {
  uv_tcp_t tcp;
  session *session;
  char request[REQUEST_BYTES_MAX];
  size_t request_bytes;
} connection;

typedef struct reply {
  uv_write_t write;
  char bytes[]; /* head and body */
} reply;

static uv_tcp_t listener;
static unsigned long requests_served;

static void on_connection_closed(uv_handle_t *handle) {
  connection *c = handle->data;
  free(c->session);
  free(c);
}

static void close_connection(connection *c) {
  if (!uv_is_closing((uv_handle_t *)&c->tcp)) uv_close((uv_handle_t *)&c->tcp, on_connection_closed);
}

static void on_written(uv_write_t *write, int status) {
  connection *c = write->data;
  if (status < 0) close_connection(c);
  free(write); /* the first member of its reply */
}

static void send_reply(connection *c, const char *status, const char *body, size_t body_bytes) {
  size_t capacity = 256 + body_bytes;
  reply *r = checked(malloc(sizeof *r + capacity));
  int head =
      snprintf(r->bytes, capacity, "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n",
               status, body_bytes);
  memcpy(r->bytes + head, body, body_bytes);
  uv_buf_t all = uv_buf_init(r->bytes, (unsigned)(head + (int)body_bytes));
  r->write.data = c;
  if (uv_write(&r->write, (uv_stream_t *)&c->tcp, &all, 1, on_written) != 0) {
    free(r);
    close_connection(c);
  }
}

static void answer_page(connection *c, const char *path, unsigned number) {
  page *p = find_page(number);
  c->session = remember_session(path); /* BUG: the session of the request before is still in there */
  send_reply(c, "200 OK", p->text, sizeof p->text);
}

static void answer_report(connection *c) {
  buffer *parts[REPORT_PARTS];
  char text[64];
  for (int i = 0; i < REPORT_PARTS; i++) {
    parts[i] = borrow_buffer();
    snprintf(parts[i]->bytes, sizeof parts[i]->bytes, "part %d of %d\n", i + 1, REPORT_PARTS);
  }
  int bytes = snprintf(text, sizeof text, "%d parts, %lu requests\n", REPORT_PARTS, requests_served);
  for (int i = 0; i < REPORT_PARTS; i++) give_back_buffer(parts[i]);
  send_reply(c, "200 OK", text, (size_t)bytes);
}

static void answer(connection *c, const char *request) {
  char path[128];
  unsigned number;
  requests_served++;
  if (sscanf(request, "GET %127s HTTP/1.1", path) != 1) {
    send_reply(c, "400 Bad Request", "GET, please\n", 12);
  } else if (strcmp(path, "/report") == 0) {
    answer_report(c);
  } else if (sscanf(path, "/page/%9u", &number) == 1) {
    answer_page(c, path, number);
  } else {
    send_reply(c, "404 Not Found", "/page/NUMBER or /report\n", 24);
  }
}

static void give_request_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
  connection *c = handle->data;
  (void)suggested;
  *out = uv_buf_init(c->request + c->request_bytes, (unsigned)(REQUEST_BYTES_MAX - 1 - c->request_bytes));
}

/* Answers every request that is complete; what is left of the next one moves to the buffer's start. */
static void on_request_bytes(uv_stream_t *stream, ssize_t count, const uv_buf_t *bytes) {
  connection *c = stream->data;
  (void)bytes;
  if (count < 0) { /* end of file, an error, or a request that does not fit (UV_ENOBUFS) */
    close_connection(c);
    return;
  }
  c->request_bytes += (size_t)count;
  c->request[c->request_bytes] = '\0';
  char *end;
  while ((end = strstr(c->request, "\r\n\r\n")) != NULL) {
    *end = '\0';
    answer(c, c->request);
    size_t used = (size_t)(end + 4 - c->request);
    c->request_bytes -= used;
    memmove(c->request, c->request + used, c->request_bytes + 1);
  }
}

static void on_connection(uv_stream_t *server, int status) {
  if (status < 0) return;
  connection *c = checked(calloc(1, sizeof *c));
  uv_tcp_init(server->loop, &c->tcp);
  c->tcp.data = c;
  if (uv_accept(server, (uv_stream_t *)&c->tcp) != 0 ||
      uv_read_start((uv_stream_t *)&c->tcp, give_request_buffer, on_request_bytes) != 0) {
    close_connection(c);
  }
}

/* --- The clients of --self-drive --------------------------------------------------------------------- */

typedef struct client {
  uv_tcp_t tcp; /* first: a handle of a client is the client. Its `data` stays NULL */
  uv_connect_t connect;
  uv_write_t write;
  char request[96];
  char answer[2 * PAGE_BYTES];
  bool connected;
  bool waiting; /* for the rest of an answer */
  size_t answer_bytes;
} client;

static client clients[CLIENTS];
static uv_timer_t pace, deadline;
static uv_signal_t interrupt, terminate;
static unsigned requests_sent;

static void send_request(client *c) {
  unsigned n = requests_sent++;
  /* Every 1,000th request wants the report; of the others two of three a new page, one a popular one. */
  if (n % 1000 == 999) {
    snprintf(c->request, sizeof c->request, "GET /report HTTP/1.1\r\nHost: localhost\r\n\r\n");
  } else {
    unsigned number = n % 3 == 0 ? n % 100 : n;
    snprintf(c->request, sizeof c->request, "GET /page/%u HTTP/1.1\r\nHost: localhost\r\n\r\n", number);
  }
  uv_buf_t bytes = uv_buf_init(c->request, (unsigned)strlen(c->request));
  c->answer_bytes = 0;
  c->waiting = uv_write(&c->write, (uv_stream_t *)&c->tcp, &bytes, 1, NULL) == 0;
}

static void on_pace(uv_timer_t *timer) {
  (void)timer;
  for (int i = 0; i < CLIENTS; i++) {
    if (clients[i].connected && !clients[i].waiting) send_request(&clients[i]);
  }
}

static void give_answer_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
  client *c = (client *)handle;
  (void)suggested;
  *out = uv_buf_init(c->answer + c->answer_bytes, (unsigned)(sizeof c->answer - 1 - c->answer_bytes));
}

static void on_answer_bytes(uv_stream_t *stream, ssize_t count, const uv_buf_t *bytes) {
  client *c = (client *)stream;
  (void)bytes;
  if (count < 0) {
    c->connected = false;
    uv_read_stop(stream);
    return;
  }
  c->answer_bytes += (size_t)count;
  c->answer[c->answer_bytes] = '\0';
  const char *body = strstr(c->answer, "\r\n\r\n"), *length = strstr(c->answer, "Content-Length: ");
  if (body == NULL || length == NULL) return;
  size_t wanted = (size_t)(body + 4 - c->answer) + strtoul(length + 16, NULL, 10);
  if (c->answer_bytes >= wanted) c->waiting = false;
}

static void on_connected(uv_connect_t *connect, int status) {
  client *c = connect->data;
  c->connected =
      status == 0 && uv_read_start((uv_stream_t *)&c->tcp, give_answer_buffer, on_answer_bytes) == 0;
}

static void close_handle(uv_handle_t *handle, void *unused) {
  (void)unused;
  if (uv_is_closing(handle)) return;
  /* Only accepted connections carry data, and are freed; everything else is static. */
  uv_close(handle, handle->data != NULL ? on_connection_closed : NULL);
}

/* Closes everything, which ends the loop. The cache and the pool stay as they are: the system takes them. */
static void stop(uv_loop_t *loop) {
  uv_walk(loop, close_handle, NULL);
}

static void on_deadline(uv_timer_t *timer) {
  stop(timer->loop);
}

static void on_signal(uv_signal_t *handle, int number) {
  (void)number;
  stop(handle->loop);
}

static bool start_clients(uv_loop_t *loop, int port, long seconds) {
  struct sockaddr_in address;
  uv_ip4_addr("127.0.0.1", port, &address);
  for (int i = 0; i < CLIENTS; i++) {
    client *c = &clients[i];
    uv_tcp_init(loop, &c->tcp);
    c->connect.data = c;
    if (uv_tcp_connect(&c->connect, &c->tcp, (struct sockaddr *)&address, on_connected) != 0) return false;
  }
  uv_timer_init(loop, &pace);
  uv_timer_start(&pace, on_pace, CLIENT_PAUSE_MS, CLIENT_PAUSE_MS);
  uv_timer_init(loop, &deadline);
  uv_timer_start(&deadline, on_deadline, (uint64_t)seconds * 1000, 0);
  return true;
}

static void stop_on(uv_loop_t *loop, uv_signal_t *handle, int number) {
  uv_signal_init(loop, handle);
  uv_signal_start(handle, on_signal, number);
  uv_unref((uv_handle_t *)handle);
}

/* Listens on the loopback. Returns the port, or -1 with the reason on stderr. */
static int start_server(uv_loop_t *loop, int port) {
  struct sockaddr_in address;
  int bytes = sizeof address;
  uv_ip4_addr("127.0.0.1", port, &address);
  uv_tcp_init(loop, &listener);
  int error = uv_tcp_bind(&listener, (struct sockaddr *)&address, 0);
  if (error == 0) error = uv_listen((uv_stream_t *)&listener, 128, on_connection);
  if (error == 0) error = uv_tcp_getsockname(&listener, (struct sockaddr *)&address, &bytes);
  if (error != 0) {
    fprintf(stderr, "leaky_server: 127.0.0.1:%d: %s\n", port, uv_strerror(error));
    return -1;
  }
  return ntohs(address.sin_port);
}

/* A whole number from `low` to `high`, or -1. */
static long parse_number(const char *text, long low, long high) {
  char *end;
  long value = text == NULL ? -1 : strtol(text, &end, 10);
  return text == NULL || *text == '\0' || *end != '\0' || value < low || value > high ? -1 : value;
}

int main(int argc, char **argv) {
  long port = -1, seconds = 0;
  for (int i = 1; i < argc; i += 2) {
    long *wanted = strcmp(argv[i], "--port") == 0         ? &port
                   : strcmp(argv[i], "--self-drive") == 0 ? &seconds
                                                          : NULL;
    long value = wanted == NULL ? -1 : parse_number(argv[i + 1], wanted == &seconds, 65535);
    if (value < 0) {
      fputs("usage: leaky_server [--port N] [--self-drive SECS]\n", stderr);
      return 2;
    }
    *wanted = value;
  }
  if (port < 0) port = seconds > 0 ? 0 : 8080;

  uv_loop_t *loop = uv_default_loop();
  signal(SIGPIPE, SIG_IGN);
  int bound = start_server(loop, (int)port);
  if (bound < 0) return 1;
  stop_on(loop, &interrupt, SIGINT);
  stop_on(loop, &terminate, SIGTERM);
  if (seconds > 0 && !start_clients(loop, bound, seconds)) return 1;
  printf("leaky_server: http://127.0.0.1:%d/page/1\n", bound);
  fflush(stdout);

  uv_run(loop, UV_RUN_DEFAULT);
  uv_loop_close(loop);
  printf("leaky_server: %lu requests answered\n", requests_served);
  return 0;
}
