#include "core/store/function_table.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
  CHUNK_SYMBOLS = 1024,
  CHUNK_STARTS = 2048,
  SORT_BY_HAND = 24,  /* runs this short are sorted by insertion */
  OUTER_SYMBOLS = 32, /* how many starts before an address may belong to a function around it */
  ALIASES = 64,       /* symbols at one address that are looked at */
  START_BITS = 48,    /* of an address in a file; what lies higher is no program of ours */
  CLASS_LOCAL = 1,    /* in the lowest bits of a key */
  CLASS_UNTYPED = 2,
};

static size_t whole_pages(size_t bytes) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  return (bytes + page - 1) & ~(page - 1);
}

static void *map_pages(size_t bytes, size_t *out_mapped) {
  size_t mapped = whole_pages(bytes);
  void *p = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return NULL;
  *out_mapped = mapped;
  return p;
}

/* Gives back the pages behind `used` bytes (more than 0). Shrinking in place cannot fail. */
static void trim_pages(void *p, size_t *mapped, size_t used) {
  size_t kept = whole_pages(used);
  if (kept < *mapped) munmap((char *)p + kept, *mapped - kept);
  *mapped = kept;
}

void lupe_function_table_clear(lupe_function_table *t) {
  if (t->symbols) munmap(t->symbols, t->symbols_mapped);
  if (t->starts) munmap(t->starts, t->starts_mapped);
  *t = (lupe_function_table){0};
}

size_t lupe_function_table_bytes(const lupe_function_table *t) {
  return t->symbols_mapped + t->starts_mapped;
}

static void sort_by_insertion(lupe_function_symbol *a, size_t n) {
  for (size_t i = 1; i < n; i++) {
    lupe_function_symbol moved = a[i];
    size_t j = i;
    for (; j > 0 && a[j - 1].key > moved.key; j--) a[j] = a[j - 1];
    a[j] = moved;
  }
}

/* Radix exchange from bit `bit` down: in place (qsort would malloc a copy of the table), and n * 64 steps
 * for the most hostile of files. Recursion is 64 deep at most. */
static void sort_symbols(lupe_function_symbol *a, size_t n, int bit) {
  for (; n > SORT_BY_HAND && bit >= 0; bit--) {
    uint64_t mask = UINT64_C(1) << bit;
    size_t low = 0, high = n;
    while (low < high) {
      if (!(a[low].key & mask)) {
        low++;
      } else {
        lupe_function_symbol swapped = a[low];
        a[low] = a[--high];
        a[high] = swapped;
      }
    }
    sort_symbols(a + low, n - low, bit - 1);
    n = low;
  }
  if (n <= SORT_BY_HAND) sort_by_insertion(a, n);
}

/* One bit per section that holds code; NULL out of memory. Labels without a type are functions only there. */
static uint8_t *code_sections(lupe_elf_file *f) {
  uint8_t *bits = calloc(f->section_count / 8 + 1, 1);
  for (uint32_t i = 1; bits && i < f->section_count; i++) {
    lupe_elf_section section;
    if (lupe_elf_section_at(f, i, &section) != LUPE_OK) continue;
    if (section.flags & SHF_EXECINSTR) bits[i / 8] |= (uint8_t)(1 << i % 8);
  }
  return bits;
}

static bool to_symbol(const Elf64_Sym *s, const lupe_elf_file *code, const uint8_t *code_bits,
                      uint32_t sections, uint64_t names_bytes, lupe_function_symbol *out) {
  unsigned type = ELF64_ST_TYPE(s->st_info);
  bool untyped = type == STT_NOTYPE;
  if (type != STT_FUNC && type != STT_GNU_IFUNC && !untyped) return false;
  if (s->st_shndx == SHN_UNDEF || s->st_shndx == SHN_ABS || s->st_shndx == SHN_COMMON) return false;
  if (s->st_name == 0 || s->st_name >= names_bytes) return false;
  if (s->st_value >> START_BITS || !lupe_elf_is_code(code, s->st_value)) return false;
  if (untyped && (s->st_shndx >= sections || !(code_bits[s->st_shndx / 8] >> s->st_shndx % 8 & 1)))
    return false;
  bool local = ELF64_ST_BIND(s->st_info) == STB_LOCAL;
  *out = (lupe_function_symbol){
      .key = s->st_value << 16 | (untyped ? CLASS_UNTYPED : 0) | (local ? CLASS_LOCAL : 0),
      .bytes = s->st_size < UINT32_MAX ? (uint32_t)s->st_size : UINT32_MAX,
      .name = s->st_name,
  };
  return true;
}

