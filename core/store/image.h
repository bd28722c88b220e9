/* image.h -- one program file as the symbolizer sees it: its code, where its symbols come from, and the
 * names that were asked for. Inside of symbolizer.c; all strings and rules are documented in symbolizer.h.
 * Thread: one at a time, the symbolizer's. */
#ifndef LUPE_STORE_IMAGE_H
#define LUPE_STORE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/elf_file.h"
#include "core/store/function_table.h"
#include "core/store/module_table.h"

/* A name that was handed out. `bytes` is how far the function reaches; UINT64_MAX where that is unknown. */
typedef struct lupe_image_function {
  uint64_t key;
  uint64_t bytes;
  const char *name; /* the symbolizer's; NULL marks an empty slot */
  bool named;
} lupe_image_function;

struct lupe_image {
  struct lupe_image *next; /* of the same hash */
  char *path, *alternative, *build_id;
  lupe_file_version version;
  char *name;
  bool loaded;            /* its files were looked for, found or not */
  bool anonymous;         /* no file: [anon], [heap], JIT */
  lupe_elf_file code;     /* closed where there is no file to be believed */
  lupe_elf_file separate; /* the debug file, open if the symbols come from there */
  lupe_function_table table;
  lupe_image_function *functions; /* open addressing; capacity is a power of two */
  size_t function_count, function_capacity;
};

lupe_status lupe__image_create(const char *path, const char *alternative, const char *build_id,
                               const lupe_file_version *version, struct lupe_image **out);
void lupe__image_free(struct lupe_image *image);

/* Finds and reads the files. `limit_bytes` bounds the tables. Returns how many were left out by it. */
unsigned lupe__image_load(struct lupe_image *image, const char *debug_root, size_t limit_bytes);

/* The raw name of the best symbol of `range` into `out`. False: none can be read (any more). */
bool lupe__image_symbol_name(struct lupe_image *image, const lupe_function_range *range, char *out,
                             size_t capacity);

/* The slot of `key`, empty (name NULL) if it is new; NULL when out of memory. The caller fills it at once,
 * and counts it in function_count. */
lupe_image_function *lupe__image_slot(struct lupe_image *image, uint64_t key);

#endif
