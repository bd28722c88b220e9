#include "core/embed/host_loop.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/embed/error.h"
#include "core/embed/patience.h"

enum {
  UV_ASYNC_TYPE = 1, /* of libuv 1.x: uv_handle_type, for uv_handle_size */
  HANDLE_BYTES = 512,
  CLOSE_WAIT_MS = 1000, /* a loop that stands still closes it later */
};

struct lupe__host_loop {
  _Alignas(16) char handle[HANDLE_BYTES]; /* first: a uv_async_t */
  pthread_t thread;                       /* the loop's */
  void (*knocked)(void);
  atomic_int holders; /* the handle, and whoever opened it: the last one frees */
  atomic_bool closing;
  bool closed; /* thread: the loop's */
  atomic_bool done;
};

static struct {
  int (*async_init)(struct uv_loop_s *, void *, void (*)(void *));
  int (*async_send)(void *);
  void (*close)(void *, void (*)(void *));
  void (*unref)(void *);
  size_t (*handle_size)(int);
} uv;

static bool look_up(void) {
  uv.async_init = (int (*)(struct uv_loop_s *, void *, void (*)(void *)))dlsym(RTLD_DEFAULT, "uv_async_init");
  uv.async_send = (int (*)(void *))dlsym(RTLD_DEFAULT, "uv_async_send");
  uv.close = (void (*)(void *, void (*)(void *)))dlsym(RTLD_DEFAULT, "uv_close");
  uv.unref = (void (*)(void *))dlsym(RTLD_DEFAULT, "uv_unref");
  uv.handle_size = (size_t(*)(int))dlsym(RTLD_DEFAULT, "uv_handle_size");
  return uv.async_init && uv.async_send && uv.close && uv.unref && uv.handle_size &&
         uv.handle_size(UV_ASYNC_TYPE) <= HANDLE_BYTES;
}

static void let_go(lupe__host_loop *h) {
  if (atomic_fetch_sub(&h->holders, 1) > 1) return;
  free(h);
}

static void on_closed(void *handle) {
  let_go(handle);
}

static void close_handle(lupe__host_loop *h) {
  if (h->closed) return;
  h->closed = true;
  uv.close(h, on_closed);
}

static void on_knock(void *handle) {
  lupe__host_loop *h = handle;
  if (!atomic_load(&h->closing)) {
    h->knocked();
    return;
  }
  close_handle(h);
  atomic_store(&h->done, true);
}

lupe_status lupe__host_loop_open(lupe__host_loop **out, struct uv_loop_s *loop, void (*knocked)(void)) {
  if (!look_up()) {
    return lupe__fail(LUPE_EUNSUPPORTED,
                      "options.loop is set, and the program is not linked to the shared libuv (libuv.so.1): "
                      "callbacks can only come on a thread of lupe's, with options.loop NULL");
  }
  lupe__host_loop *h = calloc(1, sizeof *h);
  if (!h) return lupe__fail(LUPE_ENOMEM, "no memory for a handle of the host's loop");
  h->thread = pthread_self();
  h->knocked = knocked;
  atomic_init(&h->holders, 2);
  if (uv.async_init(loop, h, on_knock) != 0) {
    free(h);
    return lupe__fail(LUPE_EIO, "the host's loop takes no handle (uv_async_init failed)");
  }
  uv.unref(h);
  *out = h;
  return LUPE_OK;
}

void lupe__host_loop_knock(lupe__host_loop *h) {
  uv.async_send(h);
}

void lupe__host_loop_close(lupe__host_loop *h) {
  if (!h) return;
  atomic_store(&h->closing, true);
  if (pthread_equal(h->thread, pthread_self())) {
    close_handle(h);
  } else {
    int64_t until_ms = lupe__now_ms() + CLOSE_WAIT_MS;
    uv.async_send(h);
    (void)lupe__wait_until(&h->done, until_ms);
  }
  let_go(h);
}
