#include "core/agent/tag.h"

#include <stdatomic.h>

#include "core/agent/mark_names.h"
#include "core/lupe.h"
#include "core/wire/marks.h"

/* A signal handler of the thread may look in at any moment: what `depth` counts was written before it. */
static _Thread_local struct {
  _Atomic uint32_t depth; /* may be more than there is room for */
  _Atomic(lupe_mark *) tags[LUPE_TAGS_MAX];
} mine;

__attribute__((aligned(64))) void lupe_tag_enter(lupe_mark *tag) {
  uint32_t depth = atomic_load_explicit(&mine.depth, memory_order_relaxed);
  if (depth < LUPE_TAGS_MAX) atomic_store_explicit(&mine.tags[depth], tag, memory_order_relaxed);
  atomic_store_explicit(&mine.depth, depth + 1, memory_order_release);
}

/* A longjmp may have left out some: then it is the outer one's turn. One that was not entered is passed over.
 */
__attribute__((noinline, cold)) static void leave_out_of_order(const lupe_mark *tag, uint32_t depth) {
  while (depth > 0 && atomic_load_explicit(&mine.tags[depth - 1], memory_order_relaxed) != tag) depth--;
  if (depth > 0) atomic_store_explicit(&mine.depth, depth - 1, memory_order_release);
}

__attribute__((aligned(64))) void lupe_tag_leave(lupe_mark *tag) {
  uint32_t depth = atomic_load_explicit(&mine.depth, memory_order_relaxed);
  if (depth == 0) return;
  if (depth <= LUPE_TAGS_MAX && atomic_load_explicit(&mine.tags[depth - 1], memory_order_relaxed) != tag) {
    leave_out_of_order(tag, depth);
    return;
  }
  atomic_store_explicit(&mine.depth, depth - 1, memory_order_release);
}

size_t lupe_tag_count(void) {
  uint32_t depth = atomic_load_explicit(&mine.depth, memory_order_acquire);
  return depth < LUPE_TAGS_MAX ? depth : LUPE_TAGS_MAX;
}

void lupe_tag_frames(uint64_t *out) {
  size_t count = lupe_tag_count();
  for (size_t i = 0; i < count; i++) {
    lupe_mark *tag = atomic_load_explicit(&mine.tags[count - 1 - i], memory_order_relaxed);
    out[i] = LUPE_TAG_FRAME | lupe_mark_number(tag);
  }
}
