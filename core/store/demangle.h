/* demangle.h -- makes a symbol's name readable: C++ (Itanium) and Rust (legacy and v0).
 * Names come from files that anybody may have written, so input, output and work are bounded. */
#ifndef LUPE_STORE_DEMANGLE_H
#define LUPE_STORE_DEMANGLE_H

#include <stddef.h>

/* Writes the readable form of `name` to `out`: with parameters, without the return type, without a symbol
 * version (@GLIBC_2.14). What is no mangled name, or one longer than libiberty's own limit of 1,024 bytes, is
 * taken as it is. The result is cut to `capacity` (at least 8) and then ends in "..."; it is valid UTF-8
 * without control characters: '?' stands for every byte that is not. Returns its length. Thread: any. Needs
 * up to 1 MiB of stack for a hostile name. */
size_t lupe_demangle(const char *name, char *out, size_t capacity);

/* Puts '?' for each control character and each byte that is not part of valid UTF-8, in place. */
void lupe_clean_name(char *name);

#endif
