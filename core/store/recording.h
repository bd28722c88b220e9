/* recording.h -- a run on disk: snapshots as they were, one after the other (docs/recordings.md).
 *
 * A file is a lupe_recording_head with a JSON text, then pieces: each a lupe_recording_piece and, packed in
 * one zlib stream, its notes (a JSON text) and its block (a snapshot). What the texts say is Lua's business.
 * All numbers are little endian. Pieces are only ever appended, so a file that ends early holds all of those
 * before. */
#ifndef LUPE_STORE_RECORDING_H
#define LUPE_STORE_RECORDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/snapshot.h"

#define LUPE_RECORDING_MAGIC UINT64_C(0x314345524550554c) /* "LUPEREC1" */
enum {
  LUPE_RECORDING_VERSION = 1,
  LUPE_RECORDING_FRAME = 0x4d415246, /* "FRAM": one of the run's snapshots */
  LUPE_RECORDING_LAST = 0x5453414c,  /* "LAST": that of its end; it may be without a block */
  LUPE_RECORDING_DONE = 0x454e4f44,  /* "DONE": nothing follows, and nothing is packed in it */
  LUPE_RECORDING_TEXT_MAX = 16 << 20,
  LUPE_RECORDING_BLOCK_MAX = 1 << 30,
  LUPE_RECORDING_FRAMES_MAX = 100000,
};

typedef struct lupe_recording_head {
  uint64_t magic;
  uint32_t version;
  uint32_t about_bytes; /* of the text that follows */
  uint32_t about_crc32;
  uint32_t head_crc32; /* of the 20 bytes before this field */
} lupe_recording_head;

typedef struct lupe_recording_piece {
  uint32_t tag;
  uint32_t notes_bytes; /* unpacked; they come first */
  double time_ms;       /* Unix time: of the snapshot, or when a last frame without one was written */
  uint64_t block_bytes; /* unpacked; 0: there is none */
  uint64_t packed_bytes;
  uint32_t packed_crc32;
  uint32_t head_crc32; /* of the 36 bytes before this field */
} lupe_recording_piece;

/* CRC-32, of heads and texts. */
uint32_t lupe__recording_checksum(const void *bytes, size_t count);

/* -- writing: one call at a time, on any thread ------------------------------------------------- */

typedef struct lupe_recorder lupe_recorder;

/* Nothing is made on disk yet; that it could be is looked at. `path` and `about` are copied. LUPE_EIO with
 * errno where the folder is missing or may not be written, or `path` is something else than a file;
 * LUPE_EINVAL: a text that is too long; LUPE_ENOMEM. */
lupe_status lupe_recorder_create(lupe_recorder **out, const char *path, const char *about,
                                 size_t about_bytes);
void lupe_recorder_free(lupe_recorder *r); /* NULL is a no-op */

/* Appends a frame; with `last`, as the last one, and the end mark. `s` NULL: a last frame without a block.
 * The first one makes the file (mode 0600), aside; it takes the place of what was at `path` when that frame
 * is whole. A frame that fails leaves the file with those before it. LUPE_EIO or LUPE_ENOSPC, with errno;
 * LUPE_EINVAL: too long, or after the last one; LUPE_ENOMEM. */
lupe_status lupe_recorder_write(lupe_recorder *r, const lupe_snapshot *s, const char *notes,
                                size_t notes_bytes, bool last);
const char *lupe_recorder_path(const lupe_recorder *r);
uint64_t lupe_recorder_bytes(const lupe_recorder *r); /* of the file by now */

/* -- reading: any thread, one at a time --------------------------------------------------------- */

typedef struct lupe_recording lupe_recording;

typedef struct lupe_recording_frame {
  double time_ms;
  uint64_t block_bytes, packed_bytes;
  uint64_t offset; /* of its piece in the file */
  uint32_t notes_bytes;
  bool last;
} lupe_recording_frame;

/* Reads the head and finds the frames. A file that is cut off or damaged after its head opens all the same:
 * see lupe_recording_ending. LUPE_EIO with errno; LUPE_ECORRUPT and LUPE_EVERSION, where *why (static) says
 * what is wrong; LUPE_ENOMEM. */
lupe_status lupe_recording_open(lupe_recording **out, const char *path, const char **why);
void lupe_recording_free(lupe_recording *r); /* NULL is a no-op */

const char *lupe_recording_about(const lupe_recording *r, size_t *bytes); /* NUL behind it */
size_t lupe_recording_count(const lupe_recording *r);
const lupe_recording_frame *lupe_recording_at(const lupe_recording *r, size_t index);
/* NULL: whole, up to its end mark. Otherwise why what follows the frames could not be read; static. */
const char *lupe_recording_ending(const lupe_recording *r);

/* Unpacks one frame. `*notes` (NUL behind it) is the caller's to free; `*s` NULL where it has no block. On
 * LUPE_ECORRUPT and LUPE_EVERSION *why says what is wrong. LUPE_EIO, LUPE_ENOMEM. */
lupe_status lupe_recording_read(lupe_recording *r, size_t index, lupe_snapshot **s, char **notes,
                                const char **why);

#endif
