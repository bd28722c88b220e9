#include "core/export/gzip.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum {
  STAGED_BYTES = 1 << 16,
  FIRST_BYTES = 1 << 16,
  GZIP_WINDOW = 15 + 16, /* zlib's way to ask for gzip's format */
  MEMORY_LEVEL = 8,      /* zlib's default */
};

struct lupe_gzip {
  z_stream stream;
  uint8_t *out;
  size_t out_bytes, out_capacity;
  bool failed;
  size_t staged_bytes;
  uint8_t staged[STAGED_BYTES]; /* small pieces, until there are enough */
};

lupe_status lupe_gzip_create(lupe_gzip **out) {
  lupe_gzip *z = calloc(1, sizeof *z);
  if (!z) return LUPE_ENOMEM;
  if (deflateInit2(&z->stream, Z_BEST_SPEED, Z_DEFLATED, GZIP_WINDOW, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) !=
      Z_OK) {
    free(z);
    return LUPE_ENOMEM;
  }
  *out = z;
  return LUPE_OK;
}

void lupe_gzip_free(lupe_gzip *z) {
  if (!z) return;
  deflateEnd(&z->stream);
  free(z->out);
  free(z);
}

static bool grow(lupe_gzip *z) {
  size_t capacity = z->out_capacity ? 2 * z->out_capacity : FIRST_BYTES;
  uint8_t *out = realloc(z->out, capacity);
  if (!out) return false;
  z->out = out;
  z->out_capacity = capacity;
  return true;
}

static void compress_staged(lupe_gzip *z, int flush) {
  z->stream.next_in = z->staged;
  z->stream.avail_in = (uInt)z->staged_bytes;
  z->staged_bytes = 0;
  while (!z->failed) {
    if (z->out_bytes == z->out_capacity && !grow(z)) {
      z->failed = true;
      return;
    }
    size_t room = z->out_capacity - z->out_bytes;
    uInt given = room < FIRST_BYTES ? (uInt)room : FIRST_BYTES;
    z->stream.next_out = z->out + z->out_bytes;
    z->stream.avail_out = given;
    int result = deflate(&z->stream, flush);
    z->out_bytes += given - z->stream.avail_out;
    if (result == Z_STREAM_END) return;
    if (flush != Z_FINISH && z->stream.avail_in == 0 && z->stream.avail_out > 0) return;
    if (result == Z_STREAM_ERROR) z->failed = true;
  }
}

void lupe_gzip_write(lupe_gzip *z, const void *bytes, size_t count) {
  const uint8_t *p = bytes;
  while (count > 0 && !z->failed) {
    size_t room = STAGED_BYTES - z->staged_bytes, n = count < room ? count : room;
    memcpy(z->staged + z->staged_bytes, p, n);
    z->staged_bytes += n;
    p += n;
    count -= n;
    if (z->staged_bytes == STAGED_BYTES) compress_staged(z, Z_NO_FLUSH);
  }
}

lupe_status lupe_gzip_finish(lupe_gzip *z, uint8_t **out, size_t *out_bytes) {
  if (!z->failed) compress_staged(z, Z_FINISH);
  if (z->failed) return LUPE_ENOMEM;
  *out = z->out;
  *out_bytes = z->out_bytes;
  z->out = NULL;
  return LUPE_OK;
}
