/* recorder.c -- writes recordings. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "core/clock.h"
#include "core/store/recording.h"

enum {
  PACK_LEVEL = 1, /* higher ones gain a tenth of the size for three times the work */
  CHUNK_BYTES = 64 << 10,
};

struct lupe_recorder {
  char path[PATH_MAX];
  int fd;         /* -1: no frame was written yet */
  bool done;      /* the end mark is there */
  uint64_t bytes; /* of whole pieces */
  size_t about_bytes;
  char about[];
};

static int look_at(const char *path) {
  struct stat st;
  if (stat(path, &st) == 0) {
    if (!S_ISREG(st.st_mode)) return S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
  } else if (errno != ENOENT) {
    return errno;
  }
  char folder[PATH_MAX];
  if (snprintf(folder, sizeof folder, "%s", path) >= (int)sizeof folder - 8) return ENAMETOOLONG;
  char *slash = strrchr(folder, '/');
  if (slash) slash[slash == folder] = '\0';
  return access(slash ? folder : ".", W_OK | X_OK) == 0 ? 0 : errno;
}

lupe_status lupe_recorder_create(lupe_recorder **out, const char *path, const char *about,
                                 size_t about_bytes) {
  if (about_bytes > LUPE_RECORDING_TEXT_MAX) return LUPE_EINVAL;
  errno = look_at(path);
  if (errno != 0) return LUPE_EIO;
  lupe_recorder *r = malloc(sizeof *r + about_bytes);
  if (!r) return LUPE_ENOMEM;
  memcpy(r->path, path, strlen(path) + 1);
  memcpy(r->about, about, about_bytes);
  r->about_bytes = about_bytes;
  r->fd = -1;
  r->done = false;
  r->bytes = 0;
  *out = r;
  return LUPE_OK;
}

void lupe_recorder_free(lupe_recorder *r) {
  if (!r) return;
  if (r->fd >= 0) close(r->fd);
  free(r);
}

uint64_t lupe_recorder_bytes(const lupe_recorder *r) {
  return r->bytes;
}

const char *lupe_recorder_path(const lupe_recorder *r) {
  return r->path;
}

/* -- bytes -------------------------------------------------------------------------------------- */

static lupe_status refused(int error) {
  errno = error;
  return error == ENOSPC || error == EDQUOT || error == EFBIG ? LUPE_ENOSPC : LUPE_EIO;
}

