#include "core/store/symbolizer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/store/demangle.h"
#include "core/store/hash.h"
#include "core/store/image.h"

enum {
  HASH_SLOTS = 1024,
  AWAKE_IMAGES = 8, /* how many keep their files open between two resolves */
  NAME_CHUNK_BYTES = 16 << 10,
};
/* Marks the key of an offset that no segment holds: not an address, though its number may be one. */
#define KEY_OFFSET (UINT64_C(1) << 63)

/* Names are never moved or freed before the end. */
typedef struct name_chunk {
  struct name_chunk *next;
  size_t used;
  char text[NAME_CHUNK_BYTES];
} name_chunk;

struct lupe_symbolizer {
  char *debug_root;
  lupe_image *images[HASH_SLOTS];
  lupe_image *awake[AWAKE_IMAGES];
  unsigned next_to_rest;
  name_chunk *names;
  lupe_symbolizer_figures figures;
};

lupe_status lupe_symbolizer_create(lupe_symbolizer **out, const char *debug_root) {
  lupe_symbolizer *s = calloc(1, sizeof *s);
  if (!s) return LUPE_ENOMEM;
  s->debug_root = strdup(debug_root ? debug_root : "/usr/lib/debug");
  if (!s->debug_root) {
    free(s);
    return LUPE_ENOMEM;
  }
  *out = s;
  return LUPE_OK;
}

void lupe_symbolizer_free(lupe_symbolizer *s) {
  if (!s) return;
  for (size_t i = 0; i < HASH_SLOTS; i++) {
    while (s->images[i]) {
      lupe_image *image = s->images[i];
      s->images[i] = image->next;
      lupe__image_free(image);
    }
  }
  while (s->names) {
    name_chunk *chunk = s->names;
    s->names = chunk->next;
    free(chunk);
  }
  free(s->debug_root);
  free(s);
}

static bool same_text(const char *a, const char *b) {
  return a == b || (a && b && strcmp(a, b) == 0);
}

lupe_status lupe_symbolizer_open(lupe_symbolizer *s, const char *path, const char *alternative,
                                 const char *build_id, const lupe_file_version *version, lupe_image **out) {
  static const lupe_file_version unknown = {0};
  if (!path) return LUPE_EINVAL;
  if (!version) version = &unknown;
  if (build_id && !build_id[0]) build_id = NULL;
  lupe_image **slot = &s->images[lupe_hash_bytes(path, strlen(path)) % HASH_SLOTS];
  for (lupe_image *image = *slot; image; image = image->next) {
    if (same_text(image->path, path) && same_text(image->build_id, build_id) &&
        lupe_file_version_is(&image->version, version)) {
      *out = image;
      return LUPE_OK;
    }
  }
  if (s->figures.images == LUPE_SYMBOLIZER_MAX_IMAGES) {
    s->figures.refused++;
    return LUPE_ENOMEM;
  }
  lupe_image *image;
  lupe_status status = lupe__image_create(path, alternative, build_id, version, &image);
  if (status != LUPE_OK) return status;
  image->next = *slot;
  *slot = image;
  s->figures.images++;
  *out = image;
  return LUPE_OK;
}

/* Loads the image if need be, and makes it one of those whose files stay open. */
static void wake(lupe_symbolizer *s, lupe_image *image) {
  for (size_t i = 0; i < AWAKE_IMAGES; i++) {
    if (s->awake[i] == image) return;
  }
  lupe_image **place = &s->awake[s->next_to_rest++ % AWAKE_IMAGES];
  if (*place) {
    lupe_elf_rest(&(*place)->code);
    lupe_elf_rest(&(*place)->separate);
  }
  *place = image;
  if (image->loaded) return;
  s->figures.refused +=
      lupe__image_load(image, s->debug_root, LUPE_SYMBOLIZER_TABLE_BYTES - (size_t)s->figures.table_bytes);
  s->figures.table_bytes += lupe_function_table_bytes(&image->table);
}

