#include "core/store/source_lines.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/store/debug_sections.h"
#include "core/store/demangle.h"
#include "core/store/program_file.h"
#include "core/store/source_walk.h"
#include "core/store/text_store.h"

enum {
  NAME_BYTES = 1024, /* of a demangled name with its NUL; longer ones are cut */
  FILE_BYTES = 4096,
  TEXT_BYTES = 64 << 20,   /* of all texts of one file; what comes after that is unknown */
  LINES_AT_ONCE = 1 << 18, /* that libdw keeps, some 60 bytes each, before it is asked to forget them */
};

typedef struct debug_info {
  lupe_debug_sections sections;
  Elf *elf;
  Dwarf *dwarf;
} debug_info;

struct lupe_source_lines {
  debug_info own, shared; /* shared: what dwz took out of several files; dwarf NULL: none */
  lupe_text_store texts;
  lupe_walk walk;
  size_t line_count; /* that libdw holds now */
};

/* -- files ------------------------------------------------------------------------------------ */

static lupe_status read_info(debug_info *d, lupe_elf_file *f, bool shared, size_t limit_bytes) {
  lupe_status status = lupe_debug_sections_read(&d->sections, f, shared, limit_bytes);
  if (status != LUPE_OK) return status;
  elf_version(EV_CURRENT);
  status = LUPE_ECORRUPT;
  d->elf = elf_memory(d->sections.image, d->sections.image_bytes);
  if (!d->elf) goto no_elf;
  d->dwarf = dwarf_begin_elf(d->elf, DWARF_C_READ, NULL);
  if (!d->dwarf) goto no_dwarf;
  return LUPE_OK;

no_dwarf:
  elf_end(d->elf);
  d->elf = NULL;
no_elf:
  lupe_debug_sections_clear(&d->sections);
  return status;
}

static void clear_info(debug_info *d) {
  if (d->dwarf) dwarf_end(d->dwarf);
  if (d->elf) elf_end(d->elf);
  lupe_debug_sections_clear(&d->sections);
}

/* Where dwz's common file lies: as the debug file says, seen from its own folder, else by its build id. */
static lupe_status open_shared(const lupe_debug_sections *d, const char *beside, const char *debug_root,
                               lupe_elf_file *out) {
  const char *slash = strrchr(beside, '/');
  char path[PATH_MAX];
  int bytes = d->shared_path[0] == '/'
                  ? snprintf(path, sizeof path, "%s", d->shared_path)
                  : snprintf(path, sizeof path, "%.*s%s", slash ? (int)(slash + 1 - beside) : 0, beside,
                             d->shared_path);
  if (bytes > 0 && (size_t)bytes < sizeof path && lupe_elf_open(path, out) == LUPE_OK) {
    if (strcmp(out->build_id, d->shared_build_id) == 0) return LUPE_OK;
    lupe_elf_close(out);
  }
  return lupe_debug_file_open(debug_root, d->shared_build_id, out);
}

static void read_shared(lupe_source_lines *s, const lupe_elf_file *f, const char *debug_root,
                        size_t limit_bytes) {
  lupe_elf_file file;
  if (!s->own.sections.shared_path[0] || open_shared(&s->own.sections, f->path, debug_root, &file) != LUPE_OK)
    return;
  if (read_info(&s->shared, &file, true, limit_bytes) == LUPE_OK) dwarf_setalt(s->own.dwarf, s->shared.dwarf);
  lupe_elf_close(&file);
}

lupe_status lupe_source_lines_open(lupe_source_lines **out, const lupe_source_file *file) {
  const char *debug_root = file->debug_root ? file->debug_root : "/usr/lib/debug";
  const char *build_id = file->build_id && file->build_id[0] ? file->build_id : NULL;
  size_t limit_bytes = file->limit_bytes ? file->limit_bytes : LUPE_SOURCE_LINES_BYTES;
  lupe_elf_file code, separate;
  lupe_status status = lupe_program_file_open(file->path, file->alternative, build_id, NULL, &code);
  if (status != LUPE_OK) return status;
  lupe_source_lines *s = calloc(1, sizeof *s);
  status = LUPE_ENOMEM;
  if (!s) goto done;
  status = read_info(&s->own, &code, false, limit_bytes);
  if (status == LUPE_OK) {
    read_shared(s, &code, debug_root, limit_bytes);
  } else if (lupe_debug_file_open(debug_root, code.build_id, &separate) == LUPE_OK) {
    status = read_info(&s->own, &separate, false, limit_bytes);
    if (status == LUPE_OK) read_shared(s, &separate, debug_root, limit_bytes);
    lupe_elf_close(&separate);
  }
  if (status == LUPE_OK) {
    *out = s;
  } else {
    free(s);
  }
done:
  lupe_elf_close(&code);
  return status;
}

