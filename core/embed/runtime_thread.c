#include "core/embed/runtime_thread.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/agent/agent.h"
#include "core/embed/beside.h"
#include "core/embed/embedded.h"
#include "core/embed/libuv_pipe.h"
#include "core/embed/patience.h"

enum { STACK_BYTES = 8 << 20 /* of which only what is touched is memory */ };

static lupe_embedded_main_fn *run_runtime; /* once loaded, for good */

static struct {
  pthread_t thread;
  lupe_embedded ends;
  int not_mine[2];
  bool runs; /* until it was joined */
  atomic_bool ended;
  sem_t settled; /* the thread has its own descriptor table, or cannot have one */
  lupe_status status;
} runtime;

/* ---- the library ---- */

/* A function that the runtime calls, and whose it has to be. */
typedef struct dependency {
  const char *function, *library, *what;
} dependency;

/* Whoever defines one of these where all libraries see it would be called by the runtime, in the place of the
 * library that it was built for. Writes which, and returns where it is; NULL: all is well. */
static const char *foreign(const dependency **which) {
  static const dependency all[] = {
      {"lua_newstate", "libluajit-5.1.so", "Lua"}, {"lua_pcall", "libluajit-5.1.so", "Lua"},
      {"lua_gettop", "libluajit-5.1.so", "Lua"},   {"luaL_newstate", "libluajit-5.1.so", "Lua"},
      {"uv_loop_init", "libuv.so", "libuv"},       {"MHD_start_daemon", "libmicrohttpd.so", "libmicrohttpd"},
      {"elf_begin", "libelf", "libelf"},           {"dwarf_begin_elf", "libdw", "libdw"},
  };
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    void *found = dlsym(RTLD_DEFAULT, all[i].function);
    Dl_info where;
    if (!found || !dladdr(found, &where) || strstr(where.dli_fname, all[i].library)) continue;
    *which = &all[i];
    return where.dli_fname;
  }
  return NULL;
}

static void *open_beside(char *why, size_t why_bytes) {
  static const char *const places[] = {"liblupe-runtime.so", "lupe/liblupe-runtime.so",
                                       LUPE_LIB_DIR "/liblupe-runtime.so", NULL};
  char path[PATH_MAX];
  if (lupe__beside(path, places) != LUPE_OK) {
    snprintf(why, why_bytes,
             "this installation is not whole: liblupe-runtime.so cannot be found beside liblupe.so "
             "or in " LUPE_LIB_DIR);
    return NULL;
  }
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) snprintf(why, why_bytes, "the runtime cannot be loaded: %s", dlerror());
  return library;
}

lupe_status lupe__runtime_load(char *why, size_t why_bytes) {
  if (runtime.runs && !lupe__runtime_join(0)) {
    snprintf(why, why_bytes,
             "the runtime that was stopped last has not ended yet: try again later, or use LUPE_MODE_HELPER");
    return LUPE_EINUSE;
  }
  if (run_runtime) return LUPE_OK;
  const dependency *which;
  const char *whose = foreign(&which);
  if (whose) {
    snprintf(why, why_bytes,
             "%s exports a %s of its own (%s and others), which a runtime inside of this process would meet "
             "in the "
             "place of its own: use LUPE_MODE_HELPER",
             whose, which->what, which->function);
    return LUPE_EUNSUPPORTED;
  }
  void *library = open_beside(why, why_bytes);
  if (!library) return LUPE_ENOENT;
  lupe_embedded_main_fn *entry = (lupe_embedded_main_fn *)dlsym(library, "lupe_embedded_main");
  if (!entry) {
    snprintf(why, why_bytes, "the runtime cannot be loaded: %s", dlerror());
    return LUPE_ENOENT;
  }
  if (lupe__libuv_settle(library) != LUPE_OK) {
    snprintf(why, why_bytes,
             "the runtime has no event loop: no descriptors or memory are left, or libuv is not usable");
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
  atomic_store(&runtime.ended, true);
  return unused;
}

lupe_status lupe__runtime_run(int calls, int events, const int not_mine[2], char *why, size_t why_bytes) {
  pthread_attr_t attributes;
  runtime.ends = (lupe_embedded){.calls = calls,
                                 .events = events,
                                 .thread_begins = thread_begins,
                                 .thread_ends = lupe_agent_release_thread};
  memcpy(runtime.not_mine, not_mine, sizeof runtime.not_mine);
  runtime.status = LUPE_OK;
  atomic_store(&runtime.ended, false);
  sem_init(&runtime.settled, 0, 0);
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  int failed =
      pthread_create(&runtime.thread, &attributes, runtime_main, NULL); /* signals: as the caller's */
  pthread_attr_destroy(&attributes);
  if (failed) {
    snprintf(why, why_bytes, "no thread for the runtime can be started: %s", strerror(failed));
    return LUPE_ENOMEM;
  }
  while (sem_wait(&runtime.settled) != 0) continue;
  sem_destroy(&runtime.settled);
  runtime.runs = runtime.status == LUPE_OK;
  if (runtime.runs) return LUPE_OK;
  pthread_join(runtime.thread, NULL);
  snprintf(why, why_bytes, "the runtime's thread gets no descriptor table of its own");
  return runtime.status;
}

bool lupe__runtime_join(int64_t wait_ms) {
  if (!lupe__wait_until(&runtime.ended, lupe__now_ms() + wait_ms)) return false;
  pthread_join(runtime.thread, NULL); /* it does nothing more */
  runtime.runs = false;
  return true;
}

void lupe__runtime_forget(void) {
  runtime.runs = false;
}
