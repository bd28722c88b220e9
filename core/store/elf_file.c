#include "core/store/elf_file.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/status.h"

enum {
  MAX_PROGRAM_HEADERS = 512,
  MAX_NOTE_BYTES = 4096, /* of one note section or segment; more is not looked at */
};

static bool fits(const lupe_elf_file *f, uint64_t offset, uint64_t bytes) {
  return offset <= f->bytes && bytes <= f->bytes - offset;
}

/* Opens `path` if it is a regular file. It is looked at first, because opening a device can do things. */
static lupe_status open_regular(const char *path, int *out_fd, struct stat *out_stat) {
  if (stat(path, out_stat) != 0) return lupe__status_of_errno(errno);
  if (!S_ISREG(out_stat->st_mode)) return LUPE_EUNSUPPORTED;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0) return lupe__status_of_errno(errno);
  if (fstat(fd, out_stat) != 0 || !S_ISREG(out_stat->st_mode)) {
    close(fd);
    return LUPE_EUNSUPPORTED;
  }
  *out_fd = fd;
  return LUPE_OK;
}

static bool same_content(const lupe_elf_file *f, const struct stat *st) {
  return st->st_dev == f->device && st->st_ino == f->inode && (uint64_t)st->st_size == f->bytes &&
         st->st_mtim.tv_sec == f->mtime.tv_sec && st->st_mtim.tv_nsec == f->mtime.tv_nsec;
}

static lupe_status wake_at(lupe_elf_file *f, const char *path) {
  if (!path) return LUPE_ENOENT;
  int fd = -1;
  struct stat st = {0};
  lupe_status status = open_regular(path, &fd, &st);
  if (status != LUPE_OK) return status;
  if (!same_content(f, &st)) {
    close(fd);
    return LUPE_ENOENT;
  }
  f->fd = fd;
  return LUPE_OK;
}

static lupe_status wake(lupe_elf_file *f) {
  if (f->fd >= 0 || f->memory) return LUPE_OK;
  lupe_status status = wake_at(f, f->path);
  return status == LUPE_OK || wake_at(f, f->other_path) != LUPE_OK ? status : LUPE_OK;
}

bool lupe_elf_unchanged(lupe_elf_file *f) {
  if (f->memory) return true;
  struct stat st;
  return f->open && wake(f) == LUPE_OK && fstat(f->fd, &st) == 0 && same_content(f, &st);
}

