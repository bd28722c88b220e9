/* proof_scan.h -- one scan of a leak proof, in the forked child: its bounds, its tables, how far it is. The
 * child has one thread and ends with the scan, so what goes too far ends it on the spot (lupe_proof_give_up),
 * and nothing is ever freed. Tables are mappings made after the list of the program's own was read: they are
 * not taken for the program's memory. Nothing here or in the other parts of the scan allocates. */
#ifndef LUPE_AGENT_PROOF_SCAN_H
#define LUPE_AGENT_PROOF_SCAN_H

#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#include "core/wire/message.h"
#include "core/wire/proof.h"

/* At the beginning of the file through which the child tells its parent. All zeros: it has not ended yet. */
typedef struct lupe_proof_progress {
  uint64_t read_bytes;
  uint32_t ended;   /* 1: `outcome` holds */
  uint32_t outcome; /* lupe_proof_outcome */
  int32_t error;
  uint32_t unused;
} lupe_proof_progress;

typedef struct lupe_proof_scan {
  lupe_proof_limits limits;
  int64_t deadline_ns; /* CLOCK_MONOTONIC */
  int progress_fd;
  uint64_t read_bytes;   /* of the program's memory */
  uint64_t passed_bytes; /* the same, and what it takes to find out that there is nothing to read */
  uint64_t look_bytes;   /* when to look at the clock again: of those */
  uint64_t table_bytes;  /* made so far */
  uint32_t hidden;       /* LUPE_HIDDEN_* */
} lupe_proof_scan;

/* Takes the process over: priority, signals, what becomes of it when its parent ends. Gives up where that has
 * ended already. */
void lupe_proof_scan_begin(lupe_proof_scan *s, pid_t parent);

/* A table of zeros. `expected_bytes` of it will be used. */
void *lupe_proof_table(lupe_proof_scan *s, size_t bytes, size_t expected_bytes);
/* More of a table will be used than was said. */
void lupe_proof_charge(lupe_proof_scan *s, size_t bytes);

/* So many bytes were read. Now and then looks at the bounds. */
void lupe_proof_read(lupe_proof_scan *s, size_t bytes);

/* So many pages were passed over, or asked about. */
void lupe_proof_pass(lupe_proof_scan *s, size_t pages);

_Noreturn void lupe_proof_give_up(lupe_proof_scan *s, lupe_proof_outcome outcome, int error);
/* LUPE_PROOF_COMPLETE. */
_Noreturn void lupe_proof_finish(lupe_proof_scan *s);

/* What is read between LUPE_PROOF_TRY and lupe_proof_untry may fault: then TRY returns a second time, with
 * false. Locals that change in between are lost, as setjmp has it. if (LUPE_PROOF_TRY()) read(); else
 * faulted(); lupe_proof_untry(); */
extern sigjmp_buf lupe_proof_fault;
extern volatile sig_atomic_t lupe_proof_trying;
#define LUPE_PROOF_TRY() (lupe_proof_trying = 1, sigsetjmp(lupe_proof_fault, 0) == 0)
static inline void lupe_proof_untry(void) {
  lupe_proof_trying = 0;
}

#endif
