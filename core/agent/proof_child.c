#include "core/agent/proof_child.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/agent/heap.h"
#include "core/agent/proof_groups.h"
#include "core/agent/proof_marks.h"
#include "core/agent/proof_samples.h"
#include "core/clock.h"

/* Of a thread that waits in a system call, the registers that a function leaves as they are for its caller
 * may be anywhere; of one that runs, or was stopped by a fault, all. */
enum { REGISTERS_KEPT = 6, REGISTERS_ALL = 15 };

/* What a scan remembers of an object that nothing leads to. */
typedef struct seen {
  uint64_t address, stack;
} seen;

static void write_all(lupe_proof_scan *s, int fd, const void *bytes, size_t length) {
  const char *at = bytes;
  while (length > 0) {
    ssize_t n = write(fd, at, length);
    if (n < 0 && errno != EINTR) lupe_proof_give_up(s, LUPE_PROOF_SHORT, errno);
    if (n > 0) at += n, length -= (size_t)n;
  }
}

/* The socket to the runtime among them: it must hear of the parent's end. */
static void close_others(const lupe_proof_job *job) {
  const int kept[] = {job->progress_fd, job->seen_fd, job->block_fd};
  unsigned from = 0;
  for (;;) {
    unsigned next = ~0U;
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
      if ((unsigned)kept[i] >= from && (unsigned)kept[i] < next) next = (unsigned)kept[i];
    }
    if (next > from) syscall(SYS_close_range, from, next == ~0U ? ~0U : next - 1, 0);
    if (next == ~0U) return;
    from = next + 1;
  }
}

/* ---- agreement ---- */

static void write_seen(lupe_proof_scan *s, const lupe_proof_heap *h, int fd) {
  seen *list = lupe_proof_table(s, h->sample_count * sizeof *list, 0);
  size_t count = 0;
  for (size_t i = 0; i < h->sample_count; i++) {
    if (h->samples[i].state == LUPE_PROOF_UNSETTLED)
      list[count++] = (seen){h->samples[i].address, h->samples[i].stack};
  }
  write_all(s, fd, list, count * sizeof *list);
}

/* Both lists ascend. */
static void agree(lupe_proof_scan *s, const lupe_proof_heap *h, int fd) {
  off_t bytes = lseek(fd, 0, SEEK_END);
  if (bytes < 0) lupe_proof_give_up(s, LUPE_PROOF_KILLED, 0);
  seen *list = lupe_proof_table(s, (size_t)bytes, (size_t)bytes);
  if (pread(fd, list, (size_t)bytes, 0) != bytes) lupe_proof_give_up(s, LUPE_PROOF_KILLED, 0);
  size_t count = (size_t)bytes / sizeof *list, at = 0;
  for (size_t i = 0; i < h->sample_count; i++) {
    lupe_proof_sample *sample = &h->samples[i];
    while (at < count && list[at].address < sample->address) at++;
    bool same = at < count && list[at].address == sample->address && list[at].stack == sample->stack;
    if (same && sample->state == LUPE_PROOF_UNSETTLED) sample->state = LUPE_PROOF_UNREACHABLE;
  }
}

/* ---- the block ---- */

typedef struct block {
  lupe_proof_object *objects;
  uint64_t *stacks; /* addresses of distinct ones */
  uint32_t stack_count;
  uint32_t *slots; /* of a hash table: number of a stack + 1 */
  size_t slot_count;
} block;

