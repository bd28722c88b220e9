#include "core/store/debug_sections.h"

#include <elf.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <zlib.h>

/* Lines need these and no others. */
static const char *const wanted[] = {
    "info", "abbrev", "line", "str", "line_str", "ranges", "rnglists", "addr", "str_offsets", "types",
};
enum {
  WANTED = sizeof wanted / sizeof *wanted,
  INFO = 0,
  NAME_BYTES = 32,
  PACKED_BYTES = 64 << 10, /* of a packed section, read at a time */
  GAP_BYTES = 4096,        /* zeroes behind each section */
  EMPTY_BYTES = 16,
  OLD_HEADER_BYTES = 12, /* "ZLIB" and the size, most significant byte first */
};

typedef struct source {
  lupe_elf_section section;
  uint64_t bytes;  /* unpacked; 0: there is none */
  uint64_t header; /* in front of what is packed; 0: it is not */
  uint64_t offset; /* in the copy */
  bool empty;
} source;

/* How large the section is when unpacked. */
static lupe_status measure(lupe_elf_file *f, bool old_form, source *s) {
  s->bytes = s->section.bytes;
  if (old_form) {
    uint8_t head[OLD_HEADER_BYTES];
    if (s->section.bytes < sizeof head) return LUPE_ECORRUPT;
    lupe_status status = lupe_elf_read(f, s->section.offset, head, sizeof head);
    if (status != LUPE_OK) return status;
    if (memcmp(head, "ZLIB", 4) != 0) return LUPE_EUNSUPPORTED;
    s->header = sizeof head;
    s->bytes = 0;
    for (size_t i = 4; i < sizeof head; i++) s->bytes = s->bytes << 8 | head[i];
  } else if (s->section.flags & SHF_COMPRESSED) {
    Elf64_Chdr head;
    if (s->section.bytes < sizeof head) return LUPE_ECORRUPT;
    lupe_status status = lupe_elf_read(f, s->section.offset, &head, sizeof head);
    if (status != LUPE_OK) return status;
    if (head.ch_type != ELFCOMPRESS_ZLIB) return LUPE_EUNSUPPORTED;
    s->header = sizeof head;
    s->bytes = head.ch_size;
  }
  return LUPE_OK;
}

/* .gnu_debugaltlink: a path, its NUL, and the build id. */
static void read_shared(lupe_debug_sections *d, lupe_elf_file *f, const lupe_elf_section *section) {
  char text[sizeof d->shared_path + LUPE_DEBUG_ID_BYTES];
  if (section->bytes > sizeof text || lupe_elf_read(f, section->offset, text, section->bytes) != LUPE_OK)
    return;
  const char *end = memchr(text, '\0', section->bytes);
  if (!end || end == text || (size_t)(end - text) >= sizeof d->shared_path) return;
  const uint8_t *id = (const uint8_t *)end + 1;
  size_t id_bytes = section->bytes - (size_t)(end + 1 - text);
  if (id_bytes < 2 || id_bytes > LUPE_DEBUG_ID_BYTES) return;
  memcpy(d->shared_path, text, (size_t)(end + 1 - text));
  lupe_elf_hex(id, id_bytes, d->shared_build_id);
}

/* Finds the wanted sections by name. */
static lupe_status find(lupe_debug_sections *d, lupe_elf_file *f, source sources[WANTED]) {
  for (uint32_t i = 1; i < f->section_count; i++) {
    lupe_elf_section section;
    char name[NAME_BYTES];
    if (lupe_elf_section_at(f, i, &section) != LUPE_OK || section.type == SHT_NOBITS ||
        lupe_elf_section_name(f, &section, name, sizeof name) != LUPE_OK)
      continue;
    if (strcmp(name, ".gnu_debugaltlink") == 0) read_shared(d, f, &section);
    bool old_form = strncmp(name, ".zdebug_", 8) == 0;
    if (!old_form && strncmp(name, ".debug_", 7) != 0) continue;
    for (size_t k = 0; k < WANTED; k++) {
      if (strcmp(name + (old_form ? 8 : 7), wanted[k]) != 0 || sources[k].bytes > 0) continue;
      sources[k].section = section;
      lupe_status status = measure(f, old_form, &sources[k]);
      if (status != LUPE_OK) return status;
    }
  }
  return LUPE_OK;
}

