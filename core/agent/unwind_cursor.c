#include "core/agent/unwind_cursor.h"

/* The other pointer encodings (LSB, "DWARF Extensions"). */
enum {
  PE_ULEB128 = 0x01,
  PE_UDATA2 = 0x02,
  PE_UDATA4 = 0x03,
  PE_UDATA8 = 0x04,
  PE_SLEB128 = 0x09,
  PE_SDATA2 = 0x0a,
  PE_SDATA8 = 0x0c,
  PE_PCREL = 0x10,
};

void lupe_cursor_fail(lupe_cursor *c, lupe_cursor_failure why) {
  if (c->failed == LUPE_CURSOR_FINE) c->failed = why;
}

void lupe_cursor_seek(lupe_cursor *c, uint64_t at, uint64_t bytes) {
  if (at < c->image->start || at >= c->image->end || bytes > c->image->end - at) {
    lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
    return;
  }
  c->at = at;
  c->end = at + bytes;
}

/* Turns to the other window, and fills it unless it holds the byte at the cursor. */
static bool turn(lupe_cursor *c) {
  c->window = (c->window + 1) % LUPE_CURSOR_WINDOWS;
  lupe_cursor_window *w = &c->windows[c->window];
  if (c->at - w->at < w->bytes) return true;
  uint64_t room = c->image->end - c->at;
  w->at = c->at;
  w->bytes = c->image->read(c->image->context, c->at, w->data,
                            room < LUPE_CURSOR_WINDOW_BYTES ? room : LUPE_CURSOR_WINDOW_BYTES);
  if (w->bytes > 0) return true;
  lupe_cursor_fail(c, LUPE_CURSOR_UNREADABLE);
  return false;
}

uint8_t lupe_cursor_byte(lupe_cursor *c) {
  if (c->failed != LUPE_CURSOR_FINE) return 0;
  if (c->at >= c->end) {
    lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
    return 0;
  }
  if (c->at - c->windows[c->window].at >= c->windows[c->window].bytes && !turn(c)) return 0;
  const lupe_cursor_window *w = &c->windows[c->window];
  return w->data[c->at++ - w->at];
}

uint64_t lupe_cursor_fixed(lupe_cursor *c, unsigned bytes) {
  uint64_t value = 0;
  for (unsigned i = 0; i < bytes; i++) value |= (uint64_t)lupe_cursor_byte(c) << (8 * i);
  return value;
}

int64_t lupe_sign_extend(uint64_t value, unsigned bits) {
  return bits >= 64 ? (int64_t)value : (int64_t)(value << (64 - bits)) >> (64 - bits);
}

uint64_t lupe_cursor_uleb(lupe_cursor *c) {
  uint64_t value = 0;
  for (unsigned shift = 0;; shift += 7) {
    uint8_t byte = lupe_cursor_byte(c);
    if (shift < 64) value |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80)) return value;
    if (shift > 63) {
      lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
      return 0;
    }
  }
}

int64_t lupe_cursor_sleb(lupe_cursor *c) {
  uint64_t value = 0;
  for (unsigned shift = 0;;) {
    uint8_t byte = lupe_cursor_byte(c);
    if (shift < 64) value |= (uint64_t)(byte & 0x7f) << shift;
    shift += 7;
    if (!(byte & 0x80))
      return byte & 0x40 ? lupe_sign_extend(value, shift < 64 ? shift : 64) : (int64_t)value;
    if (shift > 69) {
      lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
      return 0;
    }
  }
}

void lupe_cursor_skip(lupe_cursor *c, uint64_t bytes) {
  if (bytes > c->end - c->at)
    lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
  else
    c->at += bytes;
}

uint64_t lupe_cursor_value(lupe_cursor *c, uint8_t encoding) {
  switch (encoding & 0x0f) {
    case LUPE_PE_ABSPTR:
    case PE_UDATA8:
    case PE_SDATA8:
      return lupe_cursor_fixed(c, 8);
    case PE_UDATA4:
      return lupe_cursor_fixed(c, 4);
    case LUPE_PE_SDATA4:
      return (uint64_t)lupe_sign_extend(lupe_cursor_fixed(c, 4), 32);
    case PE_UDATA2:
      return lupe_cursor_fixed(c, 2);
    case PE_SDATA2:
      return (uint64_t)lupe_sign_extend(lupe_cursor_fixed(c, 2), 16);
    case PE_ULEB128:
      return lupe_cursor_uleb(c);
    case PE_SLEB128:
      return (uint64_t)lupe_cursor_sleb(c);
    default:
      lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
      return 0;
  }
}

uint64_t lupe_cursor_pointer(lupe_cursor *c, uint8_t encoding) {
  uint64_t here = c->at;
  uint64_t value = lupe_cursor_value(c, encoding);
  switch (encoding & 0xf0) {
    case 0x00:
      return value;
    case PE_PCREL:
      return here + value;
    case LUPE_PE_DATAREL:
      return c->image->header + value;
    default:
      lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
      return 0; /* text, function relative, aligned, indirect: nobody emits them here */
  }
}
