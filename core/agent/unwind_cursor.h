/* unwind_cursor.h -- reads a module's unwind sections byte by byte, through a reader and within bounds.
 * The bytes are untrusted: what lies outside, or cannot be read, reads as 0 and sets `failed`, which stays
 * set and ends every loop over a cursor. Owned by one look-up, lives on its stack. Thread: any, also signal
 * handlers. */
#ifndef LUPE_AGENT_UNWIND_CURSOR_H
#define LUPE_AGENT_UNWIND_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Copies up to `bytes` from `address` to `to`; returns how many could be read (0 for none). */
typedef size_t (*lupe_cfi_reader)(void *context, uint64_t address, void *to, size_t bytes);

typedef struct lupe_cfi_image {
  uint64_t start, end; /* the module's mapped range; nothing outside is ever asked for */
  uint64_t header;     /* .eh_frame_hdr */
  lupe_cfi_reader read;
  void *context;
} lupe_cfi_image;

typedef enum lupe_cursor_failure {
  LUPE_CURSOR_FINE,
  LUPE_CURSOR_MALFORMED,
  LUPE_CURSOR_UNCOVERED,  /* nothing is said about the address that is looked for */
  LUPE_CURSOR_UNREADABLE, /* the memory is gone */
} lupe_cursor_failure;

/* Bytes read ahead, since system calls cost more than bytes. Two of them: look-ups go to and fro between a
 * function's entry and what it has in common with others. */
enum { LUPE_CURSOR_WINDOW_BYTES = 192, LUPE_CURSOR_WINDOWS = 2 };

typedef struct lupe_cursor_window {
  uint64_t at;
  size_t bytes;
  uint8_t data[LUPE_CURSOR_WINDOW_BYTES];
} lupe_cursor_window;

typedef struct lupe_cursor {
  const lupe_cfi_image *image;
  uint64_t at, end;
  lupe_cursor_failure failed; /* the first one */
  unsigned window;            /* the one last read from */
  lupe_cursor_window windows[LUPE_CURSOR_WINDOWS];
} lupe_cursor;

/* Pointer encodings that mean something outside of the cursor. */
enum { LUPE_PE_ABSPTR = 0x00, LUPE_PE_SDATA4 = 0x0b, LUPE_PE_DATAREL = 0x30, LUPE_PE_OMIT = 0xff };

void lupe_cursor_fail(lupe_cursor *c, lupe_cursor_failure why);

/* Restricts the cursor to [at, at + bytes). */
void lupe_cursor_seek(lupe_cursor *c, uint64_t at, uint64_t bytes);
void lupe_cursor_skip(lupe_cursor *c, uint64_t bytes);

uint8_t lupe_cursor_byte(lupe_cursor *c);
uint64_t lupe_cursor_fixed(lupe_cursor *c, unsigned bytes); /* little-endian */
uint64_t lupe_cursor_uleb(lupe_cursor *c);
int64_t lupe_cursor_sleb(lupe_cursor *c);
uint64_t lupe_cursor_value(lupe_cursor *c, uint8_t encoding);   /* without its base */
uint64_t lupe_cursor_pointer(lupe_cursor *c, uint8_t encoding); /* with its base */

int64_t lupe_sign_extend(uint64_t value, unsigned bits);

#endif
