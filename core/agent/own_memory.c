#include "core/agent/own_memory.h"

#include <stdatomic.h>
#include <string.h>

#include "core/agent/jemalloc.h"

enum { DIRTY_MS = 1000 };

static _Atomic int arena = LUPE_NO_ARENA;
static _Thread_local struct { /* as it was, in a thread that is in */
  bool inside;
  unsigned arena;
  bool sampled, cached;
} outside;

int lupe_own_memory_arena(void) {
  return atomic_load(&arena);
}

/* Of two threads that come first at the same time, the second one's arena goes. */
static int find_arena(void) {
  unsigned fresh = 0;
  int seen = atomic_load(&arena);
  if (seen != LUPE_NO_ARENA) return seen;
  if (!lupe_jemalloc_get("arenas.create", &fresh, sizeof fresh)) return LUPE_NO_ARENA;
  /* What a check or a profile took is not to stand as the program's memory until the next one. */
  lupe_jemalloc_set_decay("arena.0.dirty_decay_ms", fresh, DIRTY_MS);
  lupe_jemalloc_set_decay("arena.0.muzzy_decay_ms", fresh, 0);
  if (atomic_compare_exchange_strong(&arena, &seen, (int)fresh)) return (int)fresh;
  lupe_jemalloc_act("arena.0.destroy", fresh);
  return seen;
}

static unsigned move_to(unsigned to) {
  unsigned from = to;
  size_t bytes = sizeof from;
  mallctl("thread.arena", &from, &bytes, &to, sizeof to);
  return from;
}

static bool samples(void) {
  return lupe_jemalloc_flag("config.prof") && lupe_jemalloc_flag("opt.prof");
}

void lupe_own_memory_enter(void) {
  if (outside.inside || !lupe_jemalloc_is_malloc()) return;
  outside.sampled = samples() && lupe_jemalloc_flag("thread.prof.active");
  if (outside.sampled) lupe_jemalloc_set("thread.prof.active", false);
  outside.cached = lupe_jemalloc_flag("thread.tcache.enabled");
  if (outside.cached) lupe_jemalloc_set("thread.tcache.enabled", false);
  int its = find_arena();
  if (its != LUPE_NO_ARENA) outside.arena = move_to((unsigned)its);
  outside.inside = true;
}

void lupe_own_memory_leave(void) {
  if (!outside.inside) return;
  outside.inside = false;
  if (lupe_own_memory_arena() != LUPE_NO_ARENA) move_to(outside.arena);
  if (outside.cached) lupe_jemalloc_set("thread.tcache.enabled", true);
  if (outside.sampled) lupe_jemalloc_set("thread.prof.active", true);
}

void lupe_own_memory_purge(void) {
  int its = lupe_own_memory_arena();
  if (its != LUPE_NO_ARENA) lupe_jemalloc_act("arena.0.purge", (unsigned)its);
}

/* ---- figures ---- */

static uint64_t read_own(const char *of_first, size_t its) {
  lupe_jemalloc_name name = lupe_jemalloc_look_up(of_first);
  return lupe_jemalloc_read(&name, 2, its);
}

static void take(uint64_t *from, uint64_t bytes) {
  *from -= bytes < *from ? bytes : *from;
}

void lupe_own_memory_subtract(lupe_allocator_figures *f) {
  int number = lupe_own_memory_arena();
  if (number == LUPE_NO_ARENA) return;
  size_t its = (size_t)number;
  uint64_t page_bytes = lupe_jemalloc_size("arenas.page");
  f->own_allocated_bytes =
      read_own("stats.arenas.0.small.allocated", its) + read_own("stats.arenas.0.large.allocated", its);
  f->own_active_bytes = read_own("stats.arenas.0.pactive", its) * page_bytes;
  f->own_resident_bytes = read_own("stats.arenas.0.resident", its);
  take(&f->allocated_bytes, f->own_allocated_bytes);
  take(&f->active_bytes, f->own_active_bytes);
  take(&f->resident_bytes, f->own_resident_bytes);
  take(&f->metadata_bytes, read_own("stats.arenas.0.base", its) + read_own("stats.arenas.0.internal", its));
  take(&f->mapped_bytes, read_own("stats.arenas.0.mapped", its));
  take(&f->retained_bytes, read_own("stats.arenas.0.retained", its));
  take(&f->dirty_bytes, read_own("stats.arenas.0.pdirty", its) * page_bytes);
  take(&f->muzzy_bytes, read_own("stats.arenas.0.pmuzzy", its) * page_bytes);
  take(&f->cached_bytes, read_own("stats.arenas.0.tcache_bytes", its));
  if (f->arena_count > 0) f->arena_count--;
}
