/* pprof.h -- a snapshot as a profile for pprof: gzip'd messages of profile.proto.
 * The same snapshot gives the same bytes, as long as the modules' files stay what they are. Works through the
 * snapshot in pieces: beside the result it takes a few bytes per frame, and 3 MiB. Blocks on the modules'
 * files: for a thread of the pool. */
#ifndef LUPE_EXPORT_PPROF_H
#define LUPE_EXPORT_PPROF_H

#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/snapshot.h"

typedef enum lupe_pprof_type {
  LUPE_PPROF_HEAP = 0, /* alloc_objects, alloc_space, inuse_objects, inuse_space; shown first: inuse_space */
  LUPE_PPROF_ALLOCS,   /* the same; shown first: alloc_space */
  LUPE_PPROF_CPU,      /* samples, cpu: nanoseconds */
  LUPE_PPROF_WALL,     /* samples, wall: nanoseconds on a core (by CPU samples) and waiting in system calls */
} lupe_pprof_type;

/* The stacks of heap profiles begin with the function that the memory is counted for: allocators and their
 * wrappers are left out. CPU and wall samples bear the labels `thread` (name), `tid`, `pid`, `state` ("user",
 * "kernel", "running" or "waiting") and, of a waiting one, `syscall` (its number). Where no CPU samples are
 * taken a wall profile has the time on cores under the function [running]. *out is malloc'd and the caller's.
 * LUPE_EINVAL: no such type; LUPE_ENOMEM; LUPE_ECORRUPT: a stack or a chain of inlined calls longer than any
 * that lupe makes. */
lupe_status lupe_pprof_encode(const lupe_snapshot *s, lupe_pprof_type type, uint8_t **out, size_t *out_bytes);

#endif
