/* lupe.h -- lupe in a program of your own: start and stop it, mark what matters, take what it sees.
 *
 *   #include <lupe.h>
 *   int main(void) {
 *     if (lupe_start(NULL) != LUPE_OK) fprintf(stderr, "lupe: %s\n", lupe_error());
 *     ...
 *     lupe_stop();
 *   }
 *
 * C11 and C++11. Functions return a lupe_status and write results through out-pointers, on LUPE_OK only;
 * lupe_error() says in words what went wrong. Any thread may call any function, unless it says otherwise;
 * none is for signal handlers, and none is a point of cancellation. Texts that lupe hands out are UTF-8,
 * NUL-terminated, and freed by lupe_free. There is one lupe in a process, so functions need no handle.
 *
 * In a forked child none runs, and functions that ask one answer LUPE_ENOENT. What the child does is seen all
 * the same, by its parent's lupe: as a process of its own, once it has lived for 0.1 s without exec. A child
 * may call lupe_start itself (where an address to listen on is set, with another one): it has a lupe of its
 * own then, and the parent's sees it no more.
 *
 * With LUPE_DISABLE defined before it is included, this header is all there is: everything compiles to
 * nothing, no library is needed, and every function that can fail answers LUPE_EUNSUPPORTED. */
#ifndef LUPE_H
#define LUPE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lupe_status {
  LUPE_OK = 0,
  LUPE_EINVAL,      /* an argument or an input is not of the documented form */
  LUPE_ENOMEM,      /* memory, or a configured bound, is used up */
  LUPE_EFULL,       /* a bounded queue is full; nothing was added */
  LUPE_EAGAIN,      /* nothing there now */
  LUPE_ECORRUPT,    /* data from another process breaks its format */
  LUPE_EVERSION,    /* the other side speaks another version of the wire */
  LUPE_ENOENT,      /* no such thing */
  LUPE_EPERM,       /* not allowed */
  LUPE_EIO,         /* the system refused; errno tells */
  LUPE_ENOSPC,      /* the disk is full */
  LUPE_EINUSE,      /* an address is taken; or lupe runs already */
  LUPE_ESCRIPT,     /* a Lua script failed; the message was logged */
  LUPE_EUNSUPPORTED /* this system or program cannot do it */
} lupe_status;

/* Where the runtime (HTTP, Lua, history) is. The agent that samples is in this process, in every mode. */
typedef enum lupe_mode {
  LUPE_MODE_AUTO = 0, /* LUPE_MODE_DAEMON where the environment has LUPE_SOCKET, else LUPE_MODE_IN_PROCESS */
  LUPE_MODE_IN_PROCESS, /* in threads of this process. Not for programs that export lua_* of their own:
                           LUPE_EUNSUPPORTED then */
  LUPE_MODE_HELPER, /* in a process that lupe_start starts and lupe_stop ends; it ends with this one, too */
  LUPE_MODE_DAEMON  /* in `lupe serve`, whose socket the environment names in LUPE_SOCKET. What it sees is
                       asked there: functions that ask the runtime answer LUPE_EUNSUPPORTED */
} lupe_mode;

typedef struct lupe_options {
  size_t size; /* sizeof(lupe_options), by LUPE_OPTIONS_INIT: later versions add fields at the end */
  lupe_mode mode;
  /* "NAME=VALUE" each, then NULL; NULL: none. The names of `lupe run --help` and lupe.conf.lua, such as
   * "listen=127.0.0.1:0" or "rules=/etc/app/rules". They come before the environment; a lupe.conf.lua is read
   * only where "config" (or LUPE_CONFIG) names it. Copied. */
  const char *const *settings;
  /* The host's loop: callbacks come on its thread while it runs. It does not keep the loop alive. lupe_start
   * is then called on that thread, and lupe_stop there or on another while the loop runs; after it the loop
   * needs one more turn before it is closed. NULL: callbacks come on a thread of lupe's. The program must
   * have libuv's functions where all libraries see them, as with the shared libuv: LUPE_EUNSUPPORTED
   * otherwise. */
  struct uv_loop_s *loop;
} lupe_options;
#define LUPE_OPTIONS_INIT \
  { sizeof(lupe_options), LUPE_MODE_AUTO, NULL, NULL }

/* A name under which spans are counted, or memory and CPU time are told: static, one for each place, by
 * LUPE_MARK_INIT("name"); or for a name that is known only at run time, by lupe_mark_named. What follows the
 * name is lupe's. */
typedef struct lupe_mark {
  const char *name; /* 95 bytes are told; stays as it is while the mark is used */
  unsigned id;
  unsigned begun;
} lupe_mark;
#define LUPE_MARK_INIT(name) \
  { name, 0, 0 }

