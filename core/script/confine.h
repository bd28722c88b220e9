/* confine.h -- the worker's last step before it serves: a seccomp filter. From then on it computes, has
 * memory, and reads and writes what is open already; opening, connecting, starting and signalling fail with
 * EPERM. Of other files it can learn that they are there, how large and how old: no filter sees a path. One
 * of the walls, not the only one: rules can't reach a system call to begin with (lua/lupe/sandbox.lua). */
#ifndef LUPE_SCRIPT_CONFINE_H
#define LUPE_SCRIPT_CONFINE_H

/* For good, and for all that the calling thread does from now on; all files that it will ever read must have
 * been read, and no_new_privs be set (prctl). Returns NULL, or, where the process is not confined, why not:
 * static text, or valid until the next call. Thread: the only one. */
const char *lupe_confine(void);
#endif
