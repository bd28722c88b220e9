/* hash.h -- the store's hash function. Its inputs come from profiled programs, which gain nothing from
 * collisions: every table compares keys, so they cost time and never a wrong answer. */
#ifndef LUPE_STORE_HASH_H
#define LUPE_STORE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* Spreads every bit of `x` over the result (the finalizer of splitmix64). */
static inline uint64_t lupe_hash_mix(uint64_t x) {
  x ^= x >> 30;
  x *= UINT64_C(0xbf58476d1ce4e5b9);
  x ^= x >> 27;
  x *= UINT64_C(0x94d049bb133111eb);
  return x ^ (x >> 31);
}

static inline uint64_t lupe_hash_words(const uint64_t *words, size_t count) {
  uint64_t h = count;
  for (size_t i = 0; i < count; i++) {
    h = (h ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15);
    h ^= h >> 32;
  }
  return lupe_hash_mix(h);
}

/* FNV-1a, for names and paths. */
static inline uint64_t lupe_hash_bytes(const void *bytes, size_t count) {
  const unsigned char *p = bytes;
  uint64_t h = UINT64_C(0xcbf29ce484222325);
  for (size_t i = 0; i < count; i++) h = (h ^ p[i]) * UINT64_C(0x100000001b3);
  return lupe_hash_mix(h);
}

#endif
