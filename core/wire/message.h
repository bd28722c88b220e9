/* message.h -- what agent and runtime say to each other on the control socket (SOCK_SEQPACKET).
 * One datagram is one message: `lupe_message` followed by the body that its type names. Descriptors
 * travel beside it (SCM_RIGHTS). Sizes are fixed; a message of another size is refused. */
#ifndef LUPE_WIRE_MESSAGE_H
#define LUPE_WIRE_MESSAGE_H

#include <stdint.h>

typedef enum lupe_message_type {
  LUPE_HELLO = 1,    /* agent: lupe_hello, with the segment's descriptor */
  LUPE_WELCOME = 2,  /* runtime: lupe_welcome */
  LUPE_PROFILE = 3,  /* runtime: lupe_profile_request */
  LUPE_PROFILED = 4, /* agent: lupe_profile_reply, with a memfd of heap_v2 text when status is 0 */
  LUPE_GOODBYE = 5,  /* agent: the program is exiting normally; nothing follows */
  LUPE_MAPS = 6,    /* agent, no body: a descriptor of its /proc/PID/maps, or of a copy; it takes the place of
                       the last one. Read from 0 to its end by pread, as often as one likes */
  LUPE_COMMAND = 7, /* runtime: lupe_agent_command */
  LUPE_COMMANDED = 8, /* agent: lupe_command_reply, one for each command, in their order */
  LUPE_PROVE = 9,     /* runtime: lupe_proof_request */
  LUPE_PROVED = 10,   /* agent: lupe_proof_reply, with a sealed memfd of proof.h where it is complete */
  LUPE_MARKS = 11,    /* agent, no body: the descriptor of its segment of marks.h; once, right after HELLO */
} lupe_message_type;

typedef struct lupe_message {
  uint32_t type;
  uint32_t body_bytes;
} lupe_message;

typedef enum lupe_heap_state {
  LUPE_HEAP_ON = 0,
  LUPE_HEAP_NO_JEMALLOC = 1,   /* mallctl is not in the process */
  LUPE_HEAP_NO_PROFILING = 2,  /* this jemalloc was built without --enable-prof */
  LUPE_HEAP_PROF_DISABLED = 3, /* opt.prof is false: MALLOC_CONF did not reach it or says so */
  LUPE_HEAP_NO_HOOK = 4,       /* profiling works, on jemalloc's own unwinder; no alloc_* figures */
  LUPE_HEAP_SWITCHED_OFF = 5,  /* the operator asked for the system's allocator */
} lupe_heap_state;

enum { LUPE_MEMORY_FUNCTIONS = 8 };
#define LUPE_MEMORY_FUNCTION_NAMES \
  "memcpy", "memmove", "memset", "memcmp", "memchr", "strlen", "strcmp", "strchr"

typedef struct lupe_hello {
  uint32_t version; /* LUPE_WIRE_VERSION */
  int32_t pid, ppid;
  uint32_t heap_state;          /* lupe_heap_state */
  uint64_t start_ticks;         /* field 22 of /proc/self/stat: tells a reused pid apart */
  uint64_t sample_period_bytes; /* 2^lg_sample; 0 unless heap profiling is on */
  uint32_t forked;              /* 1: a fork without exec of a program that was profiled already */
  char name[64];      /* base name of the file that was executed, as its exec named it; cut to size */
  char allocator[32]; /* "jemalloc 5.3.0-0-g..." cut to size, or "system" */
  /* Where the C library's functions of LUPE_MEMORY_FUNCTION_NAMES really are: chosen for this processor at
   * start, and often without a symbol. 0: not known. */
  uint64_t memory_functions[LUPE_MEMORY_FUNCTIONS];
} lupe_hello;

/* What a leak proof may take. */
typedef struct lupe_proof_limits {
  uint32_t interval_ms;     /* between its two scans */
  uint32_t max_ms;          /* of one scan */
  uint64_t max_heap_bytes;  /* of a process that is forked at all: its anonymous memory */
  uint64_t max_table_bytes; /* that a scan may use for itself */
  uint64_t min_free_bytes;  /* to be left free, on the machine and in the cgroup, all the while */
  double min_free_share; /* free memory without which it does not begin, of the process's anonymous memory */
} lupe_proof_limits;

typedef struct lupe_welcome {
  uint32_t version;
  uint32_t enabled;             /* 0: stay connected and quiet */
  uint32_t figures_interval_ms; /* how often to refresh lupe_allocator_figures */
  uint32_t cpu_hz;              /* CPU samples per second of a thread's CPU time; 0: none */
  uint32_t wall_hz;             /* looks at every thread per second; 0: none */
  uint32_t proof_at_exit;       /* 1: a leak proof is to be made when the program exits, with `proof` */
  uint32_t comes_back;          /* 1: a runtime that went away is to be looked for again: it is a daemon's */
  uint32_t unused;
  lupe_proof_limits proof;
} lupe_welcome;

typedef struct lupe_profile_request {
  uint64_t serial;
} lupe_profile_request;

typedef struct lupe_profile_reply {
  uint64_t serial; /* of the request; 0: unasked, the last one before exit */
  int32_t status;  /* 0, or an errno */
  uint32_t unused;
  uint64_t elapsed_ns;
  int64_t time_ms; /* Unix time of the profile */
} lupe_profile_reply;

typedef struct lupe_proof_request {
  uint64_t serial;
  lupe_proof_limits limits;
} lupe_proof_request;

typedef struct lupe_proof_reply {
  uint64_t serial;          /* of the request; 0: unasked, at exit */
  uint32_t outcome;         /* lupe_proof_outcome */
  int32_t error;            /* an errno or a signal, where the outcome says so; else 0 */
  uint64_t elapsed_ns;      /* from the request to the reply, the interval included */
  uint64_t pause_ns;        /* the longer of the two forks */
  uint64_t anonymous_bytes; /* of the process as it was forked; 0: not known */
  uint64_t read_bytes;      /* by the scan that ended it, as far as it came */
  int64_t time_ms;          /* Unix time of the reply */
} lupe_proof_reply;

typedef enum lupe_command_kind {
  LUPE_COMMAND_SAMPLING = 1, /* cpu_hz and wall_hz are what is asked for from now on, as in lupe_welcome */
  LUPE_COMMAND_PURGE = 2,    /* the allocator is to give back all pages that hold nothing */
  LUPE_COMMAND_DECAY = 3,    /* it is to do so after dirty_decay_ms and muzzy_decay_ms by itself */
} lupe_command_kind;

enum {
  LUPE_DECAY_NEVER = -1,
  LUPE_DECAY_SAME = -2, /* leave it as it is */
  LUPE_DECAY_MAX_MS = 86400000,
};

/* What a kind does not speak of is 0. */
typedef struct lupe_agent_command {
  uint64_t serial;
  uint32_t kind; /* lupe_command_kind */
  uint32_t cpu_hz, wall_hz;
  int32_t dirty_decay_ms, muzzy_decay_ms; /* or LUPE_DECAY_NEVER, LUPE_DECAY_SAME */
  uint32_t unused;
} lupe_agent_command;

typedef struct lupe_command_reply {
  uint64_t serial;
  int32_t
      status; /* 0, or an errno: ENOTSUP where the process has no such allocator, or it is to be left alone */
  uint32_t unused;
  uint64_t elapsed_ns;
} lupe_command_reply;

#endif
