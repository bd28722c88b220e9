#include "core/agent/proof_words.h"

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#include "core/agent/proof_heap.h"

enum { WORD = 8, HALF = 4, VECTOR = 32, AHEAD = 2048 };

static uint64_t load(uint64_t at) {
  uint64_t value;
  memcpy(&value, (const void *)(uintptr_t)at, sizeof value);
  return value;
}

/* The two words that begin at `at` and in its middle. */
static size_t look(uint64_t at, uint64_t end, uint64_t lo, uint64_t span, lupe_proof_word *out) {
  size_t count = 0;
  uint64_t value = load(at) & LUPE_HEAP_ADDRESS_MASK;
  if (value - lo < span) out[count++] = (lupe_proof_word){.value = value, .at = at};
  if (at + HALF + WORD > end) return count;
  value = load(at + HALF);
  if (value - lo < span) out[count++] = (lupe_proof_word){.value = value, .at = at + HALF};
  return count;
}

static size_t find_plainly(uint64_t at, uint64_t end, uint64_t lo, uint64_t hi, lupe_proof_word *out) {
  size_t count = 0;
  for (; at + WORD <= end; at += WORD) count += look(at, end, lo, hi - lo, out + count);
  return count;
}

/* Four words at once; where one of them fits they are looked at one by one. Comparisons are signed: what is
 * looked for is positive. */
__attribute__((target("avx2"))) static size_t find_by_vectors(uint64_t at, uint64_t end, uint64_t lo,
                                                              uint64_t hi, lupe_proof_word *out) {
  const __m256i mask = _mm256_set1_epi64x((long long)LUPE_HEAP_ADDRESS_MASK);
  const __m256i below = _mm256_set1_epi64x((long long)lo - 1), above = _mm256_set1_epi64x((long long)hi);
  size_t count = 0;
  for (; at + VECTOR + HALF <= end; at += VECTOR) {
    const char *bytes = (const char *)(uintptr_t)at;
    __builtin_prefetch(bytes + AHEAD); /* the processor's own foresight ends with each page */
    __m256i whole = _mm256_and_si256(_mm256_loadu_si256((const __m256i *)bytes), mask);
    __m256i halves = _mm256_loadu_si256((const __m256i *)(bytes + HALF));
    __m256i hits = _mm256_or_si256(
        _mm256_and_si256(_mm256_cmpgt_epi64(whole, below), _mm256_cmpgt_epi64(above, whole)),
        _mm256_and_si256(_mm256_cmpgt_epi64(halves, below), _mm256_cmpgt_epi64(above, halves)));
    if (__builtin_expect(_mm256_testz_si256(hits, hits), 1)) continue;
    for (uint64_t word = at; word < at + VECTOR; word += WORD)
      count += look(word, end, lo, hi - lo, out + count);
  }
  return count + find_plainly(at, end, lo, hi, out + count);
}

size_t lupe_proof_words_find(uint64_t at, size_t bytes, uint64_t lo, uint64_t hi, lupe_proof_word *out) {
  static signed char vectors = -1;
  if (vectors < 0) vectors = __builtin_cpu_supports("avx2") ? 1 : 0;
  return vectors ? find_by_vectors(at, at + bytes, lo, hi, out) : find_plainly(at, at + bytes, lo, hi, out);
}
