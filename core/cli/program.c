#include "core/cli/program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { MAX_INTERPRETERS = 4 };

static lupe_status check_executable(const char *path) {
  struct stat st;
  if (stat(path, &st) != 0) return errno == EACCES ? LUPE_EPERM : LUPE_ENOENT;
  if (!S_ISREG(st.st_mode) || access(path, X_OK) != 0) return LUPE_EPERM;
  return LUPE_OK;
}

static lupe_status find(const char *command, const char *path_variable, char out[PATH_MAX]) {
  if (strchr(command, '/')) {
    if (snprintf(out, PATH_MAX, "%s", command) >= PATH_MAX) return LUPE_ENOENT;
    return check_executable(out);
  }
  lupe_status worst = LUPE_ENOENT;
  const char *dir = path_variable ? path_variable : "/bin:/usr/bin";
  for (;;) {
    size_t n = strcspn(dir, ":");
    int written = n ? snprintf(out, PATH_MAX, "%.*s/%s", (int)n, dir, command)
                    : snprintf(out, PATH_MAX, "./%s", command);
    if (written < PATH_MAX) {
      lupe_status status = check_executable(out);
      if (status == LUPE_OK) return LUPE_OK;
      if (status == LUPE_EPERM) worst = LUPE_EPERM;
    }
    if (!dir[n]) return worst;
    dir += n + 1;
  }
}

/* The loader distrusts the environment of a process whose identity the file changes (AT_SECURE). */
static bool changes_identity(int fd) {
  struct stat st;
  if (fstat(fd, &st) != 0) return false;
  if ((st.st_mode & S_ISUID) && st.st_uid != geteuid()) return true;
  if ((st.st_mode & S_ISGID) && st.st_gid != getegid()) return true;
  return geteuid() != 0 && fgetxattr(fd, "security.capability", NULL, 0) > 0;
}

static lupe_program_kind kind_of_elf(int fd) {
  lupe_program_kind kind = LUPE_PROGRAM_FOREIGN;
  if (elf_version(EV_CURRENT) == EV_NONE) return kind;
  Elf *elf = elf_begin(fd, ELF_C_READ, NULL);
  GElf_Ehdr header;
  if (!elf || !gelf_getehdr(elf, &header)) goto out;
#if defined(__x86_64__)
  if (gelf_getclass(elf) != ELFCLASS64 || header.e_machine != EM_X86_64) goto out;
#elif defined(__aarch64__)
  if (gelf_getclass(elf) != ELFCLASS64 || header.e_machine != EM_AARCH64) goto out;
#endif
  kind = LUPE_PROGRAM_STATIC;
  size_t count = 0;
  if (elf_getphdrnum(elf, &count) != 0) goto out;
  for (size_t i = 0; i < count; i++) {
    GElf_Phdr segment;
    if (gelf_getphdr(elf, (int)i, &segment) && segment.p_type == PT_INTERP) kind = LUPE_PROGRAM_DYNAMIC;
  }
out:
  elf_end(elf);
  return kind;
}

/* Cuts the interpreter's path out of a `#!` line in place; false where `head` is no script. */
static bool interpreter_of(char *head) {
  if (strncmp(head, "#!", 2) != 0) return false;
  char *start = head + 2 + strspn(head + 2, " \t");
  size_t n = strcspn(start, " \t\r\n");
  memmove(head, start, n);
  head[n] = '\0';
  return n > 0;
}

lupe_status lupe_program_inspect(const char *command, const char *path_variable, lupe_program *out) {
  lupe_program program = {.kind = LUPE_PROGRAM_DYNAMIC};
  lupe_status status = find(command, path_variable, program.path);
  for (int depth = 0; status == LUPE_OK && depth <= MAX_INTERPRETERS; depth++) {
    int fd = open(program.path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) break; /* executable but not readable: let it run, the handshake will tell */
    char head[256] = "";
    ssize_t n = pread(fd, head, sizeof head - 1, 0);
    if (n >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0) {
      program.kind = changes_identity(fd) ? LUPE_PROGRAM_PRIVILEGED : kind_of_elf(fd);
      close(fd);
      break;
    }
    close(fd);
    /* A file that is neither is run by /bin/sh, as execvp does. */
    snprintf(program.path, sizeof program.path, "%s", interpreter_of(head) ? head : "/bin/sh");
    status = check_executable(program.path);
  }
  if (status == LUPE_OK) *out = program;
  return status;
}
