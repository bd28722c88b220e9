#include "core/store/demangle.h"

#include <libiberty/demangle.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
  MAX_MANGLED_BYTES = 1024,
  MAX_OUTPUT_BYTES = 1 << 20, /* names can be built that expand without end */
  MAX_OUTPUT_PIECES = 1 << 16,
};

typedef struct output {
  char *text;
  size_t capacity, length;
  size_t total_bytes, pieces;
  jmp_buf give_up;
} output;

/* libiberty's callbacks cannot say stop. Past the buffer's end the rest is let go by, so that libiberty
 * frees what it holds; only a name that never ends is left by longjmp. */
static void append(const char *piece, size_t bytes, void *arg) {
  output *o = arg;
  size_t room = o->capacity - 1 - o->length;
  size_t taken = bytes < room ? bytes : room;
  if (taken > 0) memcpy(o->text + o->length, piece, taken);
  o->length += taken;
  o->total_bytes += bytes;
  if (o->total_bytes > MAX_OUTPUT_BYTES || ++o->pieces > MAX_OUTPUT_PIECES) longjmp(o->give_up, 1);
}

/* Whether `o` now holds the whole readable name, or its beginning. */
static bool run(output *o, const char *name, bool rust) {
  o->length = o->total_bytes = o->pieces = 0;
  if (setjmp(o->give_up) != 0) return true;
  int options = DMGL_PARAMS | DMGL_ANSI | DMGL_RET_DROP;
  int done = rust ? rust_demangle_callback(name, options, append, o)
                  : cplus_demangle_v3_callback(name, options, append, o);
  return done != 0 && o->length > 0;
}

/* The length of the valid UTF-8 sequence at `s`, 0 if there is none or it is a control character. */
static size_t sequence_bytes(const unsigned char *s) {
  if (s[0] < 0x20 || s[0] == 0x7f) return 0;
  if (s[0] < 0x80) return 1;
  size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
  if (s[0] < 0xc2 || s[0] > 0xf4) return 0;
  for (size_t i = 1; i < n; i++) {
    if ((s[i] & 0xc0) != 0x80) return 0;
  }
  if (s[0] == 0xc2 && s[1] < 0xa0) return 0; /* C1 controls */
  bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
  bool outside = (s[0] == 0xed && s[1] >= 0xa0) || (s[0] == 0xf4 && s[1] >= 0x90);
  return overlong || outside ? 0 : n;
}

void lupe_clean_name(char *name) {
  for (unsigned char *s = (unsigned char *)name; *s;) {
    size_t n = sequence_bytes(s);
    if (n == 0) *s = '?';
    s += n ? n : 1;
  }
}

/* Ends the text at `length`, or with "..." before `capacity`, never inside a sequence. */
static size_t finish(char *text, size_t length, size_t capacity, bool cut) {
  if (cut) {
    if (length > capacity - 4) length = capacity - 4;
    while (length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80) length--;
    memcpy(text + length, "...", 3);
    length += 3;
  }
  text[length] = '\0';
  lupe_clean_name(text);
  return length;
}

size_t lupe_demangle(const char *name, char *out, size_t capacity) {
  size_t bytes = strnlen(name, MAX_MANGLED_BYTES + 1);
  const char *version = memchr(name, '@', bytes);
  char plain[MAX_MANGLED_BYTES + 1];
  bool mangled = bytes <= MAX_MANGLED_BYTES && name[0] == '_' && (name[1] == 'Z' || name[1] == 'R');
  if (version && version != name) bytes = (size_t)(version - name);
  if (mangled) {
    memcpy(plain, name, bytes);
    plain[bytes] = '\0';
    output o = {.text = out, .capacity = capacity};
    /* A legacy Rust name is a C++ name too, with a hash at its end: Rust is asked first. */
    if (run(&o, plain, true) || (name[1] == 'Z' && run(&o, plain, false))) {
      return finish(out, o.length, capacity, o.total_bytes > o.length);
    }
  }
  bool cut = bytes > capacity - 1 || bytes > MAX_MANGLED_BYTES;
  size_t taken = bytes < capacity - 1 ? bytes : capacity - 1;
  memcpy(out, name, taken);
  return finish(out, taken, capacity, cut);
}
