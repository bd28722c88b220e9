/* elf_file.h -- reads an ELF file piece by piece: 64-bit, little-endian; a program, a shared object, or
 * (ET_REL) the common part of several debug files. Everything in the file is untrusted: each offset and size
 * is checked against the file's length, and all reads are preads into the caller's buffer, so that a file cut
 * short while it is read gives an error and no fault. Thread: one at a time per file. */
#ifndef LUPE_STORE_ELF_FILE_H
#define LUPE_STORE_ELF_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "core/lupe.h"

enum {
  LUPE_ELF_MAX_SEGMENTS = 16,  /* PT_LOADs kept; linkers make 2 to 5 */
  LUPE_ELF_BUILD_ID_HEX = 129, /* 64 bytes in hex with a NUL; usual are 20 bytes */
};

typedef struct lupe_elf_segment {
  uint64_t offset, vaddr, file_bytes, memory_bytes;
  bool executable;
} lupe_elf_segment;

typedef struct lupe_elf_section {
  uint32_t index, type, link;
  uint32_t name; /* offset in the section that holds the sections' names */
  uint64_t flags, offset, bytes, entry_bytes;
} lupe_elf_section;

/* Embedded in its owner. All zero is a closed file. */
typedef struct lupe_elf_file {
  char *path;            /* own copy; NULL for an image in memory */
  char *other_path;      /* where else the same content may be; own copy; NULL: not known */
  const uint8_t *memory; /* borrowed; the vdso */
  int fd;                /* -1 while at rest */
  bool open;
  uint64_t bytes;
  dev_t device; /* with inode, bytes and mtime: is it still the same content? */
  ino_t inode;
  struct timespec mtime;

  lupe_elf_segment segments[LUPE_ELF_MAX_SEGMENTS];
  uint32_t segment_count, section_count, section_names; /* section_names: index; 0 none */
  uint64_t sections_offset;
  uint64_t unwind_vaddr, unwind_offset, unwind_bytes; /* .eh_frame_hdr; 0 bytes: none */
  char build_id[LUPE_ELF_BUILD_ID_HEX];               /* "" none */
} lupe_elf_file;

/* Opens a regular file (devices and pipes are left alone) and reads its headers.
 * LUPE_ENOENT, LUPE_EPERM, LUPE_EIO; LUPE_EUNSUPPORTED: not an ELF file of this kind; LUPE_ECORRUPT;
 * LUPE_ENOMEM. */
lupe_status lupe_elf_open(const char *path, lupe_elf_file *out);

/* The same of an image in memory, which must outlive the file. */
lupe_status lupe_elf_open_memory(const void *image, size_t bytes, lupe_elf_file *out);

void lupe_elf_close(lupe_elf_file *f); /* a closed file is a no-op */

/* The same file may be there, too, when it is opened again and is not at its path any more: whose folder in
 * /proc that was may have ended. Copied; left out where memory is short. */
void lupe_elf_also(lupe_elf_file *f, const char *path);

/* Gives the descriptor back; the next read opens the path again. */
void lupe_elf_rest(lupe_elf_file *f);

/* Whether the content is still that which was opened. Opens a file at rest again. */
bool lupe_elf_unchanged(lupe_elf_file *f);

/* Reads all `bytes` at `offset`, or LUPE_ECORRUPT (beyond the end), LUPE_EIO, LUPE_ENOENT (changed, or gone).
 */
lupe_status lupe_elf_read(lupe_elf_file *f, uint64_t offset, void *out, size_t bytes);

/* A build id as it is written: two digits for each byte, and a NUL. */
void lupe_elf_hex(const uint8_t *id, size_t bytes, char *out);

/* By number; LUPE_ENOENT past the last one, LUPE_ECORRUPT where its content leaves the file. */
lupe_status lupe_elf_section_at(lupe_elf_file *f, uint32_t index, lupe_elf_section *out);

/* The section's name, cut to `capacity`; LUPE_ENOENT where it has none. */
lupe_status lupe_elf_section_name(lupe_elf_file *f, const lupe_elf_section *section, char *out,
                                  size_t capacity);

/* The first section of this type (SHT_...), or LUPE_ENOENT. */
lupe_status lupe_elf_section_of_type(lupe_elf_file *f, uint32_t type, lupe_elf_section *out);

/* Between offsets in the file and addresses of its own address space. False: nothing is loaded there. */
bool lupe_elf_vaddr_of(const lupe_elf_file *f, uint64_t offset, uint64_t *out_vaddr);
bool lupe_elf_offset_of(const lupe_elf_file *f, uint64_t vaddr, uint64_t *out_offset);
bool lupe_elf_is_code(const lupe_elf_file *f, uint64_t vaddr);

#endif
