#include <string.h>
#include <sys/types.h>
#include <time.h>

#include "core/agent/heap.h"
#include "core/agent/jemalloc.h"
#include "core/agent/own_memory.h"
#include "core/clock.h"

/* The program's: what is lupe's own is not counted. */
static uint64_t count_live(lupe_jemalloc_name *name, size_t of_class) {
  if (name->length <= 4) return 0;
  name->mib[2] = LUPE_ALL_ARENAS;
  uint64_t all = lupe_jemalloc_read(name, 4, of_class), ours = 0;
  int own = lupe_own_memory_arena();
  if (all > 0 && own != LUPE_NO_ARENA) {
    name->mib[2] = (size_t)own;
    ours = lupe_jemalloc_read(name, 4, of_class);
  }
  return ours < all ? all - ours : 0;
}

static void read_classes(lupe_allocator_figures *f, const char *count_name, const char *size_name,
                         const char *live_name) {
  unsigned classes = 0;
  if (!lupe_jemalloc_get(count_name, &classes, sizeof classes)) return;
  lupe_jemalloc_name size = lupe_jemalloc_look_up(size_name), live = lupe_jemalloc_look_up(live_name);
  for (unsigned i = 0; i < classes && f->class_count < LUPE_SIZE_CLASSES_MAX; i++) {
    uint64_t live_count = count_live(&live, i);
    if (live_count == 0) continue;
    f->classes[f->class_count++] = (lupe_size_class){lupe_jemalloc_read(&size, 2, i), live_count};
  }
}

lupe_status lupe_heap_read_figures(lupe_allocator_figures *out) {
  if (!lupe_heap_found()->has_figures) return LUPE_ENOENT;
  uint64_t epoch = 1;
  mallctl("epoch", NULL, NULL, &epoch, sizeof epoch); /* what is read from here on is of one moment */
  memset(out, 0, sizeof *out);
  out->time_ms = lupe_clock_ns(CLOCK_REALTIME) / 1000000;
  out->allocated_bytes = lupe_jemalloc_size("stats.allocated");
  out->active_bytes = lupe_jemalloc_size("stats.active");
  out->metadata_bytes = lupe_jemalloc_size("stats.metadata");
  out->resident_bytes = lupe_jemalloc_size("stats.resident");
  out->mapped_bytes = lupe_jemalloc_size("stats.mapped");
  out->retained_bytes = lupe_jemalloc_size("stats.retained");
  uint64_t page_bytes = lupe_jemalloc_size("arenas.page");
  lupe_jemalloc_name dirty = lupe_jemalloc_look_up("stats.arenas.0.pdirty"),
                     muzzy = lupe_jemalloc_look_up("stats.arenas.0.pmuzzy");
  out->dirty_bytes = lupe_jemalloc_read(&dirty, 2, LUPE_ALL_ARENAS) * page_bytes;
  out->muzzy_bytes = lupe_jemalloc_read(&muzzy, 2, LUPE_ALL_ARENAS) * page_bytes;
  lupe_jemalloc_name cached = lupe_jemalloc_look_up("stats.arenas.0.tcache_bytes");
  out->cached_bytes = lupe_jemalloc_read(&cached, 2, LUPE_ALL_ARENAS);
  ssize_t decay_ms = 0;
  if (lupe_jemalloc_get("arenas.dirty_decay_ms", &decay_ms, sizeof decay_ms)) out->dirty_decay_ms = decay_ms;
  if (lupe_jemalloc_get("arenas.muzzy_decay_ms", &decay_ms, sizeof decay_ms)) out->muzzy_decay_ms = decay_ms;
  unsigned arenas = 0;
  if (lupe_jemalloc_get("arenas.narenas", &arenas, sizeof arenas)) out->arena_count = arenas;
  out->background_thread = lupe_jemalloc_flag("background_thread");
  out->thread_cache = lupe_jemalloc_flag("opt.tcache");
  lupe_own_memory_subtract(out);
  read_classes(out, "arenas.nbins", "arenas.bin.0.size", "stats.arenas.0.bins.0.curregs");
  read_classes(out, "arenas.nlextents", "arenas.lextent.0.size", "stats.arenas.0.lextents.0.curlextents");
  return LUPE_OK;
}