void lupe_source_lines_close(lupe_source_lines *s) {
  if (!s) return;
  clear_info(&s->own);
  clear_info(&s->shared);
  lupe_text_store_clear(&s->texts);
  free(s);
}

/* -- texts ------------------------------------------------------------------------------------ */

static const char *keep(lupe_source_lines *s, char *text) {
  lupe_clean_name(text);
  return lupe_text_store_at(&s->texts, lupe_text_store_put(&s->texts, text, TEXT_BYTES));
}

static const char *string_of(Dwarf_Die *die, unsigned attribute) {
  Dwarf_Attribute a;
  return dwarf_attr_integrate(die, attribute, &a) ? dwarf_formstring(&a) : NULL;
}

/* The demangled name of what was inlined. */
static const char *name_of(lupe_source_lines *s, Dwarf_Die *die) {
  char name[NAME_BYTES];
  const char *raw = string_of(die, DW_AT_linkage_name);
  if (!raw) raw = string_of(die, DW_AT_MIPS_linkage_name);
  if (!raw) raw = string_of(die, DW_AT_name);
  if (!raw) return "";
  lupe_demangle(raw, name, sizeof name);
  return keep(s, name);
}

/* A file's path, made absolute by the folder that the unit was compiled in. */
static const char *file_of(lupe_source_lines *s, const char *raw, const char *folder) {
  char path[FILE_BYTES];
  if (!raw || !*raw || strcmp(raw, "???") == 0) return "";
  if (*raw == '/' || !folder || !*folder) {
    snprintf(path, sizeof path, "%s", raw);
  } else {
    snprintf(path, sizeof path, "%s/%s", folder, raw);
  }
  return keep(s, path);
}

/* -- units ------------------------------------------------------------------------------------ */

static uint32_t number_of(Dwarf_Die *die, unsigned attribute) {
  Dwarf_Attribute a;
  Dwarf_Word value;
  bool there = dwarf_attr(die, attribute, &a) && dwarf_formudata(&a, &value) == 0;
  return there && value <= UINT32_MAX ? (uint32_t)value : 0;
}

typedef struct unit {
  Dwarf_Die die;
  const char *folder;
  Dwarf_Files *files; /* NULL: none */
  size_t file_count;
} unit;

/* Where an inlined call stands in the source. */
static void call_site(lupe_source_lines *s, const unit *u, Dwarf_Die *inlined, const char **out_file,
                      uint32_t *out_line) {
  uint32_t index = number_of(inlined, DW_AT_call_file);
  *out_line = number_of(inlined, DW_AT_call_line);
  *out_file = u->files && index < u->file_count
                  ? file_of(s, dwarf_filesrc(u->files, index, NULL, NULL), u->folder)
                  : "";
}

/* Where a function is defined. (dwarf_decl_file knows nothing of DWARF 5's file number 0.) */
static void definition(lupe_source_lines *s, const unit *u, Dwarf_Die *function, lupe_source_place *out) {
  Dwarf_Attribute a;
  Dwarf_Word index;
  Dwarf_Die home;
  Dwarf_Files *files;
  size_t count;
  int line;
  if (dwarf_decl_line(function, &line) != 0 || line <= 0) return;
  out->definition_line = (uint32_t)line;
  if (dwarf_attr_integrate(function, DW_AT_decl_file, &a) && dwarf_formudata(&a, &index) == 0 &&
      dwarf_cu_die(a.cu, &home, NULL, NULL, NULL, NULL, NULL, NULL) &&
      dwarf_getsrcfiles(&home, &files, &count) == 0 && index < count)
    out->definition_file = file_of(s, dwarf_filesrc(files, index, NULL, NULL), u->folder);
}

/* Tells what is known of one address. */
static void tell(lupe_source_lines *s, unit *u, size_t index, const lupe_walk_address *address,
                 lupe_source_lines_cb found, void *arg) {
  lupe_source_call calls[LUPE_SOURCE_INLINES_MAX];
  lupe_source_place place = {.file = "", .definition_file = "", .inlines = calls};
  Dwarf_Line *line = dwarf_getsrc_die(&u->die, address->address);
  int number;
  if (line && dwarf_lineno(line, &number) == 0 && number > 0) {
    place.line = (uint32_t)number;
    place.file = file_of(s, dwarf_linesrc(line, NULL, NULL), u->folder);
  }
  uint32_t at = address->innermost;
  while (at != LUPE__WALK_NONE) {
    lupe_walk_node *node = &s->walk.nodes[at];
    at = node->outer;
    if (at == LUPE__WALK_NONE) { /* the function itself */
      definition(s, u, &node->die, &place);
      break;
    }
    if (place.inline_count < LUPE_SOURCE_INLINES_MAX) {
      calls[place.inline_count++] = (lupe_source_call){name_of(s, &node->die), place.file, place.line};
    }
    call_site(s, u, &node->die, &place.file, &place.line);
  }
  if (place.line > 0 || place.definition_line > 0 || place.inline_count > 0) found(arg, index, &place);
}

