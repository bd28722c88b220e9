/* proof.h -- what a leak proof tells of one process. The agent forks twice, some seconds apart; the second
 * child writes this block into a memfd, which passes to the runtime with LUPE_PROVED, sealed.
 *
 *   lupe_proof_head | lupe_proof_object objects[object_count] | uint64_t pcs[pc_count]
 *   | uint32_t stack_first[stack_count + 1]
 *
 * An object is one that jemalloc has sampled: it stands for 1 / (1 - exp(-size / period)) objects of its
 * size. Native byte order; all counts are to be checked by who reads them. */
#ifndef LUPE_WIRE_PROOF_H
#define LUPE_WIRE_PROOF_H

#include <stdint.h>

#define LUPE_PROOF_MAGIC UINT64_C(0x314652504550554c) /* "LUPEPRF1" little endian */
enum { LUPE_PROOF_VERSION = 1, LUPE_PROOF_READ_TIMES = 4 };
#define LUPE_PROOF_NONE UINT32_MAX /* no stack, holder or group */

/* How a proof ended. */
typedef enum lupe_proof_outcome {
  LUPE_PROOF_COMPLETE = 0,
  /* Refused before anything was forked. */
  LUPE_PROOF_BUSY = 1,         /* another one is under way in this process */
  LUPE_PROOF_NO_PROFILING = 2, /* there are no sampled objects to be told about */
  LUPE_PROOF_UNSUPPORTED = 3,  /* the child could not be hidden: no syscall user dispatch here */
  LUPE_PROOF_SIGSYS_TAKEN = 4, /* the program handles SIGSYS itself, or blocks it */
  LUPE_PROOF_NO_MEMORY = 5,    /* too little is free, on the machine or in the cgroup, for what gets copied */
  LUPE_PROOF_HEAP_TOO_LARGE = 6, /* above max_heap_bytes */
  LUPE_PROOF_VFORK = 7,          /* a thread is in the midst of a vfork */
  LUPE_PROOF_NO_PROC = 8,        /* /proc cannot be read here */
  LUPE_PROOF_FORK_FAILED = 9,    /* `error` tells */
  LUPE_PROOF_LEAVING = 10,       /* the program exits, or profiling is switched off */
  /* Given up on; read_bytes tells how far it came. */
  LUPE_PROOF_TIME = 11,   /* max_ms passed */
  LUPE_PROOF_SHORT = 12,  /* the machine or the cgroup ran short of memory meanwhile */
  LUPE_PROOF_TABLES = 13, /* its own tables would have become larger than max_table_bytes */
  LUPE_PROOF_KILLED = 14, /* the child ended otherwise: `error` is its signal, or minus its exit status */
  LUPE_PROOF_NOT_UNDERSTOOD = 15, /* this jemalloc's bookkeeping is not of the form that is known */
  LUPE_PROOF_BYTES = 16, /* it would have read more than LUPE_PROOF_READ_TIMES times max_heap_bytes */
  LUPE_PROOF_OUTCOMES = 17,
} lupe_proof_outcome;

/* Where pointers may be that no reading finds: bits of `hidden`. Any of them makes less than a proof. */
enum {
  LUPE_HIDDEN_IO_URING = 1,      /* user_data of requests under way */
  LUPE_HIDDEN_AIO = 2,           /* the same of io_submit */
  LUPE_HIDDEN_TIMERS = 4,        /* POSIX timers' user data, where /proc does not show it */
  LUPE_HIDDEN_EPOLL = 8,         /* epoll's data, where /proc does not show it */
  LUPE_HIDDEN_LUAJIT = 16,       /* light userdata is kept in parts */
  LUPE_HIDDEN_RUNTIME = 32,      /* another runtime that is known to encode pointers (V8, a JVM, CoreCLR) */
  LUPE_HIDDEN_NOT_FORKED = 64,   /* mappings that a fork does not copy (MADV_DONTFORK) */
  LUPE_HIDDEN_WIPED = 128,       /* mappings that a fork empties (MADV_WIPEONFORK) */
  LUPE_HIDDEN_DEVICE = 256,      /* writable mappings of devices, which are not read */
  LUPE_HIDDEN_USERFAULT = 512,   /* mappings that another process fills on demand */
  LUPE_HIDDEN_UNREADABLE = 1024, /* memory that could not be read */
};

typedef enum lupe_proof_state {
  LUPE_PROOF_REACHABLE = 0,   /* something in use points to its start */
  LUPE_PROOF_INTERIOR = 1,    /* only into its middle */
  LUPE_PROOF_STACK_ONLY = 2,  /* only threads' stacks lead to it; `tid` names the first one found */
  LUPE_PROOF_UNREACHABLE = 3, /* nothing leads to it, and nothing did in the first scan */
  LUPE_PROOF_UNSETTLED = 4,   /* nothing leads to it now, but something did, or it was not there yet */
  LUPE_PROOF_STATES = 5,
} lupe_proof_state;

typedef struct lupe_proof_object {
  uint64_t address;
  uint64_t size_bytes; /* usable: its size class */
  uint32_t stack;      /* index into stacks */
  uint32_t holder;     /* object through which it was found: the nearest one sampled; or LUPE_PROOF_NONE */
  uint32_t group;  /* of what nothing leads to: objects that one missed pointer would explain, sampled or not,
                     have  one number; else LUPE_PROOF_NONE */
  uint32_t behind; /* of the head of a group: sampled objects in it beside the head; else 0 */
  int32_t tid;     /* see LUPE_PROOF_STACK_ONLY; else 0 */
  uint8_t state;   /* lupe_proof_state */
  uint8_t head;    /* 1: stands for its group */
  uint16_t unused;
} lupe_proof_object;

typedef struct lupe_proof_head {
  uint64_t magic;
  uint32_t version, hidden;
  int64_t time_ms; /* Unix time of the second scan */
  uint64_t sample_period_bytes;
  uint32_t interval_ms; /* between the two scans */
  uint32_t threads;     /* of the program, without the agent's */
  uint32_t registers;   /* of waiting threads that are in no memory, hence so many pointers that may have been
                           missed */
  uint32_t object_count, stack_count, pc_count;
  uint64_t heap_objects, heap_bytes; /* all that was allocated, sampled or not; exact */
  uint64_t unreachable_objects,
      unreachable_bytes;        /* of those, what the second scan found nothing to lead to */
  uint64_t read_bytes, scan_ns; /* by the second scan: memory read, and the CPU time it took */
  uint64_t table_bytes;         /* that its own tables took */
} lupe_proof_head;

#endif