lupe_status lupe_elf_read(lupe_elf_file *f, uint64_t offset, void *out, size_t bytes) {
  if (!f->open) return LUPE_ENOENT;
  if (!fits(f, offset, bytes)) return LUPE_ECORRUPT;
  if (f->memory) {
    memcpy(out, f->memory + offset, bytes);
    return LUPE_OK;
  }
  lupe_status status = wake(f);
  if (status != LUPE_OK) return status;
  for (size_t done = 0; done < bytes;) {
    ssize_t n = pread(f->fd, (char *)out + done, bytes - done, (off_t)(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return LUPE_EIO;
    if (n == 0) return LUPE_ECORRUPT; /* cut short since it was opened */
    done += (size_t)n;
  }
  return LUPE_OK;
}

lupe_status lupe_elf_section_at(lupe_elf_file *f, uint32_t index, lupe_elf_section *out) {
  if (index >= f->section_count) return LUPE_ENOENT;
  Elf64_Shdr header;
  lupe_status status =
      lupe_elf_read(f, f->sections_offset + (uint64_t)index * sizeof header, &header, sizeof header);
  if (status != LUPE_OK) return status;
  bool has_content = header.sh_type != SHT_NOBITS && header.sh_type != SHT_NULL;
  if (has_content && !fits(f, header.sh_offset, header.sh_size)) return LUPE_ECORRUPT;
  *out = (lupe_elf_section){
      .index = index,
      .type = header.sh_type,
      .link = header.sh_link,
      .name = header.sh_name,
      .flags = header.sh_flags,
      .offset = header.sh_offset,
      .bytes = header.sh_size,
      .entry_bytes = header.sh_entsize,
  };
  return LUPE_OK;
}

lupe_status lupe_elf_section_name(lupe_elf_file *f, const lupe_elf_section *section, char *out,
                                  size_t capacity) {
  lupe_elf_section names;
  if (f->section_names == 0 || lupe_elf_section_at(f, f->section_names, &names) != LUPE_OK ||
      names.type != SHT_STRTAB || section->name >= names.bytes)
    return LUPE_ENOENT;
  uint64_t left = names.bytes - section->name;
  size_t bytes = left < capacity - 1 ? (size_t)left : capacity - 1;
  out[bytes] = '\0';
  return lupe_elf_read(f, names.offset + section->name, out, bytes);
}

lupe_status lupe_elf_section_of_type(lupe_elf_file *f, uint32_t type, lupe_elf_section *out) {
  for (uint32_t i = 1; i < f->section_count; i++) {
    lupe_elf_section section;
    if (lupe_elf_section_at(f, i, &section) != LUPE_OK || section.type != type) continue;
    *out = section;
    return LUPE_OK;
  }
  return LUPE_ENOENT;
}

/* The code segment is asked first: where the file's pages overlap, an address that ran lies there. */
bool lupe_elf_vaddr_of(const lupe_elf_file *f, uint64_t offset, uint64_t *out_vaddr) {
  const lupe_elf_segment *found = NULL;
  for (uint32_t i = 0; i < f->segment_count; i++) {
    const lupe_elf_segment *s = &f->segments[i];
    if (offset < s->offset || offset - s->offset >= s->file_bytes) continue;
    if (!found || (s->executable && !found->executable)) found = s;
  }
  if (!found) return false;
  *out_vaddr = offset - found->offset + found->vaddr;
  return true;
}

bool lupe_elf_offset_of(const lupe_elf_file *f, uint64_t vaddr, uint64_t *out_offset) {
  for (uint32_t i = 0; i < f->segment_count; i++) {
    const lupe_elf_segment *s = &f->segments[i];
    if (vaddr < s->vaddr || vaddr - s->vaddr >= s->file_bytes) continue;
    *out_offset = vaddr - s->vaddr + s->offset;
    return true;
  }
  return false;
}

bool lupe_elf_is_code(const lupe_elf_file *f, uint64_t vaddr) {
  for (uint32_t i = 0; i < f->segment_count; i++) {
    const lupe_elf_segment *s = &f->segments[i];
    if (s->executable && vaddr >= s->vaddr && vaddr - s->vaddr < s->memory_bytes) return true;
  }
  return false;
}

void lupe_elf_hex(const uint8_t *id, size_t bytes, char *out) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < bytes; i++) {
    out[2 * i] = digits[id[i] >> 4];
    out[2 * i + 1] = digits[id[i] & 15];
  }
  out[2 * bytes] = '\0';
}

/* Looks for the build id among the notes at `offset`. */
static void read_build_id(lupe_elf_file *f, uint64_t offset, uint64_t bytes) {
  uint8_t notes[MAX_NOTE_BYTES];
  if (f->build_id[0] || bytes > sizeof notes) return;
  if (lupe_elf_read(f, offset, notes, (size_t)bytes) != LUPE_OK) return;
  for (uint64_t at = 0; bytes - at >= sizeof(Elf64_Nhdr);) {
    Elf64_Nhdr note;
    memcpy(&note, notes + at, sizeof note);
    at += sizeof note;
    uint64_t name_bytes = ((uint64_t)note.n_namesz + 3) & ~UINT64_C(3);
    uint64_t content_bytes = ((uint64_t)note.n_descsz + 3) & ~UINT64_C(3);
    if (name_bytes > bytes - at || content_bytes > bytes - at - name_bytes) return;
    bool is_id = note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && memcmp(notes + at, "GNU", 4) == 0;
    if (is_id && note.n_descsz >= 2 && note.n_descsz <= 64) {
      lupe_elf_hex(notes + at + name_bytes, note.n_descsz, f->build_id);
      return;
    }
    at += name_bytes + content_bytes;
  }
}

static void keep_segment(lupe_elf_file *f, const Elf64_Phdr *p) {
  bool usable = p->p_memsz > 0 && p->p_filesz <= p->p_memsz && p->p_vaddr + p->p_memsz >= p->p_vaddr &&
                p->p_offset + p->p_filesz >= p->p_offset;
  if (!usable || f->segment_count == LUPE_ELF_MAX_SEGMENTS) return;
  f->segments[f->segment_count++] = (lupe_elf_segment){
      .offset = p->p_offset,
      .vaddr = p->p_vaddr,
      .file_bytes = p->p_filesz,
      .memory_bytes = p->p_memsz,
      .executable = (p->p_flags & PF_X) != 0,
  };
}

