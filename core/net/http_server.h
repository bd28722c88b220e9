/* http_server.h -- HTTP/1.1 on a libuv loop, by libmicrohttpd. Knows no routes: every request goes to one
 * handler. Thread: loop, for everything here. Bounded: LUPE_HTTP_CONNECTIONS connections (further ones wait
 * in the kernel's backlog), headers by LUPE_HTTP_CONNECTION_BYTES, bodies by LUPE_HTTP_BODY_BYTES, idle
 * connections by LUPE_HTTP_TIMEOUT_S. Malformed requests are answered (400, 431, 505 ...) or cut off by
 * libmicrohttpd and never reach the handler. */
#ifndef LUPE_NET_HTTP_SERVER_H
#define LUPE_NET_HTTP_SERVER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"

struct uv_loop_s;
typedef struct lupe_http_server lupe_http_server;

enum {
  LUPE_HTTP_CONNECTIONS = 512, /* less where RLIMIT_NOFILE is small */
  LUPE_HTTP_CONNECTION_BYTES = 16 * 1024,
  LUPE_HTTP_BODY_BYTES = 64 * 1024,
  LUPE_HTTP_TIMEOUT_S = 15
};

/* A request, handed to the handler when it is complete. It stays valid until it is answered, whatever the
 * client does. */
typedef struct lupe_http_request {
  const char *method; /* "GET", "HEAD" ... as sent */
  const char *path;   /* as sent: percent-encoding kept; starts with '/' or is '*' and the like */
  const char *query;  /* after the '?', as sent; "" where there is none */
  const char *peer;   /* numeric address without port */
  const char *body;   /* body_bytes long, NUL after it; "" without one */
  size_t body_bytes;
  bool too_large; /* the body passed LUPE_HTTP_BODY_BYTES and was dropped: answer 413 before the handler
                     returns */
} lupe_http_request;

typedef struct lupe_http_header {
  const char *name, *value;
} lupe_http_header;

/* Answer by lupe_http_respond or lupe_http_respond_file, once, here or later. */
typedef void (*lupe_http_handler)(void *arg, lupe_http_request *request);

/* Listens on `host` (numeric IPv4 or IPv6, without brackets) and `port` (0: any free one).
 * Returns LUPE_OK, LUPE_EINVAL (not a numeric address), LUPE_EINUSE, LUPE_EPERM, LUPE_EIO (errno),
 * LUPE_ENOMEM. */
lupe_status lupe_http_server_create(lupe_http_server **out, struct uv_loop_s *loop, const char *host,
                                    uint16_t port, lupe_http_handler handler, void *arg);
uint16_t lupe_http_server_port(const lupe_http_server *s);

typedef struct lupe_http_counters {
  uint64_t requests;  /* given to the handler */
  uint64_t responses; /* answered */
  uint64_t aborted;   /* connection gone before the answer was sent */
  uint32_t pending;   /* not answered yet */
} lupe_http_counters;
void lupe_http_server_counters(const lupe_http_server *s, lupe_http_counters *out);

/* Stops listening, cuts off what is open and frees itself when the loop has run on: keep running it until
 * nothing is left. The handler is not called any more. Requests not answered yet stay their keeper's:
 * answering them then sends nothing and frees them. May be called from the handler. NULL is a no-op. */
void lupe_http_server_close(lupe_http_server *s);

/* A header of the request (name in any case; the first of several), or NULL. */
const char *lupe_http_request_header(const lupe_http_request *r, const char *name);
/* Calls `each` for every header, in order. */
void lupe_http_request_headers(const lupe_http_request *r,
                               void (*each)(void *arg, const char *name, const char *value), void *arg);

/* Answers and gives the request up: it must not be used afterwards. `body` is copied. HEAD gets the length
 * and no body; Date, Content-Length and Connection are added here. Where the client has gone it does nothing
 * but free. LUPE_EINVAL: a status outside 200..599, a header that can't be sent (no name, a character not
 * allowed in it, CR, LF, other controls): nothing was sent and the request is still open, as it is after
 * LUPE_ENOMEM. */
lupe_status lupe_http_respond(lupe_http_request *r, int status, const lupe_http_header *headers,
                              size_t header_count, const void *body, size_t bytes);
/* The same with `bytes` of the file `fd` from its beginning; `fd` is taken over on LUPE_OK only. */
lupe_status lupe_http_respond_file(lupe_http_request *r, int status, const lupe_http_header *headers,
                                   size_t header_count, int fd, uint64_t bytes);
#endif
