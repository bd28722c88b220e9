#include "core/store/stack_table.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/store/hash.h"
#include "core/wire/record.h"

enum {
  CHUNK_WORDS = 16384, /* of frame indexes; a stack never spans two chunks */
  FIRST_FRAMES = 512,
  FIRST_STACKS = 256,
  LIMIT_MIN = 64 << 10,
  HEAP_SIXTEENTHS = 3, /* of the limit, and of the entries, that samples leave */
};

typedef struct stack {
  uint32_t where; /* chunk * CHUNK_WORDS + word */
  uint32_t hash;
  uint32_t depth;
} stack;

struct lupe_stack_table {
  pthread_mutex_t lock; /* all below; what a chunk holds changes only when stacks are removed */
  size_t limit, bytes;
  size_t room; /* what the present call may fill: the limit, or less */
  lupe_frame *frames;
  uint32_t *frame_slots; /* frame index + 1; twice as many as frames */
  uint32_t frame_count, frame_capacity;
  stack *stacks;
  uint32_t *stack_slots; /* stack id + 1; twice as many as stacks */
  uint32_t stack_count, stack_capacity;
  uint32_t **chunks;
  uint32_t chunk_count, chunk_capacity, chunk_used; /* chunk_used: words of the last one */
  atomic_uint_least64_t overflows; /* without the lock: the loop reads it, and must not wait for a removal */
};

/* Accounts for `bytes` more; false where that passes what there is room for. */
static bool take(lupe_stack_table *t, size_t bytes) {
  if (t->bytes > t->room || bytes > t->room - t->bytes) return false;
  t->bytes += bytes;
  return true;
}

static bool grow_frames(lupe_stack_table *t) {
  uint32_t capacity = t->frame_capacity ? 2 * t->frame_capacity : FIRST_FRAMES;
  size_t more = (capacity - t->frame_capacity) * (sizeof *t->frames + 2 * sizeof *t->frame_slots);
  if (!take(t, more)) return false;
  uint32_t *slots = calloc(2 * (size_t)capacity, sizeof *slots);
  lupe_frame *frames = slots ? realloc(t->frames, capacity * sizeof *frames) : NULL;
  if (!frames) {
    free(slots);
    t->bytes -= more;
    return false;
  }
  free(t->frame_slots);
  t->frames = frames;
  t->frame_slots = slots;
  t->frame_capacity = capacity;
  for (uint32_t i = 0; i < t->frame_count; i++) {
    uint32_t at = (uint32_t)lupe_hash_mix(frames[i]) & (2 * capacity - 1);
    while (slots[at]) at = (at + 1) & (2 * capacity - 1);
    slots[at] = i + 1;
  }
  return true;
}

static void fill_stack_slots(lupe_stack_table *t) {
  uint32_t mask = 2 * t->stack_capacity - 1;
  for (uint32_t i = 0; i < t->stack_count; i++) {
    uint32_t at = t->stacks[i].hash & mask;
    while (t->stack_slots[at]) at = (at + 1) & mask;
    t->stack_slots[at] = i + 1;
  }
}

static bool grow_stacks(lupe_stack_table *t) {
  uint32_t capacity = t->stack_capacity ? 2 * t->stack_capacity : FIRST_STACKS;
  size_t more = (capacity - t->stack_capacity) * (sizeof *t->stacks + 2 * sizeof *t->stack_slots);
  if (!take(t, more)) return false;
  uint32_t *slots = calloc(2 * (size_t)capacity, sizeof *slots);
  stack *stacks = slots ? realloc(t->stacks, capacity * sizeof *stacks) : NULL;
  if (!stacks) {
    free(slots);
    t->bytes -= more;
    return false;
  }
  free(t->stack_slots);
  t->stacks = stacks;
  t->stack_slots = slots;
  t->stack_capacity = capacity;
  fill_stack_slots(t);
  return true;
}

/* Index of the frame, new or old; false where a new one finds no room. */
static bool frame_index(lupe_stack_table *t, lupe_frame frame, uint32_t *out) {
  for (;;) {
    uint32_t mask = 2 * t->frame_capacity - 1, at = 0;
    if (t->frame_capacity) {
      for (at = (uint32_t)lupe_hash_mix(frame) & mask; t->frame_slots[at]; at = (at + 1) & mask) {
        uint32_t index = t->frame_slots[at] - 1;
        if (t->frames[index] != frame) continue;
        *out = index;
        return true;
      }
    }
    if (t->frame_count == t->frame_capacity) {
      if (!grow_frames(t)) return false;
      continue; /* its slot is elsewhere now */
    }
    t->frames[t->frame_count] = frame;
    t->frame_slots[at] = t->frame_count + 1;
    *out = t->frame_count++;
    return true;
  }
}

static uint32_t *words_of(const lupe_stack_table *t, uint32_t where) {
  return &t->chunks[where / CHUNK_WORDS][where % CHUNK_WORDS];
}