static lupe_status put(const lupe_recorder *r, const void *bytes, size_t count, uint64_t at) {
  const char *next = bytes;
  while (count > 0) {
    ssize_t n = pwrite(r->fd, next, count, (off_t)at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return refused(n < 0 ? errno : ENOSPC);
    next += n;
    count -= (size_t)n;
    at += (uint64_t)n;
  }
  return LUPE_OK;
}

/* -- pieces ------------------------------------------------------------------------------------- */

typedef struct packer {
  const lupe_recorder *recorder;
  uint64_t at; /* in the file */
  z_stream stream;
  lupe_recording_piece *piece;
  unsigned char chunk[CHUNK_BYTES];
} packer;

static lupe_status pack(packer *p, const void *bytes, size_t count, int flush) {
  /* zlib counts in 32 bits; a block has at most 2^30 bytes. */
  p->stream.next_in = (unsigned char *)(uintptr_t)bytes;
  p->stream.avail_in = (unsigned)count;
  int state;
  do {
    p->stream.next_out = p->chunk;
    p->stream.avail_out = CHUNK_BYTES;
    state = deflate(&p->stream, flush);
    if (state == Z_STREAM_ERROR) return LUPE_EINVAL;
    size_t packed = CHUNK_BYTES - p->stream.avail_out;
    lupe_status status = put(p->recorder, p->chunk, packed, p->at);
    if (status != LUPE_OK) return status;
    p->piece->packed_crc32 = (uint32_t)crc32_z(p->piece->packed_crc32, p->chunk, packed);
    p->piece->packed_bytes += packed;
    p->at += packed;
  } while (p->stream.avail_out == 0);
  return LUPE_OK;
}

static lupe_status put_packed(const lupe_recorder *r, lupe_recording_piece *piece, const char *notes,
                              const lupe_snapshot *s, uint64_t at) {
  packer *p = calloc(1, sizeof *p);
  if (!p) return LUPE_ENOMEM;
  p->recorder = r;
  p->piece = piece;
  p->at = at;
  lupe_status status = LUPE_ENOMEM;
  if (deflateInit(&p->stream, PACK_LEVEL) == Z_OK) {
    status = pack(p, notes, piece->notes_bytes, Z_NO_FLUSH);
    if (status == LUPE_OK) status = pack(p, s ? lupe_snapshot_block(s) : NULL, piece->block_bytes, Z_FINISH);
    int error = errno;
    deflateEnd(&p->stream);
    errno = error;
  }
  free(p);
  return status;
}

static lupe_status put_piece(const lupe_recorder *r, lupe_recording_piece *piece, uint64_t at) {
  piece->head_crc32 = lupe__recording_checksum(piece, offsetof(lupe_recording_piece, head_crc32));
  return put(r, piece, sizeof *piece, at);
}

static lupe_status put_head(const lupe_recorder *r) {
  lupe_recording_head head = {
      .magic = LUPE_RECORDING_MAGIC,
      .version = LUPE_RECORDING_VERSION,
      .about_bytes = (uint32_t)r->about_bytes,
      .about_crc32 = lupe__recording_checksum(r->about, r->about_bytes),
  };
  head.head_crc32 = lupe__recording_checksum(&head, offsetof(lupe_recording_head, head_crc32));
  lupe_status status = put(r, &head, sizeof head, 0);
  return status == LUPE_OK ? put(r, r->about, r->about_bytes, sizeof head) : status;
}

/* The head of a piece comes last: until then a reader finds zeroes there, and stops. */
static lupe_status append(const lupe_recorder *r, lupe_recording_piece *piece, const char *notes,
                          const lupe_snapshot *s, uint64_t *end) {
  uint64_t at = *end;
  lupe_status status = put_packed(r, piece, notes, s, at + sizeof *piece);
  if (status != LUPE_OK) return status;
  *end = at + sizeof *piece + piece->packed_bytes;
  if (piece->tag == LUPE_RECORDING_LAST) {
    lupe_recording_piece done = {.tag = LUPE_RECORDING_DONE, .time_ms = piece->time_ms};
    status = put_piece(r, &done, *end);
    *end += sizeof done;
  }
  if (status == LUPE_OK) status = put_piece(r, piece, at);
  if (status == LUPE_OK && piece->tag == LUPE_RECORDING_LAST && fdatasync(r->fd) != 0)
    status = refused(errno);
  return status;
}

lupe_status lupe_recorder_write(lupe_recorder *r, const lupe_snapshot *s, const char *notes,
                                size_t notes_bytes, bool last) {
  size_t block_bytes = s ? lupe_snapshot_bytes(s) : 0;
  if (r->done || notes_bytes > LUPE_RECORDING_TEXT_MAX || block_bytes > LUPE_RECORDING_BLOCK_MAX)
    return LUPE_EINVAL;
  if (!s && !last) return LUPE_EINVAL;
  lupe_recording_piece piece = {
      .tag = last ? LUPE_RECORDING_LAST : LUPE_RECORDING_FRAME,
      .notes_bytes = (uint32_t)notes_bytes,
      .time_ms = s ? lupe_snapshot_block(s)->time_ms : lupe_unix_ms(),
      .block_bytes = block_bytes,
  };
  char temporary[PATH_MAX];
  bool first = r->fd < 0;
  lupe_status status = LUPE_OK;
  uint64_t end = r->bytes;
  if (first) {
    if (snprintf(temporary, sizeof temporary, "%s.XXXXXX", r->path) >= (int)sizeof temporary)
      return refused(ENAMETOOLONG);
    r->fd = mkostemp(temporary, O_CLOEXEC);
    if (r->fd < 0) return refused(errno);
    status = put_head(r);
    end = sizeof(lupe_recording_head) + r->about_bytes;
  }
  if (status == LUPE_OK) status = append(r, &piece, notes, s, &end);
  /* What it replaces may be all that there is of another run: never by something that is not on the disk. */
  if (status == LUPE_OK && first && (fdatasync(r->fd) != 0 || rename(temporary, r->path) != 0))
    status = refused(errno);
  if (status == LUPE_OK) {
    r->bytes = end;
    r->done = last;
    return LUPE_OK;
  }
  int error = errno;
  if (first) {
    unlink(temporary);
    close(r->fd);
    r->fd = -1;
  } else if (ftruncate(r->fd, (off_t)r->bytes) != 0) {
    r->done = true; /* what is behind cannot be taken back, so nothing may be put there */
  }
  errno = error;
  return status;
}
