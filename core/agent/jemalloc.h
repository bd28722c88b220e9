/* jemalloc.h -- jemalloc's control interface, by name and by number, where the process has it.
 * What reads and sets takes jemalloc's locks: thread: any but inside malloc. */
#ifndef LUPE_AGENT_JEMALLOC_H
#define LUPE_AGENT_JEMALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Weak: bound by the loader where the process has it, else NULL. */
extern int mallctl(const char *name, void *old, size_t *old_bytes, void *new, size_t new_bytes)
    __attribute__((weak));
extern int mallctlnametomib(const char *name, size_t *mib, size_t *mib_length) __attribute__((weak));
extern int mallctlbymib(const size_t *mib, size_t mib_length, void *old, size_t *old_bytes, void *new,
                        size_t new_bytes) __attribute__((weak));
extern size_t sallocx(const void *block, int flags) __attribute__((weak));

#define LUPE_ALL_ARENAS 4096 /* jemalloc's MALLCTL_ARENAS_ALL */
enum { LUPE_MIB_MAX = 8 };

/* Whether the process's malloc is jemalloc's. Only then may the functions below be called. Allocates (and
 * frees) a block. */
bool lupe_jemalloc_is_malloc(void);

/* False: this jemalloc does not have the name, or not of that size. */
bool lupe_jemalloc_get(const char *name, void *out, size_t bytes);
bool lupe_jemalloc_set(const char *name, bool value);

uint64_t lupe_jemalloc_size(const char *name); /* 0: it is not there */
bool lupe_jemalloc_flag(const char *name);     /* false: it is not there */

/* A name with an index in its middle, such as arenas.bin.0.size, looked up once and read for many. */
typedef struct lupe_jemalloc_name {
  size_t mib[LUPE_MIB_MAX];
  size_t length; /* 0: this jemalloc does not have it */
} lupe_jemalloc_name;
lupe_jemalloc_name lupe_jemalloc_look_up(const char *name);

/* The number behind it, `index` in the place `position`; 0: it is not there. */
uint64_t lupe_jemalloc_read(lupe_jemalloc_name *n, size_t position, size_t index);

/* Has an arena do what "arena.0.purge" and its like name. 0 or an errno. */
int lupe_jemalloc_act(const char *of_first, unsigned arena);
/* How long an arena keeps pages that hold nothing, of "arena.0.dirty_decay_ms" or its muzzy like; -1: for
 * ever. 0 or an errno: the arena has not begun, or there is no such name. */
int lupe_jemalloc_decay(const char *of_first, unsigned arena, ssize_t *ms);
int lupe_jemalloc_set_decay(const char *of_first, unsigned arena, ssize_t ms);

#endif