/* Room for `depth` words behind each other. */
static bool reserve_words(lupe_stack_table *t, size_t depth, uint32_t *out_where) {
  if (t->chunk_count == 0 || t->chunk_used + depth > CHUNK_WORDS) {
    if (t->chunk_count == UINT32_MAX / CHUNK_WORDS) return false;
    if (t->chunk_count == t->chunk_capacity) {
      uint32_t capacity = t->chunk_capacity ? 2 * t->chunk_capacity : 16;
      size_t more = (capacity - t->chunk_capacity) * sizeof *t->chunks;
      if (!take(t, more)) return false;
      uint32_t **chunks = realloc(t->chunks, capacity * sizeof *chunks);
      if (!chunks) {
        t->bytes -= more;
        return false;
      }
      t->chunks = chunks;
      t->chunk_capacity = capacity;
    }
    if (!take(t, CHUNK_WORDS * sizeof(uint32_t))) return false;
    uint32_t *chunk = malloc(CHUNK_WORDS * sizeof *chunk);
    if (!chunk) {
      t->bytes -= CHUNK_WORDS * sizeof *chunk;
      return false;
    }
    t->chunks[t->chunk_count++] = chunk;
    t->chunk_used = 0;
  }
  *out_where = (t->chunk_count - 1) * CHUNK_WORDS + t->chunk_used;
  t->chunk_used += (uint32_t)depth;
  return true;
}

static uint32_t hash_indexes(const uint32_t *indexes, size_t depth) {
  uint64_t h = depth;
  for (size_t i = 0; i < depth; i++) {
    h = (h ^ indexes[i]) * UINT64_C(0x9e3779b97f4a7c15);
    h ^= h >> 32;
  }
  return (uint32_t)lupe_hash_mix(h);
}

/* The slot of a stack, or the free one where it belongs. There must be slots. */
static uint32_t stack_slot(const lupe_stack_table *t, const uint32_t *indexes, size_t depth, uint32_t hash) {
  uint32_t mask = 2 * t->stack_capacity - 1, at = hash & mask;
  for (; t->stack_slots[at]; at = (at + 1) & mask) {
    const stack *s = &t->stacks[t->stack_slots[at] - 1];
    if (s->hash == hash && s->depth == depth &&
        memcmp(words_of(t, s->where), indexes, depth * sizeof *indexes) == 0)
      break;
  }
  return at;
}

/* Caller holds the lock. False where a new stack finds no room. */
static bool intern(lupe_stack_table *t, const lupe_frame *frames, size_t depth, uint32_t *out_id) {
  uint32_t indexes[LUPE_MAX_FRAMES], where;
  for (size_t i = 0; i < depth; i++) {
    if (!frame_index(t, frames[i], &indexes[i])) return false;
  }
  if (t->stack_capacity == 0 && !grow_stacks(t)) return false;
  uint32_t hash = hash_indexes(indexes, depth);
  uint32_t at = stack_slot(t, indexes, depth, hash);
  if (t->stack_slots[at]) {
    *out_id = t->stack_slots[at] - 1;
    return true;
  }
  /* What was already taken is not for samples either, past their share: all of it would be theirs soon. */
  bool limited = t->room < t->limit;
  if (limited && t->bytes > t->room) return false;
  uint32_t spare = limited ? t->stack_capacity / 16 * HEAP_SIXTEENTHS : 0;
  if (t->stack_count + spare >= t->stack_capacity) {
    if (!grow_stacks(t)) return false;
    at = stack_slot(t, indexes, depth, hash);
  }
  if (!reserve_words(t, depth, &where)) return false;
  memcpy(words_of(t, where), indexes, depth * sizeof *indexes);
  t->stacks[t->stack_count] = (stack){.where = where, .hash = hash, .depth = (uint32_t)depth};
  t->stack_slots[at] = t->stack_count + 1;
  *out_id = t->stack_count++;
  return true;
}

lupe_status lupe_stack_table_create(lupe_stack_table **out, size_t memory_limit_bytes) {
  if (memory_limit_bytes < LIMIT_MIN) return LUPE_EINVAL;
  lupe_stack_table *t = calloc(1, sizeof *t);
  if (!t) return LUPE_ENOMEM;
  if (pthread_mutex_init(&t->lock, NULL) != 0) goto fail_lock;
  /* The overflow stack must always have its place, whatever the limit: it comes first. */
  t->limit = t->room = SIZE_MAX;
  uint32_t id;
  lupe_frame overflow = LUPE_FRAME_OVERFLOW;
  if (!intern(t, &overflow, 1, &id)) goto fail_intern;
  t->limit = memory_limit_bytes > t->bytes ? memory_limit_bytes : t->bytes;
  *out = t;
  return LUPE_OK;

fail_intern:
  pthread_mutex_destroy(&t->lock);
fail_lock:
  free(t->chunks);
  free(t->stack_slots);
  free(t->stacks);
  free(t->frame_slots);
  free(t->frames);
  free(t);
  return LUPE_ENOMEM;
}

