/* own_maps.h -- the mappings of this process, as the kernel shows them: without them nobody can name an
 * address. Thread: any that lives; the process's own file is empty once its first thread has left by
 * pthread_exit. */
#ifndef LUPE_AGENT_OWN_MAPS_H
#define LUPE_AGENT_OWN_MAPS_H

#define LUPE_OWN_MAPS "/proc/thread-self/maps"

/* A descriptor, or -1: there is no /proc. */
int lupe_own_maps_open(void);
/* Writes what `maps` shows now to `to`. 0 or an errno. */
int lupe_own_maps_copy(int maps, int to);

#endif
