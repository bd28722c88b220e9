/* proof_lines.h -- text of /proc, line by line, without allocation. Thread: any. */
#ifndef LUPE_AGENT_PROOF_LINES_H
#define LUPE_AGENT_PROOF_LINES_H

#include <stdbool.h>

/* Reads `fd` to its end and calls `take` for each line, without its newline and cut to some 4,600 bytes; the
 * line is the callee's until it returns. What no newline ends is no line. False: it cannot be read, or not to
 * its end. */
bool lupe_proof_lines_read(int fd, void (*take)(void *arg, char *line), void *arg);

#endif
