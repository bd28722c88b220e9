#include "core/store/image.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#include "core/store/demangle.h"
#include "core/store/program_file.h"

enum {
  MAX_IMAGE_NAME = 128,
  MAX_RAW_NAME = 4096, /* of a name in a string section; longer ones are cut */
  FIRST_READ = 128,    /* most names are shorter */
};

/* What stands before +0xOFFSET, and is the whole name of anonymous code. */
static char *image_name(const char *path) {
  char name[MAX_IMAGE_NAME];
  size_t bytes = lupe_program_path_bytes(path), from = 0;
  for (size_t i = 0; i + 1 < bytes; i++) {
    if (path[i] == '/') from = i + 1;
  }
  if (path[0] == '\0' || strncmp(path, "//anon", 6) == 0) {
    snprintf(name, sizeof name, "[anon]");
  } else if (path[0] == '/' && lupe_program_path_is_anonymous(path)) {
    snprintf(name, sizeof name, "[%.*s]", (int)(bytes - from), path + from);
  } else {
    snprintf(name, sizeof name, "%.*s", (int)(bytes - from), path + from);
  }
  lupe_clean_name(name);
  return strdup(name);
}

lupe_status lupe__image_create(const char *path, const char *alternative, const char *build_id,
                               const lupe_file_version *version, struct lupe_image **out) {
  struct lupe_image *image = calloc(1, sizeof *image);
  if (!image) return LUPE_ENOMEM;
  image->path = strdup(path);
  image->alternative = alternative ? strdup(alternative) : NULL;
  image->build_id = build_id ? strdup(build_id) : NULL;
  image->name = image_name(path);
  if (version) image->version = *version;
  bool whole =
      image->path && image->name && (!alternative || image->alternative) && (!build_id || image->build_id);
  if (!whole) {
    lupe__image_free(image);
    return LUPE_ENOMEM;
  }
  *out = image;
  return LUPE_OK;
}

void lupe__image_free(struct lupe_image *image) {
  if (!image) return;
  lupe_function_table_clear(&image->table);
  lupe_elf_close(&image->separate);
  lupe_elf_close(&image->code);
  free(image->functions);
  free(image->name);
  free(image->build_id);
  free(image->alternative);
  free(image->path);
  free(image);
}

/* The kernel's own shared object: the same for all processes, so ours is read. */
static void open_vdso(struct lupe_image *image) {
  const uint8_t *vdso = (const uint8_t *)(uintptr_t)getauxval(AT_SYSINFO_EHDR);
  if (!vdso) return;
  Elf64_Ehdr header;
  memcpy(&header, vdso, sizeof header);
  size_t bytes =
      header.e_shoff + (size_t)header.e_shnum * header.e_shentsize; /* its section table comes last */
  lupe_elf_open_memory(vdso, bytes, &image->code);
}

static void open_code(struct lupe_image *image) {
  if (strcmp(image->path, "[vdso]") == 0) {
    open_vdso(image);
  } else {
    lupe_program_file_open(image->path, image->alternative, image->build_id, &image->version, &image->code);
  }
}

unsigned lupe__image_load(struct lupe_image *image, const char *debug_root, size_t limit_bytes) {
  image->loaded = true;
  open_code(image);
  image->anonymous = !image->code.open && lupe_program_path_is_anonymous(image->path);
  if (!image->code.open) return 0;

  unsigned refused = 0;
  lupe_function_table *t = &image->table;
  lupe_status status = lupe_function_table_read_starts(t, &image->code, limit_bytes);
  refused += status == LUPE_ENOMEM;
  limit_bytes -= lupe_function_table_bytes(t);
  status = lupe_function_table_read_symbols(t, &image->code, &image->code, SHT_SYMTAB, limit_bytes);
  refused += status == LUPE_ENOMEM;
  if (status == LUPE_OK) return refused;
  if (lupe_debug_file_open(debug_root, image->code.build_id, &image->separate) == LUPE_OK) {
    status = lupe_function_table_read_symbols(t, &image->code, &image->separate, SHT_SYMTAB, limit_bytes);
    refused += status == LUPE_ENOMEM;
    if (status == LUPE_OK) return refused;
    lupe_elf_close(&image->separate);
  }
  status = lupe_function_table_read_symbols(t, &image->code, &image->code, SHT_DYNSYM, limit_bytes);
  refused += status == LUPE_ENOMEM;
  return refused;
}