/* A piece of work under way; owned by whoever began it. It may end on another thread. */
typedef struct lupe_span {
  lupe_mark *mark;
  unsigned long long began; /* 0: not counted */
} lupe_span;

typedef enum lupe_event_kind {
  LUPE_EVENT_FINDING = 1, /* a rule's finding that is new, or has become worse or better */
  LUPE_EVENT_ALERT        /* an alert was raised, or is over */
} lupe_event_kind;

/* Valid during the callback. */
typedef struct lupe_event {
  size_t size; /* of this struct, in the library: later versions add fields at the end */
  lupe_event_kind kind;
  const char *rule;     /* its id, such as "leak.steady-growth" */
  const char *severity; /* "info", "low", "medium", "high" or "critical" */
  const char *text;     /* in words, one line */
  const char *json;     /* all of it, as an element of /api/findings, also of an alert */
} lupe_event;

typedef void (*lupe_event_cb)(void *arg, const lupe_event *event);

#ifndef LUPE_DISABLE

#ifndef LUPE_API
#define LUPE_API __attribute__((visibility("default")))
#endif

/* "0.1.0", of the library that runs. Static. */
LUPE_API const char *lupe_version(void);
/* A short English text; never NULL, static. */
LUPE_API const char *lupe_status_text(lupe_status status);
/* What went wrong in the last call on this thread that failed, as a sentence; "" where none did. Valid until
 * the next call on this thread. */
LUPE_API const char *lupe_error(void);
/* NULL is a no-op. */
LUPE_API void lupe_free(void *text);

/* -- start and stop --------------------------------------------------------------------------- */

/* Starts, and returns when the runtime is ready and the agent samples. NULL: all defaults. May be called
 * again after lupe_stop. Without jemalloc, or with one that does not profile, it starts too: lupe_about says
 * what is missing. LUPE_EINUSE: lupe runs in this process, started by lupe_start or by `lupe run`, or has not
 * ended yet though lupe_stop has given it up, or the address to listen on is taken; LUPE_EINVAL: an option or
 * a setting; LUPE_ENOENT: the daemon, or a part of the installation; LUPE_ESCRIPT: what was added does not
 * load; LUPE_EUNSUPPORTED, LUPE_ENOMEM, LUPE_EIO. Nothing is left running then. While lupe runs, lines on
 * stderr that begin with "lupe" tell of alerts, and of what is wrong with rules and routes. */
LUPE_API lupe_status lupe_start(const lupe_options *options);
/* Stops, and returns when no thread, descriptor or timer of lupe's is left in the process, and its callback
 * has returned; at most some seconds. Calls that wait on other threads are answered LUPE_ENOENT.
 * LUPE_ENOENT: none runs; LUPE_EPERM: called in the callback on lupe's own thread; LUPE_EIO: the runtime has
 * not ended in time, and is left to itself. A program that exits without has it stopped before the
 * destructors of libraries run; so has one that ends since all threads of its own have left. */
LUPE_API lupe_status lupe_stop(void);
/* What runs, as JSON: "mode", "version", "url" (null: none), "socket", "pid" (of the runtime), "allocator",
 * and "unavailable": an array of { "what", "reason" }. LUPE_ENOENT: none runs. */
LUPE_API lupe_status lupe_about(char **out_json);

/* -- what it sees ----------------------------------------------------------------------------- */
/* Calls wait for the answer, and for each other; a rule has half a second. LUPE_ENOENT: none runs, or it was
 * stopped meanwhile; LUPE_EAGAIN: no heap profile is in yet; LUPE_EUNSUPPORTED in LUPE_MODE_DAEMON. */

/* The report of `lupe run --report=json`, as of now. */
LUPE_API lupe_status lupe_report(char **out_json);
/* Writes a snapshot, as POST /api/profiling/snapshot does, to a file (mode 0600, written aside and renamed;
 * one that is there is replaced). Relative paths count from the working folder at the call. It is JSON: what
 * `lupe report` reads is a recording, by the setting "record". LUPE_ENOSPC, LUPE_EPERM, LUPE_EIO. */
LUPE_API lupe_status lupe_save_snapshot(const char *path);
/* Runs one rule on what is in memory now: { "rule", "findings": [...], "elapsed_ms" }. LUPE_ENOENT: no such
 * rule; LUPE_ESCRIPT: it failed, lupe_error says where. */
LUPE_API lupe_status lupe_evaluate(const char *rule_id, char **out_json);
/* Answers GET of a path such as "/api/profiling/memory?target=1" without HTTP. *out_http_status (may be NULL)
 * is written on LUPE_OK, whatever it is. */
LUPE_API lupe_status lupe_get(const char *path, int *out_http_status, char **out_body);

