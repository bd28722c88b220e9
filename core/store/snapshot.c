#include "core/store/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/wire/seals.h"

struct lupe_snapshot {
  atomic_uint references;
  int fd;
  size_t bytes;
  void *block; /* writable until it is sealed */
};

static lupe_snapshot *wrap(int fd, size_t bytes, void *block) {
  lupe_snapshot *s = malloc(sizeof *s);
  if (!s) return NULL;
  atomic_init(&s->references, 1);
  s->fd = fd;
  s->bytes = bytes;
  s->block = block;
  return s;
}

lupe_status lupe_snapshot_map(int fd, bool sealed_only, lupe_snapshot **out) {
  struct stat info;
  if (fstat(fd, &info) != 0) return LUPE_EIO;
  if (!S_ISREG(info.st_mode) || info.st_size < (off_t)sizeof(lupe_snapshot_header)) return LUPE_ECORRUPT;
  if (sealed_only && !lupe_has_seals(fd, F_SEAL_WRITE | F_SEAL_SHRINK)) return LUPE_ECORRUPT;

  int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (own < 0) return LUPE_EIO;
  lupe_status status = LUPE_EIO;
  size_t bytes = (size_t)info.st_size;
  void *block = mmap(NULL, bytes, PROT_READ, MAP_SHARED, own, 0);
  if (block == MAP_FAILED) goto fail_map;
  status = lupe_snapshot_validate(block, bytes, NULL);
  if (status != LUPE_OK) goto fail_invalid;
  status = LUPE_ENOMEM;
  lupe_snapshot *s = wrap(own, bytes, block);
  if (!s) goto fail_invalid;
  *out = s;
  return LUPE_OK;

fail_invalid:
  munmap(block, bytes);
fail_map:
  close(own);
  return status;
}

lupe_snapshot *lupe_snapshot_retain(lupe_snapshot *s) {
  if (s) atomic_fetch_add_explicit(&s->references, 1, memory_order_relaxed);
  return s;
}

void lupe_snapshot_release(lupe_snapshot *s) {
  if (!s || atomic_fetch_sub_explicit(&s->references, 1, memory_order_acq_rel) != 1) return;
  if (s->block) munmap(s->block, s->bytes);
  close(s->fd);
  free(s);
}

const lupe_snapshot_header *lupe_snapshot_block(const lupe_snapshot *s) {
  return s->block;
}

size_t lupe_snapshot_bytes(const lupe_snapshot *s) {
  return s->bytes;
}

int lupe_snapshot_fd(const lupe_snapshot *s) {
  return s->fd;
}

lupe_status lupe__snapshot_create(size_t bytes, lupe_snapshot **out, void **out_block) {
  int fd = memfd_create("lupe-snapshot", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return LUPE_EIO;
  lupe_status status = LUPE_EIO;
  if (ftruncate(fd, (off_t)bytes) != 0) goto fail_block;
  /* All of it will be written: one call for all pages costs half of a fault for each. */
  void *block = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (block == MAP_FAILED) goto fail_block;
  status = LUPE_ENOMEM;
  lupe_snapshot *s = wrap(fd, bytes, block);
  if (!s) goto fail_wrap;
  *out = s;
  *out_block = block;
  return LUPE_OK;

fail_wrap:
  munmap(block, bytes);
fail_block:
  close(fd);
  return status;
}

lupe_status lupe__snapshot_seal(lupe_snapshot *s) {
  /* F_SEAL_WRITE is refused while a writable mapping exists. */
  munmap(s->block, s->bytes);
  s->block = NULL;
  if (fcntl(s->fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return LUPE_EIO;
  void *block = mmap(NULL, s->bytes, PROT_READ, MAP_SHARED, s->fd, 0);
  if (block == MAP_FAILED) return LUPE_EIO;
  s->block = block;
  return LUPE_OK;
}
