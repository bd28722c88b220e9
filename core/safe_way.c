#include "core/safe_way.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINKS_MAX = 40 /* as the kernel follows */ };

typedef struct way {
  char at[PATH_MAX];   /* a folder that was looked at, without links */
  char left[PATH_MAX]; /* to go from there */
  int links;
  uid_t above; /* who has the root folder, and with it all: root, or what he is called in this namespace */
  char *error;
  size_t error_bytes;
} way;

static lupe_status failed(const way *w, const char *path, int error) {
  snprintf(w->error, w->error_bytes, "%s: %s", path, strerror(error));
  return LUPE_EIO;
}

static lupe_status look_at_owner(const way *w, const char *path, const struct stat *s) {
  if (s->st_uid == geteuid() || s->st_uid == 0 || s->st_uid == w->above) return LUPE_OK;
  snprintf(w->error, w->error_bytes,
           "%s belongs to user %u, who could have it lead to a socket of his own; choose another path by "
           "--socket",
           path, (unsigned)s->st_uid);
  return LUPE_EPERM;
}

static lupe_status look_at_folder(const way *w) {
  struct stat s;
  if (stat(w->at, &s) != 0) return failed(w, w->at, errno);
  lupe_status status = look_at_owner(w, w->at, &s);
  if (status != LUPE_OK || !(s.st_mode & 0022) || (s.st_mode & S_ISVTX)) return status;
  snprintf(
      w->error, w->error_bytes,
      "%s has mode %04o: others could put a folder of their own in the place of the one in it that leads "
      "to the socket; expected: chmod go-w %s, or another path by --socket",
      w->at, (unsigned)(s.st_mode & 07777), w->at);
  return LUPE_EPERM;
}

/* Takes the first name from what is left; "": there is none. */
static void next_name(way *w, char name[PATH_MAX]) {
  const char *from = w->left + strspn(w->left, "/");
  size_t bytes = strcspn(from, "/");
  memcpy(name, from, bytes);
  name[bytes] = '\0';
  memmove(w->left, from + bytes, strlen(from + bytes) + 1);
}

static lupe_status follow(way *w, const char *link) {
  char target[PATH_MAX], left[PATH_MAX];
  ssize_t n = readlink(link, target, sizeof target - 1);
  if (n < 0) return failed(w, link, errno);
  target[n] = '\0';
  if (++w->links > LINKS_MAX) return failed(w, link, ELOOP);
  if ((size_t)snprintf(left, sizeof left, "%s/%s", target, w->left) >= sizeof left)
    return failed(w, link, ENAMETOOLONG);
  memcpy(w->left, left, sizeof left);
  if (target[0] == '/') w->at[1] = '\0';
  return LUPE_OK;
}

static lupe_status enter(way *w, const char *name) {
  char next[PATH_MAX];
  struct stat s;
  if (strcmp(name, "..") == 0) {
    char *slash = strrchr(w->at, '/');
    slash[slash == w->at] = '\0';
    return LUPE_OK;
  }
  size_t bytes = (size_t)snprintf(next, sizeof next, "%s/%s", strcmp(w->at, "/") == 0 ? "" : w->at, name);
  if (bytes >= sizeof next) return failed(w, w->at, ENAMETOOLONG);
  if (lstat(next, &s) != 0) return failed(w, next, errno);
  if (S_ISLNK(s.st_mode)) {
    /* Where the folder that it is in is sticky, its owner could change it. */
    lupe_status status = look_at_owner(w, next, &s);
    return status == LUPE_OK ? follow(w, next) : status;
  }
  if (!S_ISDIR(s.st_mode)) return failed(w, next, ENOTDIR);
  memcpy(w->at, next, bytes + 1);
  return look_at_folder(w);
}

lupe_status lupe_safe_way_check(const char *folder, char *error, size_t error_bytes) {
  way w = {.at = "/", .error = error, .error_bytes = error_bytes};
  char name[PATH_MAX];
  if (folder[0] != '/' || strlen(folder) >= sizeof w.left) return failed(&w, folder, EINVAL);
  memcpy(w.left, folder, strlen(folder) + 1);
  struct stat s;
  if (stat("/", &s) != 0) return failed(&w, "/", errno);
  w.above = s.st_uid;
  lupe_status status = look_at_folder(&w);
  while (status == LUPE_OK && (next_name(&w, name), name[0])) {
    if (strcmp(name, ".") != 0) status = enter(&w, name);
  }
  return status;
}