/* -- what the host adds ----------------------------------------------------------------------- */
/* Text of a file of Lua, known to lupe under `name` ("queue_depth.lua": what errors and /api/rules call it).
 * The same name again replaces it. Before lupe_start or after: what is added stays for later starts, too, and
 * is checked where lupe runs (LUPE_ESCRIPT: it does not load, lupe_error says why, and it is not kept), else
 * by lupe_start (which fails with LUPE_ESCRIPT). At most 64 files of 64 KiB: LUPE_EFULL, LUPE_EINVAL. In
 * LUPE_MODE_DAEMON they are only kept: the daemon has rules and routes of its own. */

/* A rule, as in a folder that the setting "rules" names. */
LUPE_API lupe_status lupe_add_rule(const char *name, const char *text);
/* A route, as in a folder that the setting "routes" names. */
LUPE_API lupe_status lupe_add_route(const char *name, const char *text);
/* A module that rules and routes may require("name"), `name` without ".lua". It has their environment, and
 * runs once in each of them. */
LUPE_API lupe_status lupe_add_module(const char *name, const char *text);

/* Calls `callback` for what happens from now on, one call at a time: on the thread of options.loop, or else
 * on a thread of lupe's own ("lupe-events") on which signals are blocked. It may call all functions but
 * lupe_stop (which it may call on the loop's thread). NULL: nobody is told. When this returns, the former
 * callback has returned for the last time, unless it is called in it. Before lupe_start or after. */
LUPE_API lupe_status lupe_set_callback(lupe_event_cb callback, void *arg);

/* -- marks ------------------------------------------------------------------------------------ */
/* No lock and no malloc. No system call either, but where a thread ends its first span, or its first one
 * under a name. Nothing is counted while lupe does not run. errno stays. Thread: any. */

/* The mark of a name, kept for the life of the process: not for names without bound. From the 1,024th on all
 * share one, "(others)". Slower than a static mark: it looks the name up. Never NULL. */
LUPE_API lupe_mark *lupe_mark_named(const char *name);

/* Begins a span, and ends it: one more is counted, with its duration. */
LUPE_API lupe_span lupe_span_begin(lupe_mark *mark);
LUPE_API void lupe_span_end(lupe_span *span); /* a second time is a no-op */

/* From here on what this thread allocates, and the CPU time it uses, belongs to the tag, and to those that it
 * is nested in; eight deep, what is deeper belongs to the eighth. To be left in the reverse order. Time that
 * it waits is told without tags. */
LUPE_API void lupe_tag_enter(lupe_mark *tag);
LUPE_API void lupe_tag_leave(lupe_mark *tag);

#else /* LUPE_DISABLE */

#define LUPE__NOTHING static inline __attribute__((unused))
/* clang-format off */
LUPE__NOTHING const char *lupe_version(void) { return ""; }
LUPE__NOTHING const char *lupe_status_text(lupe_status s) { return s == LUPE_OK ? "ok" : "lupe is disabled"; }
LUPE__NOTHING const char *lupe_error(void) { return "lupe is disabled: the program was built with LUPE_DISABLE"; }
LUPE__NOTHING void lupe_free(void *text) { (void)text; }
LUPE__NOTHING lupe_status lupe_start(const lupe_options *o) { (void)o; return LUPE_EUNSUPPORTED; }
LUPE__NOTHING lupe_status lupe_stop(void) { return LUPE_EUNSUPPORTED; }
LUPE__NOTHING lupe_status lupe_about(char **out) { (void)out; return LUPE_EUNSUPPORTED; }
LUPE__NOTHING lupe_status lupe_report(char **out) { (void)out; return LUPE_EUNSUPPORTED; }
LUPE__NOTHING lupe_status lupe_save_snapshot(const char *path) { (void)path; return LUPE_EUNSUPPORTED; }
LUPE__NOTHING lupe_status lupe_evaluate(const char *r, char **out) { (void)r; (void)out; return LUPE_EUNSUPPORTED; }
LUPE__NOTHING lupe_status lupe_get(const char *p, int *s, char **out) { (void)p; (void)s; (void)out; return LUPE_EUNSUPPORTED; }
LUPE__NOTHING lupe_status lupe_add_rule(const char *n, const char *t) { (void)n; (void)t; return LUPE_EUNSUPPORTED; }
LUPE__NOTHING lupe_status lupe_add_route(const char *n, const char *t) { (void)n; (void)t; return LUPE_EUNSUPPORTED; }
LUPE__NOTHING lupe_status lupe_add_module(const char *n, const char *t) { (void)n; (void)t; return LUPE_EUNSUPPORTED; }
LUPE__NOTHING lupe_status lupe_set_callback(lupe_event_cb c, void *arg) { (void)c; (void)arg; return LUPE_EUNSUPPORTED; }
LUPE__NOTHING lupe_mark *lupe_mark_named(const char *n) { static lupe_mark none = LUPE_MARK_INIT(""); (void)n; return &none; }
LUPE__NOTHING lupe_span lupe_span_begin(lupe_mark *m) { lupe_span s = {m, 0}; return s; }
LUPE__NOTHING void lupe_span_end(lupe_span *s) { (void)s; }
LUPE__NOTHING void lupe_tag_enter(lupe_mark *t) { (void)t; }
LUPE__NOTHING void lupe_tag_leave(lupe_mark *t) { (void)t; }
/* clang-format on */
#undef LUPE__NOTHING
#endif

