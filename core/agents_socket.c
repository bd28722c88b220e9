#include "core/agents_socket.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/safe_way.h"
#include "core/wire/channel.h"

enum {
  BASE_MAX = 32,       /* bytes of a folder that a temporary one is made in */
  LEFT_SECS = 300,     /* a folder is locked well before it is so old */
  LOOKED_AT_MAX = 4096 /* entries of that folder: a start is to be quick */
};
static const char prefix[] = "lupe-";

static lupe_status failed(const char *path, char *error, size_t error_bytes) {
  snprintf(error, error_bytes, "%s: %s", path, strerror(errno));
  return LUPE_EIO;
}

/* ---- folders of one runtime each ---- */

static bool has_our_name(const char *name) {
  return strncmp(name, prefix, sizeof prefix - 1) == 0 && strlen(name) == sizeof "lupe-XXXXXX" - 1;
}

/* A folder as mkdtemp made it, and a while ago. */
static bool is_old_and_ours(int folder) {
  struct stat s;
  return fstat(folder, &s) == 0 && s.st_uid == geteuid() && (s.st_mode & 07777) == 0700 &&
         s.st_mtime + LEFT_SECS < time(NULL);
}

/* The folder of a daemon's socket may have such a name, too: its lock is in another place. */
static bool is_a_daemons(int folder) {
  struct stat s;
  return fstatat(folder, "agents.lock", &s, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Removes a folder that nobody has locked, and whose socket nobody listens at: the kernel lets go of both
 * when their process ends, however that does. With anything else in it than a socket it stays. */
static void remove_left(const char *path, int base, const char *name) {
  char socket[LUPE_SOCKET_PATH_BYTES];
  struct stat s;
  int listener, folder = openat(base, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (folder < 0) return;
  snprintf(socket, sizeof socket, "%.*s/%.*s/agents", BASE_MAX, path, (int)sizeof "lupe-XXXXXX", name);
  if (!is_old_and_ours(folder) || is_a_daemons(folder) || flock(folder, LOCK_EX | LOCK_NB) != 0) goto stays;
  lupe_status status = lupe_channel_connect(socket, &listener);
  if (status == LUPE_OK) close(listener);
  if (status != LUPE_ENOENT) goto stays;
  if (fstatat(folder, "agents", &s, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(s.st_mode))
    unlinkat(folder, "agents", 0);
  unlinkat(base, name, AT_REMOVEDIR);
stays:
  close(folder);
}

static void remove_all_left(const char *path) {
  DIR *base = opendir(path);
  const struct dirent *entry;
  if (!base) return;
  for (int i = 0; i < LOOKED_AT_MAX && (entry = readdir(base)); i++) {
    if (has_our_name(entry->d_name)) remove_left(path, dirfd(base), entry->d_name);
  }
  closedir(base);
}

lupe_status lupe_agents_socket_make(lupe_agents_socket *out, char *error, size_t error_bytes) {
  const char *base = getenv("XDG_RUNTIME_DIR");
  if (!base || base[0] != '/' || strlen(base) > BASE_MAX || access(base, W_OK) != 0) base = "/tmp";
  remove_all_left(base);
  lupe_agents_socket s = {.lock = -1};
  snprintf(s.folder, sizeof s.folder, "%.*s/lupe-XXXXXX", BASE_MAX, base);
  if (!mkdtemp(s.folder)) return failed(s.folder, error, error_bytes); /* 0700 */
  s.lock = open(s.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (s.lock < 0 || flock(s.lock, LOCK_EX | LOCK_NB) != 0) {
    lupe_status status = failed(s.folder, error, error_bytes);
    lupe_agents_socket_release(&s);
    return status;
  }
  snprintf(s.path, sizeof s.path, "%.*s/agents", BASE_MAX + (int)sizeof "/lupe-XXXXXX", s.folder);
  *out = s;
  return LUPE_OK;
}

/* ---- paths that others know ---- */

/* The folder was made just now, with what of its mode the umask has left. Who may rename in the folder around
 * it could have put another one in its place. */
static lupe_status set_mode(const char *folder, mode_t mode, char *error, size_t error_bytes) {
  struct stat s;
  lupe_status status = LUPE_OK;
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return failed(folder, error, error_bytes);
  if (fstat(fd, &s) != 0) {
    status = failed(folder, error, error_bytes);
  } else if (s.st_uid != geteuid() || (s.st_mode & 0777 & ~mode)) {
    snprintf(error, error_bytes,
             "%s was made just now, and is another folder already; choose another path by --socket", folder);
    status = LUPE_EPERM;
  } else if (fchmod(fd, mode) != 0) {
    status = failed(folder, error, error_bytes);
  }
  close(fd);
  return status;
}

/* Makes the folder, or looks at the one that is there. */
static lupe_status check_folder(const char *folder, bool shared, char *error, size_t error_bytes) {
  mode_t mode = shared ? 0755 : 0700;
  char around[LUPE_SOCKET_PATH_BYTES];
  snprintf(around, sizeof around, "%.*s", (int)(strrchr(folder, '/') - folder) + 1, folder);
  lupe_status way = lupe_safe_way_check(around, error, error_bytes);
  if (way != LUPE_OK) return way;
  if (mkdir(folder, mode) == 0) return set_mode(folder, mode, error, error_bytes);
  if (errno != EEXIST) return failed(folder, error, error_bytes);
  struct stat s;
  if (lstat(folder, &s) != 0) return failed(folder, error, error_bytes);
  if (!S_ISDIR(s.st_mode)) {
    snprintf(error, error_bytes, "%s is not a folder, so no socket can be made in it", folder);
    return LUPE_EPERM;
  }
  if (s.st_uid != geteuid()) {
    snprintf(error, error_bytes,
             "%s belongs to user %u, who could take the place of the socket in it; choose another path by "
             "--socket",
             folder, (unsigned)s.st_uid);
    return LUPE_EPERM;
  }
  if (s.st_mode & S_ISVTX) { /* such as /tmp: nobody is to be told to change that */
    snprintf(error, error_bytes,
             "%s is a folder that users share, and the socket needs one of its own; expected a path such as "
             "%s/lupe/agents",
             folder, folder);
    return LUPE_EPERM;
  }
  if (s.st_mode & 0022) {
    snprintf(error, error_bytes,
             "%s has mode %04o: others could put their own socket in the place of the one in it; expected: "
             "chmod %04o "
             "%s",
             folder, (unsigned)(s.st_mode & 07777), (unsigned)mode, folder);
    return LUPE_EPERM;
  }
  if (shared && (s.st_mode & 0011) != 0011) {
    snprintf(
        error, error_bytes,
        "%s has mode %04o, so other users' programs cannot reach the socket in it; expected: chmod 0755 %s",
        folder, (unsigned)(s.st_mode & 07777), folder);
    return LUPE_EPERM;
  }
  return LUPE_OK;
}

static lupe_status taken(const char *path, char *error, size_t error_bytes) {
  snprintf(error, error_bytes,
           "another lupe takes programs in at %s; end it, or choose another path by --socket", path);
  return LUPE_EINUSE;
}

/* The lock's file stays: who removed it could lock another one than the next. */
static lupe_status take_lock(const char *path, int *out, char *error, size_t error_bytes) {
  char name[LUPE_SOCKET_PATH_BYTES + sizeof ".lock"];
  snprintf(name, sizeof name, "%s.lock", path);
  int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return failed(name, error, error_bytes);
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
    *out = fd;
    return LUPE_OK;
  }
  lupe_status status =
      errno == EWOULDBLOCK ? taken(path, error, error_bytes) : failed(name, error, error_bytes);
  close(fd);
  return status;
}

/* Who has the lock may remove a socket that nobody listens at. */
static lupe_status remove_stale(const char *path, char *error, size_t error_bytes) {
  struct stat s;
  if (lstat(path, &s) != 0) return errno == ENOENT ? LUPE_OK : failed(path, error, error_bytes);
  if (!S_ISSOCK(s.st_mode)) {
    snprintf(error, error_bytes, "%s is there, and is not a socket; choose another path by --socket", path);
    return LUPE_EINVAL;
  }
  int fd;
  if (lupe_channel_connect(path, &fd) == LUPE_OK) { /* something else than lupe, or one that knows no lock */
    close(fd);
    return taken(path, error, error_bytes);
  }
  return unlink(path) == 0 ? LUPE_OK : failed(path, error, error_bytes);
}

lupe_status lupe_agents_socket_claim(lupe_agents_socket *out, const char *path, bool shared, char *error,
                                     size_t error_bytes) {
  lupe_agents_socket s = {.lock = -1};
  const char *slash = strrchr(path, '/');
  if (path[0] != '/' || strlen(path) >= sizeof s.path || !slash[1] || slash == path) {
    snprintf(error, error_bytes,
             "socket: %s: expected an absolute path of at most %zu bytes, in a folder of its own", path,
             sizeof s.path - 1);
    return LUPE_EINVAL;
  }
  memcpy(s.path, path, strlen(path) + 1);
  char folder[sizeof s.path] = {0};
  memcpy(folder, path, (size_t)(slash - path));
  lupe_status status = check_folder(folder, shared, error, error_bytes);
  if (status == LUPE_OK) status = take_lock(path, &s.lock, error, error_bytes);
  if (status != LUPE_OK) return status;
  status = remove_stale(path, error, error_bytes);
  if (status != LUPE_OK) {
    close(s.lock);
    return status;
  }
  *out = s;
  return LUPE_OK;
}

void lupe_agents_socket_release(lupe_agents_socket *s) {
  if (s->folder[0]) rmdir(s->folder);
  if (s->lock >= 0) close(s->lock);
  *s = (lupe_agents_socket){.lock = -1};
}
