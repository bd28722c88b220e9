/* function_table.h -- where the functions of one ELF file begin and end: its symbols, sorted, 16 bytes each,
 * and the sorted starts of .eh_frame_hdr, 4 bytes each. Names stay in the file.
 * The memory is mapped, not malloced, and cut to size: building one leaves nothing behind in the heap.
 * Thread: one at a time per table. */
#ifndef LUPE_STORE_FUNCTION_TABLE_H
#define LUPE_STORE_FUNCTION_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/elf_file.h"

typedef struct lupe_function_symbol {
  uint64_t key;   /* start << 16 | class: functions before labels, exported before local */
  uint32_t bytes; /* 0: of unknown size */
  uint32_t name;  /* offset in the string section */
} lupe_function_symbol;

/* Embedded in its owner. All zero is an empty table. */
typedef struct lupe_function_table {
  lupe_function_symbol *symbols;
  size_t symbol_count, symbols_mapped;
  uint64_t names_offset, names_bytes; /* the string section, in the file that the symbols came from */
  int32_t *starts;                    /* relative to unwind_vaddr */
  size_t start_count, starts_mapped;
  uint64_t unwind_vaddr, entries_offset; /* of .eh_frame_hdr and its search table's place in the file */
} lupe_function_table;

/* What is known about the function around an address. */
typedef struct lupe_function_range {
  uint64_t start;
  size_t first_symbol, symbol_count; /* the symbols that begin at `start`, best class first; 0: unnamed */
  size_t unwind_index;               /* the unwind entry that this rests on; SIZE_MAX: a symbol covers it */
} lupe_function_range;

/* Reads the functions of `symbols_file`'s section of this type (SHT_SYMTAB, SHT_DYNSYM) that lie in the code
 * of `code`, the program itself (the same file unless the symbols are in a separate debug file). LUPE_ENOENT:
 * it holds none; LUPE_ENOMEM: more than `limit_bytes`, or out of memory; LUPE_ECORRUPT, LUPE_EIO. */
lupe_status lupe_function_table_read_symbols(lupe_function_table *t, const lupe_elf_file *code,
                                             lupe_elf_file *symbols_file, uint32_t type, size_t limit_bytes);

/* Reads the search table of .eh_frame_hdr. LUPE_ENOENT: none of the usual form (sorted, datarel | sdata4). */
lupe_status lupe_function_table_read_starts(lupe_function_table *t, lupe_elf_file *code, size_t limit_bytes);

void lupe_function_table_clear(lupe_function_table *t);
size_t lupe_function_table_bytes(const lupe_function_table *t);

/* The function around `vaddr`: by a symbol that covers it, else the nearest start in .eh_frame_hdr. False:
 * unknown. A symbol with a size covers that, and beyond it only what .eh_frame_hdr counts to the same
 * function; one without reaches to the next start of either table. */
bool lupe_function_table_find(const lupe_function_table *t, uint64_t vaddr, lupe_function_range *out);

/* Length of the function of an unwind entry, from its FDE; LUPE_ENOENT, LUPE_ECORRUPT. */
lupe_status lupe_function_table_unwind_bytes(const lupe_function_table *t, lupe_elf_file *code, size_t index,
                                             uint64_t *out);

static inline uint64_t lupe_function_symbol_start(const lupe_function_symbol *s) {
  return s->key >> 16;
}

#endif