#ifdef __cplusplus
}
#endif

/* -- scopes ----------------------------------------------------------------------------------- */
/* LUPE_SPAN("request"); counts the time from here to the end of the block, however that is left.
 * LUPE_TAG("html::cache"); gives it a tag. The name is a string literal. LUPE_TAG_NAMED(name) takes any text,
 * by lupe_mark_named.
 *
 * They declare, so they stand where a declaration may: behind a case label in braces of their own. Each at
 * most once in a line. In C no goto may lead into the block from before them, past them: gcc does not say so,
 * and what was never begun would be ended. */

#define LUPE__JOINED(a, b) a##b
#define LUPE__NAME(prefix, line) LUPE__JOINED(prefix, line)

#if defined(LUPE_DISABLE)
#define LUPE_SPAN(name) ((void)sizeof("" name ""))
#define LUPE_TAG(name) ((void)sizeof("" name ""))
#define LUPE_TAG_NAMED(name) ((void)lupe_mark_named(name))
#elif defined(__cplusplus)
namespace lupe {
class span_scope {
 public:
  /* Inlined, so that a span belongs to the function that it is in. */
  explicit __attribute__((always_inline)) span_scope(lupe_mark *mark) : span_(lupe_span_begin(mark)) {}
  ~span_scope() { lupe_span_end(&span_); }
  span_scope(const span_scope &) = delete;
  span_scope &operator=(const span_scope &) = delete;

 private:
  lupe_span span_;
};
class tag_scope {
 public:
  explicit tag_scope(lupe_mark *tag) : tag_(tag) { lupe_tag_enter(tag); }
  ~tag_scope() { lupe_tag_leave(tag_); }
  tag_scope(const tag_scope &) = delete;
  tag_scope &operator=(const tag_scope &) = delete;

 private:
  lupe_mark *tag_;
};
}  // namespace lupe
#define LUPE__SCOPE(scope, prefix, name)                                             \
  static lupe_mark LUPE__NAME(prefix##mark_, __LINE__) = LUPE_MARK_INIT("" name ""); \
  ::lupe::scope LUPE__NAME(prefix, __LINE__)(&LUPE__NAME(prefix##mark_, __LINE__))
#define LUPE_SPAN(name) LUPE__SCOPE(span_scope, lupe_span_, name)
#define LUPE_TAG(name) LUPE__SCOPE(tag_scope, lupe_tag_, name)
#define LUPE_TAG_NAMED(name) ::lupe::tag_scope LUPE__NAME(lupe_named_, __LINE__)(lupe_mark_named(name))
#else
static inline __attribute__((unused)) lupe_mark *lupe__entered(lupe_mark *tag) {
  lupe_tag_enter(tag);
  return tag;
}
static inline __attribute__((unused)) void lupe__leave(lupe_mark **tag) {
  lupe_tag_leave(*tag);
}
#define LUPE_SPAN(name)                                                                        \
  static lupe_mark LUPE__NAME(lupe_span_mark_, __LINE__) = LUPE_MARK_INIT("" name "");         \
  lupe_span LUPE__NAME(lupe_span_, __LINE__) __attribute__((cleanup(lupe_span_end), unused)) = \
      lupe_span_begin(&LUPE__NAME(lupe_span_mark_, __LINE__))
#define LUPE_TAG(name)                                                                       \
  static lupe_mark LUPE__NAME(lupe_tag_mark_, __LINE__) = LUPE_MARK_INIT("" name "");        \
  lupe_mark *LUPE__NAME(lupe_tag_, __LINE__) __attribute__((cleanup(lupe__leave), unused)) = \
      lupe__entered(&LUPE__NAME(lupe_tag_mark_, __LINE__))
#define LUPE_TAG_NAMED(name)                                                                   \
  lupe_mark *LUPE__NAME(lupe_named_, __LINE__) __attribute__((cleanup(lupe__leave), unused)) = \
      lupe__entered(lupe_mark_named(name))
#endif

#endif
