/* embedded_server.c -- an HTTP server on libuv that has lupe in it, on its own loop.
 *
 *   build/examples/embedded_server 8080
 *   for i in $(seq 1000); do curl -s http://127.0.0.1:8080/page/$i >/dev/null; done
 *
 * What is lupe's: `malloc_conf`, start_lupe and the line LUPE_SPAN in two handlers; the rest is any server.
 * lupe works on a thread of its own. Only what it has to say comes here: on_lupe_event runs on the loop's
 * thread, so it may touch all that the server has, without a lock.
 *
 * Routes: GET /page/NUMBER (keeps a visit for each request and forgets none: the LEAK), GET /search/WORD
 * (reads a whole text letter by letter: the HOT function), GET /worst (what lupe thinks of all that). */
#include <lupe.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

/* jemalloc reads this before main: that a heap can be profiled is settled here and never again. Sampling
 * itself is lupe's to switch on. One sample per 2^17 bytes; 2^19 is enough for a busy server. */
const char *malloc_conf = "prof:true,prof_active:false,lg_prof_sample:17";

enum { REQUEST_BYTES_MAX = 2048, PAGE_BYTES = 8192, TEXT_BYTES = 1 << 20 };

static char text[TEXT_BYTES]; /* that /search reads */
static uv_tcp_t listener;
static uv_signal_t interrupt, terminate;

static void *checked(void *memory) {
  if (memory == NULL) {
    fputs("embedded_server: out of memory\n", stderr);
    abort();
  }
  return memory;
}

/* ---- A connection: one request, one answer ----------------------------------------------------- */

typedef struct connection {
  uv_tcp_t tcp;
  uv_write_t write;
  uv_work_t work;
  bool asking;    /* lupe, on another thread: then it is not to be closed here */
  char *findings; /* lupe's answer; NULL: none came */
  size_t request_bytes;
  char request[REQUEST_BYTES_MAX];
  char *answer; /* head and body; NULL: not answered yet */
} connection;

static void on_closed(uv_handle_t *handle) {
  connection *c = handle->data;
  free(c->answer);
  free(c);
}

static void close_connection(connection *c) {
  if (!uv_is_closing((uv_handle_t *)&c->tcp)) uv_close((uv_handle_t *)&c->tcp, on_closed);
}

static void on_written(uv_write_t *write, int status) {
  (void)status;
  close_connection(write->data);
}

static void answer(connection *c, const char *status, const char *body) {
  size_t room = strlen(body) + 128;
  c->answer = checked(malloc(room));
  int bytes = snprintf(c->answer, room, "HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
                       status, strlen(body), body);
  uv_buf_t all = uv_buf_init(c->answer, (unsigned)bytes);
  if (uv_write(&c->write, (uv_stream_t *)&c->tcp, &all, 1, on_written) != 0) close_connection(c);
}

/* ---- GET /page/NUMBER -------------------------------------------------------------------------- */

typedef struct visit {
  struct visit *before;
  char page[2040];
} visit;

static visit *visits;

/* BUG: nobody ever asks for old visits, and nobody takes one out. */
__attribute__((noinline)) static void remember_visit(const char *page) {
  visit *v = checked(malloc(sizeof *v));
  v->before = visits;
  snprintf(v->page, sizeof v->page, "%s", page);
  visits = v;
}

static void answer_page(connection *c, const char *number) {
  LUPE_SPAN("page");
  char body[PAGE_BYTES];
  memset(body, '.', sizeof body);
  body[sizeof body - 1] = '\0';
  remember_visit(number);
  answer(c, "200 OK", body);
}

/* ---- GET /search/WORD -------------------------------------------------------------------------- */

__attribute__((noinline)) static unsigned count_in_text(const char *word) {
  unsigned found = 0;
  size_t bytes = strlen(word);
  for (size_t at = 0; at + bytes <= TEXT_BYTES; at++) {
    size_t same = 0;
    while (same < bytes && text[at + same] == word[same]) same++;
    if (same == bytes) found++;
  }
  return found;
}

static void answer_search(connection *c, const char *word) {
  LUPE_SPAN("search");
  char body[64];
  snprintf(body, sizeof body, "%u times\n", count_in_text(word));
  answer(c, "200 OK", body);
}

/* ---- GET /worst: the loop never waits for lupe, a thread of libuv's pool does -------------------- */

static void ask_lupe(uv_work_t *work) {
  connection *c = work->data;
  c->findings = NULL;
  if (lupe_get("/api/findings?limit=3", NULL, &c->findings) != LUPE_OK)
    fprintf(stderr, "embedded_server: lupe: %s\n", lupe_error());
}

static void on_asked(uv_work_t *work, int status) {
  connection *c = work->data;
  (void)status;
  c->asking = false;
  if (c->findings != NULL) {
    answer(c, "200 OK", c->findings);
  } else {
    answer(c, "503 Service Unavailable", "lupe does not answer\n");
  }
  lupe_free(c->findings);
}

/* ---- The server -------------------------------------------------------------------------------- */

