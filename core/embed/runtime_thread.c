#include "core/embed/runtime_thread.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/agent/agent.h"
#include "core/embed/embedded.h"

enum { STACK_BYTES = 8 << 20 /* of which only what is touched is memory */ };

static lupe_embedded_main_fn *run_runtime; /* once loaded, for good */

static struct {
  pthread_t thread;
  lupe_embedded ends;
  int not_mine[2];
  sem_t settled; /* the thread has its own descriptor table, or cannot have one */
  lupe_status status;
} runtime;

/* ---- the library ---- */

/* Whoever defines a lua_* that all libraries see would be called by LuaJIT's modules, and by the runtime
 * itself, in the place of the LuaJIT that it was built for. */
static const char *foreign_lua(void) {
  static const char *const names[] = {"lua_newstate", "lua_pcall", "lua_close", "luaL_newstate", "lua_gettop"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    void *found = dlsym(RTLD_DEFAULT, names[i]);
    Dl_info where;
    if (!found || !dladdr(found, &where) || strstr(where.dli_fname, "libluajit-5.1.so.2")) continue;
    return where.dli_fname;
  }
  return NULL;
}

/* libuv makes a pipe for its signals at its first loop, and has a fork handler that closes and opens it. */
static lupe_status settle_libuv(void *library) {
  int (*init)(void *) = (int (*)(void *))dlsym(library, "uv_loop_init");
  int (*end)(void *) = (int (*)(void *))dlsym(library, "uv_loop_close");
  size_t (*size)(void) = (size_t(*)(void))dlsym(library, "uv_loop_size");
  _Alignas(16) char loop[4096];
  if (!init || !end || !size || size() > sizeof loop || init(loop) != 0) return LUPE_EIO;
  end(loop);
  return LUPE_OK;
}

static void *open_beside(char *why, size_t why_bytes) {
  static const char *const places[] = {"", "lupe/", "../lupe/", NULL};
  Dl_info own;
  char path[PATH_MAX], folder[PATH_MAX] = LUPE_LIB_DIR;
  if (dladdr((void *)open_beside, &own) && own.dli_fname && realpath(own.dli_fname, folder)) {
    *strrchr(folder, '/') = '\0';
  }
  for (size_t i = 0; places[i]; i++) {
    if (snprintf(path, sizeof path, "%s/%sliblupe-runtime.so", folder, places[i]) >= (int)sizeof path) continue;
    if (access(path, R_OK) == 0) goto found;
  }
  snprintf(path, sizeof path, LUPE_LIB_DIR "/liblupe-runtime.so");
found:;
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) snprintf(why, why_bytes, "the runtime cannot be loaded: %s", dlerror());
  return library;
}

lupe_status lupe__runtime_load(char *why, size_t why_bytes) {
  if (run_runtime) return LUPE_OK;
  const char *foreign = foreign_lua();
  if (foreign) {
    snprintf(why, why_bytes,
             "%s exports Lua functions (lua_*) of its own, which lupe's own Lua inside of this process would "
             "meet: use LUPE_MODE_HELPER",
             foreign);
    return LUPE_EUNSUPPORTED;
  }
  void *library = open_beside(why, why_bytes);
  if (!library) return LUPE_ENOENT;
  lupe_embedded_main_fn *entry = (lupe_embedded_main_fn *)dlsym(library, "lupe_embedded_main");
  if (!entry) {
    snprintf(why, why_bytes, "the runtime cannot be loaded: %s", dlerror());
    return LUPE_ENOENT;
  }
  if (settle_libuv(library) != LUPE_OK) {
    snprintf(why, why_bytes, "the runtime has no event loop: no descriptors are left, or libuv is not usable");
    return LUPE_EIO;
  }
  run_runtime = entry;
  return LUPE_OK;
}

/* ---- the thread ---- */

static void thread_begins(void) {
  (void)lupe_agent_adopt_thread(); /* where it cannot, lupe's memory is seen with the program's */
}

static void *runtime_main(void *unused) {
  struct sched_param normal = {0};
  sched_setscheduler(0, SCHED_OTHER, &normal);
  pthread_setname_np(pthread_self(), "lupe");
  thread_begins();
  if (unshare(CLONE_FILES) != 0) {
    runtime.status = LUPE_EUNSUPPORTED;
    sem_post(&runtime.settled);
    return unused;
  }
  close(runtime.not_mine[0]);
  close(runtime.not_mine[1]);
  sem_post(&runtime.settled);
  run_runtime(&runtime.ends);
  lupe_agent_release_thread();
  return unused;
}

lupe_status lupe__runtime_run(int calls, int events, const int not_mine[2]) {
  pthread_attr_t attributes;
  runtime.ends = (lupe_embedded){
      .calls = calls, .events = events, .thread_begins = thread_begins, .thread_ends = lupe_agent_release_thread};
  memcpy(runtime.not_mine, not_mine, sizeof runtime.not_mine);
  runtime.status = LUPE_OK;
  sem_init(&runtime.settled, 0, 0);
  if (pthread_attr_init(&attributes) != 0) return LUPE_ENOMEM;
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  int failed = pthread_create(&runtime.thread, &attributes, runtime_main, NULL); /* signals: as the caller's */
  pthread_attr_destroy(&attributes);
  if (failed) return LUPE_ENOMEM;
  while (sem_wait(&runtime.settled) != 0) continue;
  if (runtime.status != LUPE_OK) pthread_join(runtime.thread, NULL);
  return runtime.status;
}

bool lupe__runtime_join(int64_t wait_ms) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += wait_ms / 1000;
  until.tv_nsec += wait_ms % 1000 * 1000000;
  if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
  return pthread_clockjoin_np(runtime.thread, NULL, CLOCK_MONOTONIC, &until) == 0;
}
