/* proc_stat.h -- the files below /proc/PID and /proc/PID/task/TID, read one at a time: what process.c and
 * threads.c share. Thread: any. */
#ifndef LUPE_STORE_PROC_STAT_H
#define LUPE_STORE_PROC_STAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/lupe.h"

/* Fields of /proc/PID/stat behind the name, counted from 0 at the state (see proc(5), field 3). */
enum {
  STAT_MINOR = 7,
  STAT_MAJOR = 9,
  STAT_USER = 11,
  STAT_SYSTEM = 12,
  STAT_THREADS = 17,
  STAT_START = 19,
  STAT_USED
};

typedef struct lupe_proc_stat {
  char state;
  char name[64]; /* of the thread; a program may set it */
  uint64_t fields[STAT_USED];
} lupe_proc_stat;

/* The folder of one process: it stays that process's, whoever gets the pid next. */
lupe_status lupe__proc_open(pid_t pid, int *out_folder);

/* One read of a file into `out`, with a NUL behind it. */
lupe_status lupe__proc_read(int folder, const char *name, char *out, size_t capacity, size_t *out_bytes);

/* `count` numbers, one blank before each but the first. A negative one reads as 0: all that we use are
 * counts. */
bool lupe__proc_numbers(const char *text, uint64_t *out, size_t count);

/* `stat` below `folder`. LUPE_ECORRUPT where it is not of the form that proc(5) describes. */
lupe_status lupe__proc_stat(int folder, lupe_proc_stat *out);

#endif
