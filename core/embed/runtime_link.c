#include "core/embed/runtime_link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/embed/embedded.h"

static void on_calls(uv_poll_t *poll, int status, int events);
static void on_events(uv_poll_t *poll, int status, int events);

static const char GONE[] = "it is gone, or speaks with lupe no more";

/* ---- out ---- */

/* Sends on what is to be sent, and waits for what comes next. */
static void pump(lupe__runtime_link *l) {
  int wanted = UV_READABLE;
  if (l->reply) {
    size_t sent = l->sent;
    lupe_status status = lupe__frame_write(l->calls_fd, l->reply, (uint32_t)l->reply_bytes, -1, &sent, false);
    l->sent = sent;
    if (status == LUPE_EAGAIN) {
      wanted |= UV_WRITABLE;
    } else {
      free(l->reply);
      l->reply = NULL;
    }
  }
  if (l->open) uv_poll_start(&l->calls, wanted, on_calls);
}

void lupe__runtime_link_reply(lupe__runtime_link *l, lupe_status status, const char *texts, size_t bytes) {
  const uint32_t number = status;
  l->busy = false;
  free(l->reply);
  l->sent = 0;
  l->reply = malloc(sizeof number + bytes);
  if (!l->reply) {
    fprintf(stderr, "lupe: an answer to the program is lost: out of memory\n");
    if (l->open) l->on.gone(l->on.arg, "the program had no memory left for lupe");
    return;
  }
  memcpy(l->reply, &number, sizeof number);
  memcpy(l->reply + sizeof number, texts, bytes);
  l->reply_bytes = sizeof number + bytes;
  pump(l);
}

void lupe__runtime_link_reply_text(lupe__runtime_link *l, lupe_status status, const char *text) {
  lupe__runtime_link_reply(l, status, text, strlen(text) + 1);
}

static void send_events(lupe__runtime_link *l) {
  bool more = lupe__event_queue_send(&l->queue, l->events_fd);
  if (l->open) uv_poll_start(&l->events, UV_READABLE | (more ? UV_WRITABLE : 0), on_events);
}

void lupe__runtime_link_tell(lupe__runtime_link *l, uint32_t kind,
                             const char *const texts[LUPE__EVENT_TEXTS]) {
  if (!l->open) return;
  if (lupe__event_queue_add(&l->queue, kind, texts)) send_events(l);
}

/* ---- in ---- */

static uint32_t op_of(const lupe__frame *request) {
  uint32_t op = 0;
  if (request->bytes >= sizeof op) memcpy(&op, request->body, sizeof op);
  return op;
}

static bool is_whole(const lupe__frame *request) {
  if (op_of(request) == 0) return false;
  return request->bytes == sizeof(uint32_t) || request->body[request->bytes - 1] == '\0';
}

static void take_request(lupe__runtime_link *l) {
  uint32_t op = op_of(&l->request);
  if (op == LUPE_EMBEDDED_STOP) {
    if (l->busy) lupe__runtime_link_reply_text(l, LUPE_ENOENT, "lupe is being stopped");
    pump(l);
    l->on.stop(l->on.arg);
    return;
  }
  l->busy = true;
  if (is_whole(&l->request)) {
    l->on.request(l->on.arg, op);
  } else {
    lupe__runtime_link_reply_text(l, LUPE_EINVAL, "a request that is not whole");
  }
}

static void on_calls(uv_poll_t *poll, int status, int events) {
  lupe__runtime_link *l = poll->data;
  if (events & UV_WRITABLE) pump(l);
  if (!(events & UV_READABLE) && status == 0) return;
  while (l->open) {
    lupe_status read = lupe__frame_read(&l->request, l->calls_fd, false);
    if (read == LUPE_EAGAIN) return;
    if (read == LUPE_OK) take_request(l);
    lupe__frame_clear(&l->request);
    if (read != LUPE_OK) l->on.gone(l->on.arg, GONE);
  }
}

/* Nobody speaks on it but us: readable means that its other end is closed. */
static void on_events(uv_poll_t *poll, int status, int events) {
  lupe__runtime_link *l = poll->data;
  if (status != 0 || (events & UV_READABLE)) {
    l->on.gone(l->on.arg, GONE);
  } else {
    send_events(l);
  }
}

/* ---- life ---- */

uint32_t lupe__runtime_link_begin(lupe__runtime_link *l, int calls, int events) {
  *l = (lupe__runtime_link){.calls_fd = calls, .events_fd = events, .request = {.fd = -1}};
  if (lupe__frame_read(&l->request, calls, true) != LUPE_OK) return 0;
  l->busy = true;
  return op_of(&l->request);
}

void lupe__runtime_link_listen(lupe__runtime_link *l, uv_loop_t *loop, const lupe__runtime_link_events *on) {
  l->on = *on;
  lupe__frame_clear(&l->request);
  uv_poll_init(loop, &l->calls, l->calls_fd);
  uv_poll_init(loop, &l->events, l->events_fd);
  l->calls.data = l->events.data = l;
  l->open = true;
  uv_poll_start(&l->events, UV_READABLE, on_events);
  pump(l);
}

void lupe__runtime_link_close(lupe__runtime_link *l) {
  if (!l->open) return;
  l->open = false;
  uv_close((uv_handle_t *)&l->calls, NULL);
  uv_close((uv_handle_t *)&l->events, NULL);
}

void lupe__runtime_link_end(lupe__runtime_link *l, bool stopped) {
  lupe__frame_clear(&l->request);
  if (stopped) {
    const uint32_t done = LUPE_OK;
    size_t sent = 0;
    /* Who asked may be gone. */
    (void)lupe__frame_write(l->calls_fd, &done, sizeof done, -1, &sent, true);
  }
  free(l->reply);
  lupe__event_queue_clear(&l->queue);
  close(l->calls_fd);
  close(l->events_fd);
}
