#include "core/cli/users.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool uid_of(const char *name, uid_t *out) {
  char *end;
  errno = 0;
  unsigned long number = strtoul(name, &end, 10);
  if (*end == '\0' && end != name && name[0] != '-' && errno == 0 && number < (uid_t)-1) {
    *out = (uid_t)number;
    return true;
  }
  const struct passwd *entry = getpwnam(name);
  if (entry) *out = entry->pw_uid;
  return entry != NULL;
}

lupe_status lupe_users_parse(const char *text, lupe_peers *out, char *error, size_t error_bytes) {
  *out = (lupe_peers){0};
  if (!text || !*text) return LUPE_OK;
  if (geteuid() != 0) {
    snprintf(error, error_bytes,
             "users: only a lupe that root runs can take other users' programs in: they believe nobody else");
    return LUPE_EINVAL;
  }
  if (strcmp(text, "all") == 0) {
    out->anyone = true;
    return LUPE_OK;
  }
  lupe_status status = LUPE_ENOMEM;
  char *copy = strdup(text), *rest = copy;
  uid_t *uids = calloc(strlen(text), sizeof *uids);
  size_t count = 0;
  snprintf(error, error_bytes, "%s", lupe_status_text(status));
  if (!copy || !uids) goto out;
  for (char *name; (name = strsep(&rest, ", "));) {
    if (!*name) continue;
    if (!uid_of(name, &uids[count])) {
      snprintf(error, error_bytes, "users: there is no user %s", name);
      status = LUPE_EINVAL;
      goto out;
    }
    count++;
  }
  *out = (lupe_peers){.uids = uids, .count = count};
  uids = NULL;
  status = LUPE_OK;
out:
  free(copy);
  free(uids);
  return status;
}