lupe_status lupe_function_table_read_symbols(lupe_function_table *t, const lupe_elf_file *code,
                                             lupe_elf_file *symbols_file, uint32_t type, size_t limit_bytes) {
  lupe_elf_section section, names;
  lupe_status status = lupe_elf_section_of_type(symbols_file, type, &section);
  if (status != LUPE_OK) return status;
  status = lupe_elf_section_at(symbols_file, section.link, &names);
  if (status != LUPE_OK) return status;
  bool sound = section.entry_bytes == sizeof(Elf64_Sym) && names.type == SHT_STRTAB &&
               !((section.flags | names.flags) & SHF_COMPRESSED);
  uint64_t total = section.bytes / sizeof(Elf64_Sym);
  if (!sound || total > UINT32_MAX) return LUPE_ECORRUPT;
  if (total == 0) return LUPE_ENOENT;

  size_t mapped, kept = 0, limit = limit_bytes / sizeof(lupe_function_symbol);
  Elf64_Sym *chunk = malloc(CHUNK_SYMBOLS * sizeof *chunk);
  uint8_t *code_bits = code_sections(symbols_file);
  lupe_function_symbol *symbols = map_pages(total * sizeof *symbols, &mapped);
  status = LUPE_ENOMEM;
  if (!chunk || !code_bits || !symbols) goto failed;
  for (uint64_t at = 0; at < total;) {
    size_t n = total - at < CHUNK_SYMBOLS ? (size_t)(total - at) : CHUNK_SYMBOLS;
    status = lupe_elf_read(symbols_file, section.offset + at * sizeof *chunk, chunk, n * sizeof *chunk);
    if (status != LUPE_OK) goto failed;
    status = LUPE_ENOMEM;
    for (size_t i = 0; i < n; i++) {
      if (kept == limit) goto failed;
      kept += to_symbol(&chunk[i], code, code_bits, symbols_file->section_count, names.bytes, &symbols[kept]);
    }
    at += n;
  }
  status = LUPE_ENOENT;
  if (kept == 0) goto failed;
  free(code_bits);
  free(chunk);
  trim_pages(symbols, &mapped, kept * sizeof *symbols);
  sort_symbols(symbols, kept, 63);
  t->symbols = symbols;
  t->symbol_count = kept;
  t->symbols_mapped = mapped;
  t->names_offset = names.offset;
  t->names_bytes = names.bytes;
  return LUPE_OK;

failed:
  if (symbols) munmap(symbols, mapped);
  free(code_bits);
  free(chunk);
  return status;
}

lupe_status lupe_function_table_read_starts(lupe_function_table *t, lupe_elf_file *code, size_t limit_bytes) {
  /* version, encodings of eh_frame_ptr, of the count and of the table; 4 bytes of pointer, 4 of count */
  static const uint8_t usual[] = {1, 0x03, 0x3b};
  struct {
    uint8_t version, pointer_encoding, count_encoding, table_encoding;
    uint32_t pointer, count;
  } header;
  if (code->unwind_bytes < sizeof header) return LUPE_ENOENT;
  lupe_status status = lupe_elf_read(code, code->unwind_offset, &header, sizeof header);
  if (status != LUPE_OK) return status;
  bool known = header.version == usual[0] && header.count_encoding == usual[1] &&
               header.table_encoding == usual[2] &&
               ((header.pointer_encoding & 0x0f) == 0x03 || (header.pointer_encoding & 0x0f) == 0x0b);
  if (!known || header.count == 0) return LUPE_ENOENT;
  struct {
    int32_t start, fde;
  } * chunk;
  if (header.count > (code->unwind_bytes - sizeof header) / sizeof *chunk) return LUPE_ECORRUPT;
  if (header.count > limit_bytes / sizeof(int32_t)) return LUPE_ENOMEM;

  size_t mapped;
  chunk = malloc(CHUNK_STARTS * sizeof *chunk);
  int32_t *starts = map_pages(header.count * sizeof *starts, &mapped);
  status = LUPE_ENOMEM;
  if (!chunk || !starts) goto failed;
  for (size_t at = 0; at < header.count;) {
    size_t n = header.count - at < CHUNK_STARTS ? header.count - at : CHUNK_STARTS;
    uint64_t offset = code->unwind_offset + sizeof header + at * sizeof *chunk;
    status = lupe_elf_read(code, offset, chunk, n * sizeof *chunk);
    if (status != LUPE_OK) goto failed;
    status = LUPE_ECORRUPT; /* unsorted: a search in it would lie */
    for (size_t i = 0; i < n; i++, at++) {
      starts[at] = chunk[i].start;
      if (at > 0 && starts[at] < starts[at - 1]) goto failed;
    }
  }
  free(chunk);
  t->starts = starts;
  t->start_count = header.count;
  t->starts_mapped = mapped;
  t->unwind_vaddr = code->unwind_vaddr;
  t->entries_offset = code->unwind_offset + sizeof header;
  return LUPE_OK;

failed:
  if (starts) munmap(starts, mapped);
  free(chunk);
  return status;
}