/* A copy of `name` for good; NULL past the limit, or out of memory. */
static const char *keep_name(lupe_symbolizer *s, const char *name) {
  size_t bytes = strlen(name) + 1;
  if (!s->names || NAME_CHUNK_BYTES - s->names->used < bytes) {
    if (s->figures.name_bytes + sizeof(name_chunk) > LUPE_SYMBOLIZER_NAME_BYTES) return NULL;
    name_chunk *chunk = malloc(sizeof *chunk);
    if (!chunk) return NULL;
    chunk->next = s->names;
    chunk->used = 0;
    s->names = chunk;
    s->figures.name_bytes += sizeof *chunk;
  }
  char *kept = s->names->text + s->names->used;
  memcpy(kept, name, bytes);
  s->names->used += bytes;
  return kept;
}

/* How far the function of `range` reaches, as far as its unwind entry tells. */
static uint64_t reach(lupe_image *image, const lupe_function_range *range) {
  uint64_t bytes;
  if (range->unwind_index == SIZE_MAX) return UINT64_MAX;
  bool known =
      lupe_function_table_unwind_bytes(&image->table, &image->code, range->unwind_index, &bytes) == LUPE_OK;
  return known ? bytes : UINT64_MAX;
}

/* Fills `slot` for the function of `range`, or for the place `key` itself when `range` is NULL. */
static bool fill(lupe_symbolizer *s, lupe_image *image, lupe_image_function *slot, uint64_t key,
                 const lupe_function_range *range) {
  char name[LUPE_SYMBOLIZER_NAME_MAX];
  bool named = range && lupe__image_symbol_name(image, range, name, sizeof name);
  if (!named) snprintf(name, sizeof name, "%s+0x%" PRIx64, image->name, key & ~KEY_OFFSET);
  const char *kept = keep_name(s, name);
  if (!kept) return false;
  *slot = (lupe_image_function){key, range ? reach(image, range) : UINT64_MAX, kept, named};
  image->function_count++;
  return true;
}

/* The function that begins at `key`, from what was asked before or new. NULL: a limit was reached. */
static const lupe_image_function *function_at(lupe_symbolizer *s, lupe_image *image, uint64_t key,
                                              const lupe_function_range *range) {
  lupe_image_function *slot = lupe__image_slot(image, key);
  if (slot && (slot->name || fill(s, image, slot, key, range))) return slot;
  s->figures.refused++;
  return NULL;
}

void lupe_symbolizer_resolve(lupe_symbolizer *s, lupe_image *image, uint64_t file_offset, lupe_symbol *out) {
  if (!image) {
    *out = (lupe_symbol){"[unknown]", 0, file_offset, false};
    return;
  }
  wake(s, image);
  if (image->anonymous) {
    *out = (lupe_symbol){image->name, 0, file_offset, false};
    return;
  }
  uint64_t address = file_offset;
  uint64_t key = file_offset | KEY_OFFSET;
  const lupe_image_function *function = NULL;
  lupe_function_range range = {.start = file_offset, .unwind_index = SIZE_MAX};
  bool loaded_there = lupe_elf_vaddr_of(&image->code, file_offset, &address);
  if (loaded_there) key = address;
  bool in_range =
      loaded_there && lupe_function_table_find(&image->table, address, &range) && range.start <= address;
  if (in_range) {
    function = function_at(s, image, range.start, &range);
    /* Behind the end of the function before it: code without an unwind entry. */
    in_range = !function || range.unwind_index == SIZE_MAX || address - range.start < function->bytes;
  }
  if (!in_range) {
    range.start = address;
    function = function_at(s, image, key, NULL);
  }
  *out = (lupe_symbol){
      .name = function ? function->name : image->name,
      .start = range.start,
      .address = address,
      .named = function && function->named,
  };
}

const char *lupe_symbolizer_build_id(lupe_symbolizer *s, lupe_image *image) {
  if (!image) return "";
  wake(s, image);
  return image->code.build_id;
}

const char *lupe_symbolizer_file(lupe_symbolizer *s, lupe_image *image, const char **out_build_id) {
  wake(s, image);
  if (!image->code.open || !image->code.path) return NULL;
  /* A build id tells that a file is the right one whenever it is opened, at this or another path. */
  if (!image->code.build_id[0] && !lupe_elf_unchanged(&image->code)) return NULL;
  *out_build_id = image->code.build_id;
  return image->code.path;
}

const char *lupe_symbolizer_debug_root(const lupe_symbolizer *s) {
  return s->debug_root;
}

void lupe_symbolizer_figures_read(const lupe_symbolizer *s, lupe_symbolizer_figures *out) {
  *out = s->figures;
}