static lupe_status read_program_headers(lupe_elf_file *f, const Elf64_Ehdr *header) {
  if (header->e_phnum == 0) return LUPE_OK;
  if (header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phnum > MAX_PROGRAM_HEADERS)
    return LUPE_ECORRUPT;
  for (uint32_t i = 0; i < header->e_phnum; i++) {
    Elf64_Phdr p;
    lupe_status status = lupe_elf_read(f, header->e_phoff + (uint64_t)i * sizeof p, &p, sizeof p);
    if (status != LUPE_OK) return status;
    if (p.p_type == PT_LOAD) keep_segment(f, &p);
    if (p.p_type == PT_NOTE) read_build_id(f, p.p_offset, p.p_filesz);
    if (p.p_type == PT_GNU_EH_FRAME && fits(f, p.p_offset, p.p_filesz)) {
      f->unwind_vaddr = p.p_vaddr;
      f->unwind_offset = p.p_offset;
      f->unwind_bytes = p.p_filesz;
    }
  }
  return LUPE_OK;
}

/* A damaged section table costs the symbols only: segments and unwind table do not need it. */
static void read_section_table(lupe_elf_file *f, const Elf64_Ehdr *header) {
  if (header->e_shoff == 0 || header->e_shentsize != sizeof(Elf64_Shdr)) return;
  uint64_t count = header->e_shnum;
  if (count == 0) { /* more than fit into e_shnum: the first section tells */
    Elf64_Shdr first;
    if (lupe_elf_read(f, header->e_shoff, &first, sizeof first) != LUPE_OK) return;
    count = first.sh_size;
  }
  if (count > UINT16_MAX || !fits(f, header->e_shoff, count * sizeof(Elf64_Shdr))) return;
  f->sections_offset = header->e_shoff;
  f->section_count = (uint32_t)count;
  f->section_names = header->e_shstrndx == SHN_XINDEX ? 0 : header->e_shstrndx;
  /* A separate debug file's program headers point nowhere; its note section is real. */
  for (uint32_t i = 1; i < f->section_count && !f->build_id[0]; i++) {
    lupe_elf_section section;
    if (lupe_elf_section_at(f, i, &section) == LUPE_OK && section.type == SHT_NOTE) {
      read_build_id(f, section.offset, section.bytes);
    }
  }
}

static lupe_status read_headers(lupe_elf_file *f) {
  Elf64_Ehdr header;
  lupe_status status = lupe_elf_read(f, 0, &header, sizeof header);
  if (status == LUPE_ECORRUPT) return LUPE_EUNSUPPORTED; /* too short to be one */
  if (status != LUPE_OK) return status;
  bool ours = memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && header.e_ident[EI_CLASS] == ELFCLASS64 &&
              header.e_ident[EI_DATA] == ELFDATA2LSB && header.e_ident[EI_VERSION] == EV_CURRENT &&
              (header.e_type == ET_EXEC || header.e_type == ET_DYN || header.e_type == ET_REL);
  if (!ours) return LUPE_EUNSUPPORTED;
  status = read_program_headers(f, &header);
  if (status != LUPE_OK) return status;
  read_section_table(f, &header);
  return LUPE_OK;
}

lupe_status lupe_elf_open(const char *path, lupe_elf_file *out) {
  lupe_elf_file f = {.fd = -1, .open = true};
  struct stat st;
  lupe_status status = open_regular(path, &f.fd, &st);
  if (status != LUPE_OK) return status;
  f.bytes = (uint64_t)st.st_size;
  f.device = st.st_dev;
  f.inode = st.st_ino;
  f.mtime = st.st_mtim;
  f.path = strdup(path);
  status = f.path ? read_headers(&f) : LUPE_ENOMEM;
  if (status != LUPE_OK) {
    lupe_elf_close(&f);
    return status;
  }
  *out = f;
  return LUPE_OK;
}

lupe_status lupe_elf_open_memory(const void *image, size_t bytes, lupe_elf_file *out) {
  lupe_elf_file f = {.fd = -1, .open = true, .memory = image, .bytes = bytes};
  lupe_status status = read_headers(&f);
  if (status == LUPE_OK) *out = f;
  return status;
}

void lupe_elf_also(lupe_elf_file *f, const char *path) {
  free(f->other_path);
  f->other_path = strdup(path);
}

void lupe_elf_rest(lupe_elf_file *f) {
  if (!f->open || f->memory || f->fd < 0) return;
  close(f->fd);
  f->fd = -1;
}

void lupe_elf_close(lupe_elf_file *f) {
  if (!f->open) return;
  lupe_elf_rest(f);
  free(f->path);
  free(f->other_path);
  *f = (lupe_elf_file){0};
}