typedef struct bounds {
  lupe_walk_address *first, *behind; /* NULL: none */
} bounds;

/* An address belongs to the first unit that covers it. */
static void claim(lupe_walk *w, lupe_walk_address *address, void *arg) {
  bounds *b = arg;
  if (address->unit != 0) return;
  address->unit = w->unit;
  if (!b->first || address < b->first) b->first = address;
  if (!b->behind || address >= b->behind) b->behind = address + 1;
}

/* Libdw keeps all that it ever read, until it is ended. */
static lupe_status forget(lupe_source_lines *s) {
  dwarf_end(s->own.dwarf);
  s->own.dwarf = dwarf_begin_elf(s->own.elf, DWARF_C_READ, NULL);
  s->line_count = 0;
  if (!s->own.dwarf) return LUPE_ENOMEM;
  if (s->shared.dwarf) dwarf_setalt(s->own.dwarf, s->shared.dwarf);
  return LUPE_OK;
}

static lupe_status resolve_unit(lupe_source_lines *s, Dwarf_Die *die, lupe_source_lines_cb found, void *arg) {
  lupe_walk *w = &s->walk;
  bounds b = {0};
  bool split = dwarf_hasattr(die, DW_AT_GNU_dwo_name) || dwarf_hasattr(die, DW_AT_dwo_name);
  if (dwarf_tag(die) != DW_TAG_compile_unit || split) return LUPE_OK;
  w->unit++;
  lupe_walk_ask_clock(w);
  lupe_walk_covered(w, die, claim, &b);
  if (!b.first || w->status != LUPE_OK) return w->status;

  unit u = {.die = *die, .folder = string_of(die, DW_AT_comp_dir)};
  size_t all_count = w->address_count, from = (size_t)(b.first - w->addresses);
  Dwarf_Lines *lines;
  size_t line_count;
  if (dwarf_getsrcfiles(die, &u.files, &u.file_count) != 0) u.files = NULL;
  if (dwarf_getsrclines(die, &lines, &line_count) == 0) s->line_count += line_count;
  lupe_walk_address *all = w->addresses;
  w->addresses = b.first;
  w->address_count = (size_t)(b.behind - b.first);
  lupe_status status = lupe_walk_unit(w, die);
  for (size_t i = 0; i < w->address_count && status == LUPE_OK; i++) {
    if (w->addresses[i].unit == w->unit) tell(s, &u, from + i, &w->addresses[i], found, arg);
  }
  w->addresses = all;
  w->address_count = all_count;
  return status;
}

lupe_status lupe_source_lines_resolve(lupe_source_lines *s, const uint64_t *addresses, size_t count,
                                      int64_t deadline_ns, lupe_source_lines_cb found, void *arg) {
  lupe_walk *w = &s->walk;
  *w = (lupe_walk){.address_count = count, .deadline_ns = deadline_ns};
  w->addresses = malloc((count + 1) * sizeof *w->addresses);
  if (!w->addresses) return LUPE_ENOMEM;
  for (size_t i = 0; i < count; i++) w->addresses[i] = (lupe_walk_address){addresses[i], LUPE__WALK_NONE, 0};
  lupe_status status = LUPE_OK;
  Dwarf_Off at = 0, next;
  size_t header_bytes;
  if (!s->own.dwarf) status = LUPE_ENOMEM; /* it could not be begun again */
  while (status == LUPE_OK &&
         dwarf_next_unit(s->own.dwarf, at, &next, &header_bytes, NULL, NULL, NULL, NULL, NULL, NULL) == 0) {
    Dwarf_Die die;
    if (dwarf_offdie(s->own.dwarf, at + header_bytes, &die)) status = resolve_unit(s, &die, found, arg);
    if (next <= at || !lupe_walk_goes_on(w)) break;
    at = next;
    if (s->line_count > LINES_AT_ONCE && status == LUPE_OK) status = forget(s);
  }
  if (status == LUPE_OK) status = w->status;
  free(w->addresses);
  free(w->nodes);
  *w = (lupe_walk){0};
  return status;
}
