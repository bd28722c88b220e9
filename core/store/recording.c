/* recording.c -- reads recordings. By pread, never mapped: a file may be cut while it is read. */
#include "core/store/recording.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum {
  CHUNK_BYTES = 64 << 10,
  MOST_UNPACKED = 1040, /* bytes that one packed byte can stand for: zlib's bound is 1032 */
};

struct lupe_recording {
  int fd;
  uint64_t size; /* of the file, when it was opened */
  const char *ending;
  char *about;
  size_t about_bytes;
  lupe_recording_frame *frames;
  size_t count, capacity;
};

static lupe_status wrong(lupe_status status, const char *text, const char **why) {
  *why = text;
  return status;
}

uint32_t lupe__recording_checksum(const void *bytes, size_t count) {
  return (uint32_t)crc32_z(0, bytes, count);
}

/* LUPE_EAGAIN: the file ends before. */
static lupe_status take(const lupe_recording *r, void *out, size_t count, uint64_t at) {
  char *next = out;
  while (count > 0) {
    ssize_t n = pread(r->fd, next, count, (off_t)at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return LUPE_EIO;
    if (n == 0) return LUPE_EAGAIN;
    next += n;
    count -= (size_t)n;
    at += (uint64_t)n;
  }
  return LUPE_OK;
}

/* -- opening ------------------------------------------------------------------------------------ */

static lupe_status read_head(lupe_recording *r, const char **why) {
  lupe_recording_head head;
  lupe_status status = take(r, &head, sizeof head, 0);
  if (status == LUPE_EAGAIN) return wrong(LUPE_ECORRUPT, "it is cut off within its head", why);
  if (status != LUPE_OK) return status;
  if (head.magic != LUPE_RECORDING_MAGIC)
    return wrong(LUPE_ECORRUPT, "it is no recording (--record makes one): it does not begin with LUPEREC1",
                 why);
  if (head.version != LUPE_RECORDING_VERSION)
    return wrong(LUPE_EVERSION, "it is of another version of the format than this lupe reads", why);
  if (head.head_crc32 != lupe__recording_checksum(&head, offsetof(lupe_recording_head, head_crc32)))
    return wrong(LUPE_ECORRUPT, "its head is damaged", why);
  if (head.about_bytes > LUPE_RECORDING_TEXT_MAX || head.about_bytes > r->size)
    return wrong(LUPE_ECORRUPT, "it is cut off within its head", why);
  r->about_bytes = head.about_bytes;
  r->about = calloc(1, r->about_bytes + 1);
  if (!r->about) return LUPE_ENOMEM;
  status = take(r, r->about, r->about_bytes, sizeof head);
  if (status == LUPE_EAGAIN) return wrong(LUPE_ECORRUPT, "it is cut off within its head", why);
  if (status == LUPE_OK && head.about_crc32 != lupe__recording_checksum(r->about, r->about_bytes))
    return wrong(LUPE_ECORRUPT, "its head is damaged", why);
  return status;
}

static const char *check_piece(const lupe_recording_piece *p) {
  if (p->head_crc32 != lupe__recording_checksum(p, offsetof(lupe_recording_piece, head_crc32)))
    return p->tag ? "a frame's head is damaged" : "it is cut off within a frame";
  if (!isfinite(p->time_ms)) return "a frame's time is no number";
  if (p->tag == LUPE_RECORDING_DONE) return p->packed_bytes ? "the end mark is damaged" : NULL;
  if (p->tag != LUPE_RECORDING_FRAME && p->tag != LUPE_RECORDING_LAST) return "a piece of an unknown kind";
  if (p->notes_bytes > LUPE_RECORDING_TEXT_MAX || p->block_bytes > LUPE_RECORDING_BLOCK_MAX ||
      p->packed_bytes > UINT64_C(2) * LUPE_RECORDING_BLOCK_MAX)
    return "a frame is too long";
  if (p->notes_bytes + p->block_bytes > p->packed_bytes * MOST_UNPACKED)
    return "a frame's length is impossible";
  if (p->tag == LUPE_RECORDING_FRAME && p->block_bytes == 0) return "a frame is empty";
  return NULL;
}

static lupe_status keep_frame(lupe_recording *r, const lupe_recording_piece *p, uint64_t at) {
  if (r->count == r->capacity) {
    size_t capacity = r->capacity ? 2 * r->capacity : 64;
    lupe_recording_frame *grown = realloc(r->frames, capacity * sizeof *grown);
    if (!grown) return LUPE_ENOMEM;
    r->frames = grown;
    r->capacity = capacity;
  }
  r->frames[r->count++] = (lupe_recording_frame){
      .time_ms = p->time_ms,
      .block_bytes = p->block_bytes,
      .packed_bytes = p->packed_bytes,
      .offset = at,
      .notes_bytes = p->notes_bytes,
      .last = p->tag == LUPE_RECORDING_LAST,
  };
  return LUPE_OK;
}

static lupe_status find_frames(lupe_recording *r) {
  uint64_t at = sizeof(lupe_recording_head) + r->about_bytes;
  for (;;) {
    lupe_recording_piece piece;
    lupe_status status = take(r, &piece, sizeof piece, at);
    if (status == LUPE_EAGAIN) {
      r->ending = at >= r->size ? "it ends without an end mark" : "it is cut off within a frame";
      return LUPE_OK;
    }
    if (status != LUPE_OK) return status;
    r->ending = check_piece(&piece);
    if (r->ending || piece.tag == LUPE_RECORDING_DONE) return LUPE_OK;
    uint64_t end = at + sizeof piece + piece.packed_bytes;
    if (end > r->size) r->ending = "it is cut off within a frame";
    if (r->count == LUPE_RECORDING_FRAMES_MAX) r->ending = "it holds more frames than are read";
    if (r->ending) return LUPE_OK;
    status = keep_frame(r, &piece, at);
    if (status != LUPE_OK) return status;
    at = end;
  }
}

lupe_status lupe_recording_open(lupe_recording **out, const char *path, const char **why) {
  *why = "";
  lupe_recording *r = calloc(1, sizeof *r);
  if (!r) return LUPE_ENOMEM;
  lupe_status status = LUPE_EIO;
  struct stat st;
  r->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer is no file either */
  if (r->fd < 0 || fstat(r->fd, &st) != 0) goto fail;
  if (!S_ISREG(st.st_mode)) {
    errno = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
    goto fail;
  }
  r->size = (uint64_t)st.st_size;
  status = read_head(r, why);
  if (status == LUPE_OK) status = find_frames(r);
  if (status != LUPE_OK) goto fail;
  *out = r;
  return LUPE_OK;

fail:;
  int error = errno;
  lupe_recording_free(r);
  errno = error;
  return status;
}

void lupe_recording_free(lupe_recording *r) {
  if (!r) return;
  if (r->fd >= 0) close(r->fd);
  free(r->about);
  free(r->frames);
  free(r);
}

const char *lupe_recording_about(const lupe_recording *r, size_t *bytes) {
  *bytes = r->about_bytes;
  return r->about;
}

size_t lupe_recording_count(const lupe_recording *r) {
  return r->count;
}

const lupe_recording_frame *lupe_recording_at(const lupe_recording *r, size_t index) {
  return &r->frames[index];
}

const char *lupe_recording_ending(const lupe_recording *r) {
  return r->ending;
}

/* -- one frame ---------------------------------------------------------------------------------- */

typedef struct unpacker {
  const lupe_recording *recording;
  uint64_t at, left; /* of the packed bytes */
  uint32_t crc32;
  z_stream stream;
  bool ended;
  unsigned char chunk[CHUNK_BYTES];
} unpacker;

static lupe_status refill(unpacker *u, const char **why) {
  size_t count = u->left < CHUNK_BYTES ? (size_t)u->left : CHUNK_BYTES;
  if (count == 0) return wrong(LUPE_ECORRUPT, "a frame is shorter than it says", why);
  lupe_status status = take(u->recording, u->chunk, count, u->at);
  if (status == LUPE_EAGAIN) return wrong(LUPE_ECORRUPT, "it is cut off within a frame", why);
  if (status != LUPE_OK) return status;
  u->crc32 = (uint32_t)crc32_z(u->crc32, u->chunk, count);
  u->at += count;
  u->left -= count;
  u->stream.next_in = u->chunk;
  u->stream.avail_in = (unsigned)count;
  return LUPE_OK;
}

static lupe_status unpack(unpacker *u, void *out, size_t count, const char **why) {
  u->stream.next_out = out;
  u->stream.avail_out = (unsigned)count;
  while (u->stream.avail_out > 0) {
    if (u->ended) return wrong(LUPE_ECORRUPT, "a frame is shorter than it says", why);
    if (u->stream.avail_in == 0) {
      lupe_status status = refill(u, why);
      if (status != LUPE_OK) return status;
    }
    int state = inflate(&u->stream, Z_NO_FLUSH);
    if (state == Z_MEM_ERROR) return LUPE_ENOMEM;
    if (state != Z_OK && state != Z_STREAM_END)
      return wrong(LUPE_ECORRUPT, "a frame cannot be unpacked", why);
    u->ended = state == Z_STREAM_END;
  }
  return LUPE_OK;
}

/* What is left of the packed bytes: the checksum is of all of them, and so is zlib's own. */
static lupe_status finish(unpacker *u, uint32_t expected, const char **why) {
  unsigned char none;
  while (!u->ended) {
    if (u->stream.avail_in == 0) {
      lupe_status status = refill(u, why);
      if (status != LUPE_OK) return status;
    }
    u->stream.next_out = &none;
    u->stream.avail_out = 1;
    int state = inflate(&u->stream, Z_NO_FLUSH);
    u->ended = state == Z_STREAM_END;
    if ((state != Z_OK && !u->ended) || u->stream.avail_out == 0)
      return wrong(LUPE_ECORRUPT, "a frame is longer than it says", why);
  }
  if (u->left > 0 || u->stream.avail_in > 0)
    return wrong(LUPE_ECORRUPT, "a frame is longer than it says", why);
  if (u->crc32 != expected) return wrong(LUPE_ECORRUPT, "a frame is damaged: its checksum differs", why);
  return LUPE_OK;
}

static lupe_status unpack_block(unpacker *u, size_t count, lupe_snapshot **out, const char **why) {
  if (count == 0) {
    *out = NULL;
    return LUPE_OK;
  }
  lupe_snapshot *s;
  void *block;
  lupe_status status = lupe__snapshot_create(count, &s, &block);
  if (status != LUPE_OK) return status;
  status = unpack(u, block, count, why);
  if (status == LUPE_OK) {
    status = lupe__snapshot_seal(s);
    if (status == LUPE_OK) status = lupe_snapshot_validate(lupe_snapshot_block(s), count, why);
  }
  if (status == LUPE_OK) {
    *out = s;
  } else {
    lupe_snapshot_release(s);
  }
  return status;
}

lupe_status lupe_recording_read(lupe_recording *r, size_t index, lupe_snapshot **s, char **notes,
                                const char **why) {
  *why = "";
  const lupe_recording_frame *f = &r->frames[index];
  lupe_recording_piece piece;
  lupe_snapshot *block = NULL;
  lupe_status status = take(r, &piece, sizeof piece, f->offset);
  if (status == LUPE_EAGAIN) return wrong(LUPE_ECORRUPT, "it is cut off within a frame", why);
  if (status != LUPE_OK) return status;
  if (piece.packed_bytes != f->packed_bytes || piece.block_bytes != f->block_bytes ||
      piece.notes_bytes != f->notes_bytes)
    return wrong(LUPE_ECORRUPT, "it changed while it was read", why);

  char *text = calloc(1, (size_t)f->notes_bytes + 1);
  unpacker *u = calloc(1, sizeof *u);
  status = LUPE_ENOMEM;
  if (!u || !text || inflateInit(&u->stream) != Z_OK) goto no_stream;
  u->recording = r;
  u->at = f->offset + sizeof piece;
  u->left = f->packed_bytes;
  status = unpack(u, text, f->notes_bytes, why);
  if (status == LUPE_OK) status = unpack_block(u, (size_t)f->block_bytes, &block, why);
  if (status == LUPE_OK) status = finish(u, piece.packed_crc32, why);
  inflateEnd(&u->stream);
  if (status != LUPE_OK) goto no_stream;
  *s = block;
  *notes = text;
  free(u);
  return LUPE_OK;

no_stream:
  lupe_snapshot_release(block);
  free(u);
  free(text);
  return status;
}
