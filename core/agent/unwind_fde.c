#include "core/agent/unwind_fde.h"

#include "core/agent/unwind_x86_64.h"

enum {
  SEARCH_ENTRIES = 64,       /* of the search table, read at once: system calls cost more than bytes */
  ENTRY_BYTES_MAX = 1 << 15, /* of one FDE or CIE; real ones stay far below */
  TABLE_ENTRIES_MAX = 1 << 24,
};

typedef struct table {
  uint64_t first; /* address of entry 0: two int32 relative to the header: the function and its FDE, sorted */
  uint64_t count;
} table;

static bool read_header(lupe_cursor *c, table *out) {
  lupe_cursor_seek(c, c->image->header,
                   c->image->header < c->image->end ? c->image->end - c->image->header : 0);
  uint8_t version = lupe_cursor_byte(c), frame_encoding = lupe_cursor_byte(c),
          count_encoding = lupe_cursor_byte(c);
  uint8_t table_encoding = lupe_cursor_byte(c);
  if (c->failed == LUPE_CURSOR_FINE && (version != 1 || count_encoding == LUPE_PE_OMIT ||
                                        table_encoding != (LUPE_PE_DATAREL | LUPE_PE_SDATA4))) {
    lupe_cursor_fail(
        c, LUPE_CURSOR_MALFORMED); /* no table to search: a scan of all of .eh_frame would have no bound */
  }
  if (frame_encoding != LUPE_PE_OMIT) lupe_cursor_pointer(c, frame_encoding);
  uint64_t count = lupe_cursor_pointer(c, count_encoding);
  if (c->failed != LUPE_CURSOR_FINE) return false;
  if (count == 0 || count > TABLE_ENTRIES_MAX || count * 8 > c->end - c->at) {
    lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
    return false;
  }
  *out = (table){.first = c->at, .count = count};
  return true;
}

/* Where in [low, high) to look next: by the share of the address range, since functions spread about evenly.
 */
static uint64_t guess(uint64_t low, uint64_t high, int64_t low_key, int64_t high_key, int64_t key) {
  if (high_key <= low_key || key <= low_key) return low;
  if (key >= high_key) return high - 1;
  double share = (double)(key - low_key) / (double)(high_key - low_key);
  uint64_t at = low + (uint64_t)(share * (double)(high - low));
  return at < high ? at : high - 1;
}

/* Interpolating, with every second step a bisection, so that an uneven table costs 2 log2(n) steps at most.
 * Own function: its window leaves the stack before the program of the FDE is run. */
__attribute__((noinline)) static uint64_t find_fde(lupe_cursor *c, const table *t, uint64_t pc) {
  const lupe_cfi_image *image = c->image;
  struct entry {
    int32_t function, fde;
  } window[SEARCH_ENTRIES];
  int64_t key = (int64_t)(pc - image->header);
  if (!lupe_fits(key, 32)) {
    lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
    return 0;
  }
  uint64_t low = 0,
           high = t->count; /* the last entry whose function is <= key lies in [low, high) or below low */
  int64_t low_key = (int64_t)(image->start - image->header), high_key = (int64_t)(image->end - image->header);
  bool bisect = false, found = false;
  int32_t found_fde = 0;
  while (low < high) {
    uint64_t middle = bisect ? low + (high - low) / 2 : guess(low, high, low_key, high_key, key);
    bisect = !bisect;
    uint64_t from = middle > low + SEARCH_ENTRIES / 2 ? middle - SEARCH_ENTRIES / 2 : low;
    uint64_t count = high - from < SEARCH_ENTRIES ? high - from : SEARCH_ENTRIES;
    size_t got = image->read(image->context, t->first + from * 8, window, count * 8) / 8;
    if (got == 0) {
      lupe_cursor_fail(c, LUPE_CURSOR_UNREADABLE);
      return 0;
    }
    if (window[0].function > key) {
      high = from;
      high_key = window[0].function;
      continue;
    }
    uint64_t last = 0; /* of those in the window that are <= key */
    for (uint64_t step = SEARCH_ENTRIES / 2; step > 0; step /= 2) {
      if (last + step < got && window[last + step].function <= key) last += step;
    }
    found = true;
    found_fde = window[last].fde;
    if (last + 1 < got) break; /* the next one is above: this is it */
    low = from + got;
    low_key = window[got - 1].function;
  }
  if (!found) lupe_cursor_fail(c, LUPE_CURSOR_UNCOVERED);
  return image->header + (uint64_t)(int64_t)found_fde;
}

