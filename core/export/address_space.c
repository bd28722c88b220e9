#include "core/export/address_space.h"

#include <stdlib.h>
#include <string.h>

#include "core/store/elf_file.h"

enum { PAGE = 4096 };

/* Makes the mapping begin as the loader's would, so that whoever looks into the file finds the code there. */
static void place_in_file(lupe_profile_mapping *m, const char *path, const char *build_id, uint64_t lowest) {
  uint64_t base = m->start - (lowest & -(uint64_t)PAGE);
  lupe_elf_file file;
  m->file_offset = lowest & -(uint64_t)PAGE;
  if (path[0] != '/' || lupe_elf_open(path, &file) != LUPE_OK) return;
  for (uint32_t i = 0; i < file.segment_count && strcmp(build_id, file.build_id) == 0; i++) {
    const lupe_elf_segment *s = &file.segments[i];
    if (!s->executable || lowest < s->vaddr || lowest - s->vaddr >= s->memory_bytes) continue;
    uint64_t skew = s->vaddr % PAGE;
    m->start = base + s->vaddr - skew;
    m->file_offset = s->offset - skew;
    uint64_t limit = base + ((s->vaddr + s->memory_bytes + PAGE - 1) & -(uint64_t)PAGE);
    if (limit > m->limit) m->limit = limit;
    break;
  }
  lupe_elf_close(&file);
}

static void add_frame(const lupe_columns *c, uint32_t frame, lupe_profile_mapping *m, uint64_t *lowest) {
  const lupe_snapshot_frame *f = &c->frames[frame];
  const lupe_snapshot_function *function = &c->functions[f->function];
  uint64_t address = lupe_profile_frame_address(c, frame);
  if (!m->used || address < m->start) {
    m->start = address;
    *lowest = f->address;
  }
  if (!m->used || address >= m->limit) m->limit = address + 1;
  m->used = true;
  if (function->named) m->functions = true;
  if (f->file || function->file) m->filenames = true;
  if (f->line) m->lines = true;
  /* Lines and inlined calls come from the same debug information. */
  if (f->line || f->inline_count) m->inlines = true;
}

lupe_status lupe_profile_mappings(const lupe_columns *c, const uint8_t *used, lupe_profile_mapping **out) {
  lupe_profile_mapping *mappings = calloc(c->module_count + 1, sizeof *mappings);
  uint64_t *lowest = calloc(c->module_count + 1, sizeof *lowest);
  if (!mappings || !lowest) {
    free(mappings);
    free(lowest);
    return LUPE_ENOMEM;
  }
  for (uint32_t i = 0; i < c->frame_count; i++) {
    if (used[i]) add_frame(c, i, &mappings[c->frames[i].module], &lowest[c->frames[i].module]);
  }
  for (uint32_t i = 0; i < c->module_count; i++) {
    lupe_profile_mapping *m = &mappings[i];
    const char *path = c->strings + c->modules[i].path;
    if (!m->used) continue;
    if (path[0] == '\0') { /* its addresses mean nothing */
      m->used = false;
      continue;
    }
    m->start &= -(uint64_t)PAGE;
    m->limit = (m->limit + PAGE - 1) & -(uint64_t)PAGE;
    place_in_file(m, path, c->strings + c->modules[i].build_id, lowest[i]);
  }
  free(lowest);
  *out = mappings;
  return LUPE_OK;
}

uint32_t lupe_profile_program(const lupe_columns *c, const uint8_t *used,
                              const lupe_profile_mapping *mappings) {
  for (uint32_t i = 0; i < c->frame_count; i++) {
    const lupe_snapshot_frame *f = &c->frames[i];
    if (used[i] && mappings[f->module].used &&
        strcmp(c->strings + c->functions[f->function].name, "main") == 0)
      return f->module;
  }
  const char *name = c->target_count ? c->strings + c->targets[0].name : "";
  uint32_t first = (uint32_t)c->module_count;
  for (uint32_t i = 0; i < c->module_count; i++) {
    if (!mappings[i].used) continue;
    const char *path = c->strings + c->modules[i].path, *slash = strrchr(path, '/');
    if (strcmp(slash ? slash + 1 : path, name) == 0) return i;
    if (first == c->module_count) first = i;
  }
  return first;
}
