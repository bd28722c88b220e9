/* snapshot_build.h -- the insides of building one snapshot, for the files that do it: snapshot_builder.c
 * (what goes in, and where it goes), snapshot_heap.c, snapshot_proofs.c, snapshot_samples.c and
 * snapshot_spans.c. Nobody else includes it. Thread: the one that holds the aggregator's `work`. */
#ifndef LUPE_STORE_SNAPSHOT_BUILD_H
#define LUPE_STORE_SNAPSHOT_BUILD_H

#include "core/store/run.h"
#include "core/wire/record.h"

enum {
  LUPE__NONE = UINT32_MAX,
  LUPE__CLASSES_MAX = 4 * LUPE_SIZE_CLASSES_MAX,
};

typedef struct lupe__builder {
  lupe_aggregator *a;
  bool merged; /* of several targets */
  bool tree;   /* of those of one program */
  lupe__sample_seconds window;
  /* The targets, and what `lock` protects of them, copied. */
  lupe_target **targets;
  lupe_snapshot_target *target_rows;
  char (*target_names)[sizeof((lupe_target_status *)0)->name];
  char (*target_allocators)[sizeof((lupe_target_status *)0)->allocator];
  size_t target_count;
  size_t first_tick; /* of the timeline; those before it were before the program's time */
  lupe_memory_figures *memory;
  size_t memory_count;
  lupe_snapshot_size_class classes[LUPE__CLASSES_MAX];
  size_t class_count;
  lupe_snapshot_header header; /* columns: count and offset, as they are decided */

  const lupe_named_frame *frames;
  const lupe_function *functions;
  const lupe_frame_lines *lines;
  uint32_t frame_count, function_count, module_count;
  uint32_t *stack_of;    /* by stack id: its number here */
  uint32_t *id_of;       /* by number here: the stack id */
  uint32_t *site_of;     /* by stack; LUPE__NONE: only CPU and wall samples have it */
  uint32_t *site_index;  /* by function */
  uint32_t *function_of; /* by site */
  uint32_t stack_count, site_count;
  uint32_t heap_stack_count; /* the first ones, with those of leak proofs: all that have a site */
  uint64_t depth_sum;

  size_t proof_count, proof_row_count;

  lupe__sample_seconds span_window;
  lupe_span_sum *spans;     /* of that window */
  uint32_t *span_functions; /* by span; LUPE__NONE: not known */
  size_t span_count;
  uint32_t span_total_count;

  lupe_sample *samples; /* of the window */
  size_t sample_count;
  uint32_t *thread_of; /* by thread number of the log: its number here */
  uint32_t *log_of;    /* by number here: that of the log */
  uint32_t thread_count;
  lupe__sample_owner *owners;
  size_t owner_count;

  uint32_t *text_places; /* by text number of the lines: where it is in the strings */
  char *block;           /* of the snapshot */
  uint32_t string_at;
} lupe__builder;

/* One program of several: the processes that have the same root. */
typedef struct lupe__tree {
  int32_t root_pid;
  uint64_t root_ticks;
  bool live;                /* a process of it is */
  double first_ms, died_ms; /* when its first one connected, when the last one died (0: none has) */
} lupe__tree;

enum { LUPE__MOMENT_MS = 90 }; /* less than two rows of a memory series are ever apart */

/* Callers hold `lock`. False: there is none. */
bool lupe__tree_find(const lupe_aggregator *a, int32_t root_pid, lupe__tree *out);
/* Whether `t` is one of the processes that a snapshot of the tree shows. */
bool lupe__tree_shows(const lupe_aggregator *a, const lupe__tree *tree, const lupe_target *t);
/* Puts the times of the header within the program's own. */
void lupe__tree_times(const lupe__tree *tree, lupe_snapshot_header *h);
/* Its memory figures, summed; *out is malloc'd. LUPE_ENOMEM. */
lupe_status lupe__tree_memory(const lupe_aggregator *a, const lupe__tree *tree, lupe_memory_figures **out,
                              size_t *out_count);

static inline void *lupe__column(const lupe__builder *b, const lupe_snapshot_column *c) {
  return b->block + c->offset;
}

/* What lupe__put_string will need for it. */
size_t lupe__string_bytes(const char *text);
/* Its place in the strings. */
uint32_t lupe__put_string(lupe__builder *b, const char *text);
/* Gives a stack its number, unless it has one; with_site: and the site that its memory is counted for. */
void lupe__add_stack(lupe__builder *b, uint32_t id, bool with_site);

/* Sums the window's spans, and names the functions that begin them. LUPE_ENOMEM. */
lupe_status lupe__collect_spans(lupe__builder *b);
void lupe__number_span_totals(lupe__builder *b);
size_t lupe__span_string_bytes(const lupe__builder *b);
void lupe__fill_spans(lupe__builder *b);
void lupe__clear_spans(lupe__builder *b);

/* Sums the window's samples, and numbers their threads and stacks. LUPE_ENOMEM. */
lupe_status lupe__collect_samples(lupe__builder *b);
size_t lupe__sample_string_bytes(const lupe__builder *b);
void lupe__fill_samples(lupe__builder *b);
void lupe__clear_samples(lupe__builder *b);

/* Numbers the stacks and sites of the targets' heaps. */
void lupe__number_heap_stacks(lupe__builder *b);
void lupe__fill_heap(lupe__builder *b);

/* Numbers those of their leak proofs likewise, and counts what there is to fill in. */
void lupe__number_proof_stacks(lupe__builder *b);
void lupe__fill_proofs(lupe__builder *b);

#endif