void lupe_stack_table_free(lupe_stack_table *t) {
  if (!t) return;
  for (uint32_t i = 0; i < t->chunk_count; i++) free(t->chunks[i]);
  free(t->chunks);
  free(t->stack_slots);
  free(t->stacks);
  free(t->frame_slots);
  free(t->frames);
  pthread_mutex_destroy(&t->lock);
  free(t);
}

static lupe_status intern_within(lupe_stack_table *t, size_t room, const lupe_frame *frames, size_t depth,
                                 uint32_t *out_id) {
  if (depth == 0 || depth > LUPE_MAX_FRAMES) return LUPE_EINVAL;
  pthread_mutex_lock(&t->lock);
  t->room = room;
  uint32_t id;
  if (!intern(t, frames, depth, &id)) {
    id = LUPE_STACK_OVERFLOW;
    atomic_fetch_add_explicit(&t->overflows, 1, memory_order_relaxed);
  }
  pthread_mutex_unlock(&t->lock);
  *out_id = id;
  return LUPE_OK;
}

lupe_status lupe_stack_table_intern(lupe_stack_table *t, const lupe_frame *frames, size_t depth,
                                    uint32_t *out_id) {
  return intern_within(t, t->limit, frames, depth, out_id);
}

lupe_status lupe_stack_table_intern_sample(lupe_stack_table *t, const lupe_frame *frames, size_t depth,
                                           uint32_t *out_id) {
  return intern_within(t, t->limit / 16 * (16 - HEAP_SIXTEENTHS), frames, depth, out_id);
}

void lupe_stack_table_keep(lupe_stack_table *t, uint32_t *ids) {
  pthread_mutex_lock(&t->lock);
  uint32_t kept = 0, chunk = 0, used = 0;
  for (uint32_t id = 0; id < t->stack_count; id++) {
    if (id != LUPE_STACK_OVERFLOW && !ids[id]) continue;
    stack s = t->stacks[id];
    if (used + s.depth > CHUNK_WORDS) {
      chunk++;
      used = 0;
    }
    /* Stacks lie in the order of their ids, so each moves down, if at all, to where no later one is. */
    uint32_t where = chunk * CHUNK_WORDS + used;
    if (where != s.where) memmove(words_of(t, where), words_of(t, s.where), s.depth * sizeof(uint32_t));
    used += s.depth;
    s.where = where;
    ids[id] = kept;
    t->stacks[kept++] = s;
  }
  t->stack_count = kept;
  while (t->chunk_count > chunk + 1) {
    free(t->chunks[--t->chunk_count]);
    t->bytes -= CHUNK_WORDS * sizeof(uint32_t);
  }
  t->chunk_used = used;
  memset(t->stack_slots, 0, 2 * (size_t)t->stack_capacity * sizeof *t->stack_slots);
  fill_stack_slots(t);
  pthread_mutex_unlock(&t->lock);
}

lupe_status lupe_stack_table_get(lupe_stack_table *t, uint32_t id, const uint32_t **out_frames,
                                 size_t *out_depth) {
  lupe_status status = LUPE_ENOENT;
  pthread_mutex_lock(&t->lock);
  if (id < t->stack_count) {
    *out_frames = words_of(t, t->stacks[id].where);
    *out_depth = t->stacks[id].depth;
    status = LUPE_OK;
  }
  pthread_mutex_unlock(&t->lock);
  return status;
}

lupe_frame lupe_stack_table_frame(lupe_stack_table *t, uint32_t index) {
  pthread_mutex_lock(&t->lock);
  lupe_frame frame = index < t->frame_count ? t->frames[index] : LUPE_FRAME_UNKNOWN;
  pthread_mutex_unlock(&t->lock);
  return frame;
}

uint32_t lupe_stack_table_stacks(lupe_stack_table *t) {
  pthread_mutex_lock(&t->lock);
  uint32_t count = t->stack_count;
  pthread_mutex_unlock(&t->lock);
  return count;
}

uint32_t lupe_stack_table_frames(lupe_stack_table *t) {
  pthread_mutex_lock(&t->lock);
  uint32_t count = t->frame_count;
  pthread_mutex_unlock(&t->lock);
  return count;
}

uint64_t lupe_stack_table_overflows(lupe_stack_table *t) {
  return atomic_load_explicit(&t->overflows, memory_order_relaxed);
}

size_t lupe_stack_table_bytes(lupe_stack_table *t) {
  pthread_mutex_lock(&t->lock);
  size_t bytes = t->bytes;
  pthread_mutex_unlock(&t->lock);
  return bytes;
}

size_t lupe_stack_table_limit(const lupe_stack_table *t) {
  return t->limit;
}