/* The string at `offset` of the string section. */
static bool read_name(struct lupe_image *image, uint32_t offset, char out[MAX_RAW_NAME]) {
  lupe_elf_file *f = image->separate.open ? &image->separate : &image->code;
  const lupe_function_table *t = &image->table;
  uint64_t left = t->names_bytes - offset;
  for (size_t bytes = FIRST_READ;; bytes = MAX_RAW_NAME) {
    size_t wanted = left < bytes ? (size_t)left : bytes;
    if (lupe_elf_read(f, t->names_offset + offset, out, wanted) != LUPE_OK) return false;
    if (memchr(out, '\0', wanted)) return out[0] != '\0';
    if (wanted == left) return false; /* the section ends within the name */
    if (bytes == MAX_RAW_NAME) {
      out[MAX_RAW_NAME - 1] = '\0';
      return true;
    }
  }
}

/* Whether `a` is the better name of two symbols of the same class. */
static bool is_better(const char *a, const char *b) {
  size_t a_underscores = strspn(a, "_"), b_underscores = strspn(b, "_");
  if (a_underscores != b_underscores) return a_underscores < b_underscores;
  size_t a_bytes = strlen(a), b_bytes = strlen(b);
  return a_bytes != b_bytes ? a_bytes < b_bytes : strcmp(a, b) < 0;
}

bool lupe__image_symbol_name(struct lupe_image *image, const lupe_function_range *range, char *out,
                             size_t capacity) {
  lupe_elf_file *f = image->separate.open ? &image->separate : &image->code;
  if (range->symbol_count == 0 || !lupe_elf_unchanged(f)) return false;
  const lupe_function_symbol *symbols = &image->table.symbols[range->first_symbol];
  char best[MAX_RAW_NAME], other[MAX_RAW_NAME];
  bool found = false;
  uint64_t class = 0;
  for (size_t i = 0; i < range->symbol_count; i++) {
    if (found && symbols[i].key != class) break; /* sorted: what follows is of a lesser class */
    if (found && symbols[i].name == symbols[i - 1].name) continue;
    if (!read_name(image, symbols[i].name, other)) continue;
    if (!found || is_better(other, best)) memcpy(best, other, strlen(other) + 1);
    found = true;
    class = symbols[i].key;
  }
  if (found) lupe_demangle(best, out, capacity);
  return found;
}

static size_t slot_of(uint64_t key, size_t capacity) {
  return (size_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (capacity - 1);
}

static lupe_image_function *probe(lupe_image_function *functions, size_t capacity, uint64_t key) {
  size_t at = slot_of(key, capacity);
  while (functions[at].name && functions[at].key != key) at = (at + 1) & (capacity - 1);
  return &functions[at];
}

lupe_image_function *lupe__image_slot(struct lupe_image *image, uint64_t key) {
  if (image->function_count * 4 >= image->function_capacity * 3) {
    size_t capacity = image->function_capacity ? image->function_capacity * 2 : 16;
    lupe_image_function *grown = calloc(capacity, sizeof *grown);
    if (!grown) return NULL;
    for (size_t i = 0; i < image->function_capacity; i++) {
      const lupe_image_function *old = &image->functions[i];
      if (old->name) *probe(grown, capacity, old->key) = *old;
    }
    free(image->functions);
    image->functions = grown;
    image->function_capacity = capacity;
  }
  return probe(image->functions, image->function_capacity, key);
}