static void route(connection *c) {
  char path[128];
  if (sscanf(c->request, "GET %127s HTTP/1.", path) != 1) {
    answer(c, "400 Bad Request", "GET, please\n");
  } else if (strncmp(path, "/page/", 6) == 0) {
    answer_page(c, path + 6);
  } else if (strncmp(path, "/search/", 8) == 0 && path[8] != '\0') {
    answer_search(c, path + 8);
  } else if (strcmp(path, "/worst") == 0) {
    c->work.data = c;
    c->asking = uv_queue_work(c->tcp.loop, &c->work, ask_lupe, on_asked) == 0;
    if (!c->asking) close_connection(c);
  } else {
    answer(c, "404 Not Found", "/page/NUMBER, /search/WORD or /worst\n");
  }
}

static void give_room(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
  connection *c = handle->data;
  (void)suggested;
  *out = uv_buf_init(c->request + c->request_bytes, (unsigned)(REQUEST_BYTES_MAX - 1 - c->request_bytes));
}

static void on_bytes(uv_stream_t *stream, ssize_t count, const uv_buf_t *bytes) {
  connection *c = stream->data;
  (void)bytes;
  if (count < 0) { /* the end, an error, or a request that does not fit (UV_ENOBUFS) */
    close_connection(c);
    return;
  }
  c->request_bytes += (size_t)count;
  c->request[c->request_bytes] = '\0';
  if (strstr(c->request, "\r\n\r\n") == NULL) return;
  uv_read_stop(stream);
  route(c);
}

static void on_connection(uv_stream_t *server, int status) {
  if (status < 0) return;
  connection *c = checked(calloc(1, sizeof *c));
  c->tcp.data = c->write.data = c;
  uv_tcp_init(server->loop, &c->tcp);
  if (uv_accept(server, (uv_stream_t *)&c->tcp) != 0 ||
      uv_read_start((uv_stream_t *)&c->tcp, give_room, on_bytes) != 0) {
    close_connection(c);
  }
}

/* ---- lupe -------------------------------------------------------------------------------------- */

/* On the loop's thread. A real server would tell whoever is on duty. */
static void on_lupe_event(void *arg, const lupe_event *event) {
  (void)arg;
  printf("embedded_server: %s, %s: %s\n", event->kind == LUPE_EVENT_ALERT ? "alert" : "finding",
         event->severity, event->text);
  fflush(stdout);
}

/* The server serves, with lupe or without. */
static void start_lupe(uv_loop_t *loop) {
  lupe_options options = LUPE_OPTIONS_INIT;
  options.loop = loop;
  lupe_set_callback(on_lupe_event, NULL);
  lupe_status status = lupe_start(&options);
  char *about = NULL;
  if (status == LUPE_OK) status = lupe_about(&about);
  printf("embedded_server: lupe: %s\n", status == LUPE_OK ? about : lupe_error());
  lupe_free(about);
}

/* ---- Start and stop ---------------------------------------------------------------------------- */

static void close_handle(uv_handle_t *handle, void *unused) {
  (void)unused;
  connection *c = handle->data; /* only connections have data; the rest is static */
  if (uv_is_closing(handle) || (c != NULL && c->asking)) return;
  uv_close(handle, c != NULL ? on_closed : NULL);
}

/* lupe first, while its handles are still on the loop; then all that is the server's. */
static void on_signal(uv_signal_t *handle, int number) {
  (void)number;
  lupe_stop();
  uv_walk(handle->loop, close_handle, NULL);
}

int main(int argc, char **argv) {
  uv_loop_t *loop = uv_default_loop();
  struct sockaddr_in address;
  int bytes = sizeof address;
  signal(SIGPIPE, SIG_IGN);
  for (size_t i = 0; i < TEXT_BYTES; i++) text[i] = "lupe sees what the program does "[i * 31 % 32];

  uv_ip4_addr("127.0.0.1", argc > 1 ? (int)strtol(argv[1], NULL, 10) : 8080, &address);
  uv_tcp_init(loop, &listener);
  int error = uv_tcp_bind(&listener, (struct sockaddr *)&address, 0);
  if (error == 0) error = uv_listen((uv_stream_t *)&listener, 128, on_connection);
  if (error == 0) error = uv_tcp_getsockname(&listener, (struct sockaddr *)&address, &bytes);
  if (error != 0) {
    fprintf(stderr, "embedded_server: cannot listen: %s\n", uv_strerror(error));
    return 1;
  }
  uv_signal_init(loop, &interrupt);
  uv_signal_start(&interrupt, on_signal, SIGINT);
  uv_signal_init(loop, &terminate);
  uv_signal_start(&terminate, on_signal, SIGTERM);
  start_lupe(loop);
  printf("embedded_server: http://127.0.0.1:%d/page/1\n", ntohs(address.sin_port));
  fflush(stdout);

  uv_run(loop, UV_RUN_DEFAULT);
  uv_loop_close(loop);
  puts("embedded_server: ended");
  return 0;
}