static uint32_t number_of_stack(block *b, uint64_t stack) {
  size_t at = (stack >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 32 & (b->slot_count - 1);
  while (b->slots[at] != 0 && b->stacks[b->slots[at] - 1] != stack) at = (at + 1) & (b->slot_count - 1);
  if (b->slots[at] == 0) {
    b->stacks[b->stack_count++] = stack;
    b->slots[at] = b->stack_count;
  }
  return b->slots[at] - 1;
}

static void fill_objects(lupe_proof_scan *s, const lupe_proof_heap *h, block *b) {
  size_t count = h->sample_count;
  for (b->slot_count = 64; b->slot_count < 2 * count;) b->slot_count *= 2;
  b->objects = lupe_proof_table(s, count * sizeof *b->objects, count * sizeof *b->objects);
  b->stacks = lupe_proof_table(s, count * sizeof *b->stacks, 0);
  b->slots = lupe_proof_table(s, b->slot_count * sizeof *b->slots, b->slot_count * sizeof *b->slots);
  for (size_t i = 0; i < count; i++) {
    const lupe_proof_sample *sample = &h->samples[i];
    b->objects[i] = (lupe_proof_object){
        .address = sample->address,
        .size_bytes = sample->size_bytes,
        .stack = number_of_stack(b, sample->stack),
        .holder = sample->holder,
        .group = sample->state == LUPE_PROOF_UNREACHABLE ? sample->group : LUPE_PROOF_NONE,
        .tid = sample->state == LUPE_PROOF_STACK_ONLY ? sample->tid : 0,
        .state = sample->state,
    };
  }
}

/* One of each group stands for it: the first that no other of the lost points to, or the first. */
static void find_heads(lupe_proof_scan *s, const lupe_proof_heap *h, const block *b, uint64_t lost) {
  uint32_t *heads = lupe_proof_table(s, (lost + 1) * sizeof *heads, 0); /* by group: index + 1 */
  for (size_t i = 0; i < h->sample_count; i++) {
    uint32_t group = b->objects[i].group;
    if (group == LUPE_PROOF_NONE) continue;
    bool better = heads[group] && h->samples[heads[group] - 1].referenced && !h->samples[i].referenced;
    if (heads[group] == 0 || better) heads[group] = (uint32_t)i + 1;
  }
  for (size_t i = 0; i < h->sample_count; i++) {
    uint32_t group = b->objects[i].group;
    if (group == LUPE_PROOF_NONE) continue;
    if (heads[group] == i + 1)
      b->objects[i].head = 1;
    else
      b->objects[heads[group] - 1].behind++;
  }
}

static void write_block(lupe_proof_scan *s, const lupe_proof_heap *h, const block *b, int fd,
                        lupe_proof_head *head) {
  uint32_t *first = lupe_proof_table(s, (b->stack_count + 1) * sizeof *first, 0);
  const uint64_t *frames;
  for (uint32_t i = 0; i < b->stack_count; i++)
    first[i + 1] = first[i] + (uint32_t)lupe_proof_stack(b->stacks[i], &frames);
  head->object_count = (uint32_t)h->sample_count;
  head->stack_count = b->stack_count;
  head->pc_count = first[b->stack_count];
  head->scan_ns = (uint64_t)lupe_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
  head->read_bytes = s->read_bytes;
  head->table_bytes = s->table_bytes;
  head->hidden = s->hidden;
  write_all(s, fd, head, sizeof *head);
  write_all(s, fd, b->objects, h->sample_count * sizeof *b->objects);
  for (uint32_t i = 0; i < b->stack_count; i++) {
    size_t count = lupe_proof_stack(b->stacks[i], &frames);
    write_all(s, fd, frames, count * sizeof *frames);
  }
  write_all(s, fd, first, (b->stack_count + 1) * sizeof *first);
}

static uint32_t count_registers(const lupe_proof_facts *facts) {
  uint32_t sum = 0;
  for (size_t i = 0; i < facts->thread_count; i++)
    sum += facts->threads[i].in_call ? REGISTERS_KEPT : REGISTERS_ALL;
  return sum;
}

void lupe_proof_child_run(const lupe_proof_job *job, const lupe_proof_facts *facts) {
  lupe_proof_scan s = {.limits = job->limits, .progress_fd = job->progress_fd, .hidden = facts->hidden};
  lupe_proof_roots roots;
  close_others(job);
  lupe_proof_scan_begin(&s, job->parent);
  lupe_proof_roots_find(&roots, &s, facts, job->parents_tid);
  /* Not among what was listed: they hold addresses of objects. */
  lupe_proof_heap *heap = lupe_proof_table(&s, sizeof *heap, sizeof *heap);
  lupe_proof_marks *marks = lupe_proof_table(&s, sizeof *marks, sizeof *marks);
  lupe_proof_heap_map(heap, &s, &roots);
  lupe_proof_marks_make(marks, heap, facts->pointers, facts->pointer_count);
  if (!job->second) {
    write_seen(&s, heap, job->seen_fd);
    lupe_proof_finish(&s);
  }
  agree(&s, heap, job->seen_fd);
  lupe_proof_groups lost;
  lupe_proof_groups_make(&lost, marks);
  block b = {0};
  fill_objects(&s, heap, &b);
  find_heads(&s, heap, &b, lost.objects);
  lupe_proof_head head = {
      .magic = LUPE_PROOF_MAGIC,
      .version = LUPE_PROOF_VERSION,
      .time_ms = lupe_clock_ns(CLOCK_REALTIME) / 1000000,
      .sample_period_bytes = job->sample_period_bytes,
      .interval_ms = job->limits.interval_ms,
      .threads = (uint32_t)facts->thread_count,
      .registers = count_registers(facts),
      .heap_objects = heap->objects,
      .heap_bytes = heap->bytes,
      .unreachable_objects = lost.objects,
      .unreachable_bytes = lost.bytes,
  };
  write_block(&s, heap, &b, job->block_fd, &head);
  lupe_proof_finish(&s);
}