static lupe_status unpack(lupe_elf_file *f, const source *s, char *out) {
  z_stream z = {0};
  if (inflateInit(&z) != Z_OK) return LUPE_ENOMEM;
  lupe_status status = LUPE_ENOMEM;
  uint8_t *packed = malloc(PACKED_BYTES);
  if (!packed) goto no_buffer;
  uint64_t at = s->section.offset + s->header, left = s->section.bytes - s->header;
  uint64_t room = s->bytes;
  int answer = Z_OK;
  z.next_out = (uint8_t *)out;
  status = LUPE_OK;
  while (answer == Z_OK && status == LUPE_OK && left > 0 && room > 0) {
    size_t bytes = left < PACKED_BYTES ? (size_t)left : PACKED_BYTES;
    status = lupe_elf_read(f, at, packed, bytes);
    if (status != LUPE_OK) break;
    z.next_in = packed;
    z.avail_in = (uInt)bytes;
    at += bytes;
    left -= bytes;
    while (answer == Z_OK && z.avail_in > 0 && room > 0) {
      uInt offered = room < (1U << 30) ? (uInt)room : 1U << 30;
      z.avail_out = offered;
      answer = inflate(&z, Z_NO_FLUSH);
      room -= offered - z.avail_out;
    }
  }
  if (status == LUPE_OK && room > 0) status = LUPE_ECORRUPT; /* it was to be longer */
  free(packed);
no_buffer:
  inflateEnd(&z);
  return status;
}

/* The section headers, and in front of them the sections' names. */
static void write_headers(char *image, uint64_t names_at, uint64_t headers_at, const source sources[WANTED]) {
  Elf64_Shdr *headers = (Elf64_Shdr *)(image + headers_at);
  size_t names_bytes = 1, count = 1; /* "", and the null section */
  for (size_t k = 0; k < WANTED; k++) {
    if (sources[k].bytes == 0) continue;
    headers[count++] = (Elf64_Shdr){
        .sh_name = (Elf64_Word)names_bytes,
        .sh_type = SHT_PROGBITS,
        .sh_offset = sources[k].offset,
        .sh_size = sources[k].bytes,
        .sh_addralign = 1,
    };
    int length = snprintf(image + names_at + names_bytes, NAME_BYTES, ".debug_%s", wanted[k]);
    names_bytes += (size_t)length + 1;
  }
  headers[count] =
      (Elf64_Shdr){.sh_type = SHT_STRTAB, .sh_offset = names_at, .sh_size = names_bytes, .sh_addralign = 1};
  Elf64_Ehdr *header = (Elf64_Ehdr *)image;
  memcpy(header->e_ident, ELFMAG, SELFMAG);
  header->e_ident[EI_CLASS] = ELFCLASS64;
  header->e_ident[EI_DATA] = ELFDATA2LSB;
  header->e_ident[EI_VERSION] = EV_CURRENT;
  header->e_type = ET_DYN;
  header->e_machine = EM_X86_64;
  header->e_version = EV_CURRENT;
  header->e_shoff = headers_at;
  header->e_ehsize = sizeof(Elf64_Ehdr);
  header->e_shentsize = sizeof(Elf64_Shdr);
  header->e_shnum = (Elf64_Half)(count + 1);
  header->e_shstrndx = (Elf64_Half)count;
}

lupe_status lupe_debug_sections_read(lupe_debug_sections *out, lupe_elf_file *f, bool shared,
                                     size_t limit_bytes) {
  source sources[WANTED] = {0};
  *out = (lupe_debug_sections){0};
  lupe_status status = find(out, f, sources);
  if (status != LUPE_OK) return status;
  if (sources[INFO].bytes == 0) {
    if (!shared) return LUPE_ENOENT;
    sources[INFO].bytes = EMPTY_BYTES; /* libdw wants some: zeroes, which end at once */
    sources[INFO].empty = true;
  }
  uint64_t total = sizeof(Elf64_Ehdr), content = 0;
  for (size_t k = 0; k < WANTED; k++) {
    if (sources[k].bytes > limit_bytes - content) return LUPE_EFULL;
    content += sources[k].bytes;
    sources[k].offset = total;
    if (sources[k].bytes > 0) total = (total + sources[k].bytes + GAP_BYTES + 15) & ~UINT64_C(15);
  }
  uint64_t names_at = total, headers_at = names_at + (WANTED + 1) * (size_t)NAME_BYTES;
  total = headers_at + (WANTED + 2) * sizeof(Elf64_Shdr) + GAP_BYTES;
  char *image = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (image == MAP_FAILED) return LUPE_ENOMEM;
  out->image = image;
  out->image_bytes = total;
  for (size_t k = 0; k < WANTED && status == LUPE_OK; k++) {
    if (sources[k].bytes == 0 || sources[k].empty) continue;
    status = sources[k].header
                 ? unpack(f, &sources[k], image + sources[k].offset)
                 : lupe_elf_read(f, sources[k].section.offset, image + sources[k].offset, sources[k].bytes);
  }
  if (status != LUPE_OK) {
    lupe_debug_sections_clear(out);
    return status;
  }
  write_headers(image, names_at, headers_at, sources);
  return LUPE_OK;
}

void lupe_debug_sections_clear(lupe_debug_sections *d) {
  if (d->image) munmap(d->image, d->image_bytes);
  d->image = NULL;
}