/* Index of the last start at or before `vaddr`, SIZE_MAX if there is none. */
static size_t find_start(const lupe_function_table *t, uint64_t vaddr) {
  int64_t wanted = (int64_t)(vaddr - t->unwind_vaddr);
  size_t low = 0, high = t->start_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (t->starts[middle] <= wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low - 1;
}

/* How many symbols begin at or before `vaddr`. */
static size_t symbols_up_to(const lupe_function_table *t, uint64_t vaddr) {
  size_t low = 0, high = t->symbol_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (lupe_function_symbol_start(&t->symbols[middle]) <= vaddr) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

bool lupe_function_table_find(const lupe_function_table *t, uint64_t vaddr, lupe_function_range *out) {
  size_t unwind = find_start(t, vaddr);
  uint64_t unwind_start = unwind == SIZE_MAX ? 0 : t->unwind_vaddr + (uint64_t)(int64_t)t->starts[unwind];
  size_t end = symbols_up_to(t, vaddr);
  size_t nearest = SIZE_MAX,
         nearest_count = 0; /* the nearest symbol of unknown size that reaches the address */
  for (int outer = 0; end > 0 && outer < OUTER_SYMBOLS; outer++) {
    uint64_t start = lupe_function_symbol_start(&t->symbols[end - 1]);
    uint64_t bytes = 0;
    size_t first = end;
    for (; first > 0 && end - first < ALIASES && lupe_function_symbol_start(&t->symbols[first - 1]) == start;
         first--) {
      if (t->symbols[first - 1].bytes > bytes) bytes = t->symbols[first - 1].bytes;
    }
    bool covers = vaddr - start < bytes;
    if (covers || (unwind != SIZE_MAX && start == unwind_start)) {
      *out = (lupe_function_range){start, first, end - first, covers ? SIZE_MAX : unwind};
      return true;
    }
    if (outer == 0 && bytes == 0 && start >= unwind_start) {
      nearest = first;
      nearest_count = end - first;
    }
    end = first;
  }
  if (nearest != SIZE_MAX) {
    uint64_t start = lupe_function_symbol_start(&t->symbols[nearest]);
    *out = (lupe_function_range){start, nearest, nearest_count, SIZE_MAX};
    return true;
  }
  if (unwind == SIZE_MAX) return false;
  *out = (lupe_function_range){unwind_start, 0, 0, unwind};
  return true;
}

static uint64_t read_uleb(const uint8_t **p, const uint8_t *end) {
  uint64_t value = 0;
  for (unsigned shift = 0; *p < end; shift += 7) {
    uint8_t byte = *(*p)++;
    if (shift < 64) value |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80)) break;
  }
  return value;
}

/* How a CIE's FDEs write their pointers, from its augmentation ("zPLR" and the like); 0xff: not understood.
 */
static uint8_t pointer_encoding(const uint8_t *cie, size_t bytes) {
  const uint8_t *end = cie + bytes, *p = cie + 9;
  uint8_t version = cie[8];
  const uint8_t *letters = p;
  p = memchr(p, '\0', (size_t)(end - p));
  if (!p) return 0xff;
  if (*letters == '\0') return 0; /* absolute pointers */
  p++;
  read_uleb(&p, end); /* code and data alignment, return address column, augmentation's length */
  read_uleb(&p, end);
  if (version == 1) {
    p++;
  } else {
    read_uleb(&p, end);
  }
  if (*letters++ != 'z') return 0xff;
  read_uleb(&p, end);
  for (; *letters && p < end; letters++) {
    if (*letters == 'R') return *p;
    if (*letters == 'L') p++;
    if (*letters == 'P') {
      uint8_t form = *p & 0x0f;
      p += 1 + (form == 0x02 || form == 0x0a ? 2 : form == 0x03 || form == 0x0b ? 4 : 8);
    }
  }
  return *letters ? 0xff : 0;
}

lupe_status lupe_function_table_unwind_bytes(const lupe_function_table *t, lupe_elf_file *code, size_t index,
                                             uint64_t *out) {
  if (index >= t->start_count) return LUPE_ENOENT;
  int32_t entry[2];
  lupe_status status = lupe_elf_read(code, t->entries_offset + index * sizeof entry, entry, sizeof entry);
  if (status != LUPE_OK) return status;
  uint64_t fde;
  if (!lupe_elf_offset_of(code, t->unwind_vaddr + (uint64_t)(int64_t)entry[1], &fde)) return LUPE_ECORRUPT;
  struct {
    uint32_t length, cie_delta;
    uint8_t pointers[16];
  } head;
  status = lupe_elf_read(code, fde, &head, sizeof head);
  if (status != LUPE_OK) return status;
  if (head.length == UINT32_MAX || head.cie_delta == 0 || head.cie_delta > fde + 4) return LUPE_ECORRUPT;
  uint8_t cie[48]; /* the augmentation lies well within */
  status = lupe_elf_read(code, fde + 4 - head.cie_delta, cie, sizeof cie);
  if (status != LUPE_OK) return status;

  /* The length has the pointers' form without their base. */
  switch (pointer_encoding(cie, sizeof cie) & 0x0f) {
    case 0x03:
    case 0x0b: {
      uint32_t bytes;
      memcpy(&bytes, head.pointers + 4, sizeof bytes);
      *out = bytes;
      return LUPE_OK;
    }
    case 0x00:
    case 0x04:
    case 0x0c:
      memcpy(out, head.pointers + 8, sizeof *out);
      return LUPE_OK;
    default:
      return LUPE_ECORRUPT;
  }
}