typedef struct entry {
  uint64_t body, end; /* what follows the length field */
} entry;

static entry open_entry(lupe_cursor *c, uint64_t at) {
  lupe_cursor_seek(c, at, c->image->end > at ? c->image->end - at : 0);
  uint64_t length = lupe_cursor_fixed(c, 4); /* 0xffffffff, the 64-bit form, is beyond the bound as well */
  if (length < 4 || length > ENTRY_BYTES_MAX) lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
  entry e = {.body = c->at, .end = c->at + length};
  if (c->failed == LUPE_CURSOR_FINE) lupe_cursor_seek(c, e.body, length);
  return e;
}

static void read_cie(lupe_cursor *c, uint64_t at, lupe_cie *out) {
  char augmentation[8];
  size_t letters = 0;
  entry e = open_entry(c, at);
  uint32_t id = (uint32_t)lupe_cursor_fixed(c, 4);
  uint8_t version = lupe_cursor_byte(c);
  if (id != 0 || (version != 1 && version != 3)) lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
  for (char letter; (letter = (char)lupe_cursor_byte(c)) != 0; augmentation[letters++] = letter) {
    if (letters == sizeof augmentation) {
      lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
      return;
    }
  }
  *out = (lupe_cie){.pointer_encoding = LUPE_PE_ABSPTR, .program_end = e.end};
  out->code_align = lupe_cursor_uleb(c);
  out->data_align = lupe_cursor_sleb(c);
  uint64_t return_register = version == 1 ? lupe_cursor_byte(c) : lupe_cursor_uleb(c);
  if (return_register != LUPE_DWARF_RA) lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
  if (letters > 0 && augmentation[0] != 'z')
    lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED); /* the ancient "eh" form */
  out->augmented = letters > 0;
  uint64_t length = out->augmented ? lupe_cursor_uleb(c) : 0;
  if (c->failed != LUPE_CURSOR_FINE) return;
  out->program = c->at + length;
  if (length > c->end - c->at) lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
  for (size_t i = 1; i < letters && c->failed == LUPE_CURSOR_FINE; i++) {
    switch (augmentation[i]) {
      case 'R':
        out->pointer_encoding = lupe_cursor_byte(c);
        break;
      case 'L':
        lupe_cursor_byte(c);
        break;
      case 'P':
        lupe_cursor_value(c, lupe_cursor_byte(c));
        break;
      case 'S':
        out->signal = true;
        break;
      default:
        i = letters;
        break; /* the length tells where the program starts, whatever else is in here */
    }
  }
}

bool lupe_fde_find(lupe_cursor *c, uint64_t at, lupe_fde *out) {
  table t;
  if (!read_header(c, &t)) return false;
  uint64_t fde_at = find_fde(c, &t, at);
  if (c->failed != LUPE_CURSOR_FINE) return false;
  entry fde = open_entry(c, fde_at);
  uint64_t back = lupe_cursor_fixed(c, 4);                   /* to the CIE, from this very field */
  if (back == 0) lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED); /* this is a CIE itself */
  if (c->failed != LUPE_CURSOR_FINE) return false;
  read_cie(c, fde.body - back, &out->common);
  if (c->failed != LUPE_CURSOR_FINE) return false;

  lupe_cursor_seek(c, fde.body + 4, fde.end - fde.body - 4);
  out->location = lupe_cursor_pointer(c, out->common.pointer_encoding);
  uint64_t size = lupe_cursor_value(c, out->common.pointer_encoding);
  if (out->common.augmented) lupe_cursor_skip(c, lupe_cursor_uleb(c));
  out->program = c->at;
  out->program_end = fde.end;
  if (at - out->location >= size) lupe_cursor_fail(c, LUPE_CURSOR_UNCOVERED); /* between two functions */
  return c->failed == LUPE_CURSOR_FINE;
}
