#include "core/status.h"

#include <errno.h>

static const char *const texts[] = {
    [LUPE_OK] = "ok",
    [LUPE_EINVAL] = "invalid argument",
    [LUPE_ENOMEM] = "out of memory",
    [LUPE_EFULL] = "queue full",
    [LUPE_EAGAIN] = "nothing available now",
    [LUPE_ECORRUPT] = "corrupt data",
    [LUPE_EVERSION] = "incompatible version",
    [LUPE_ENOENT] = "not found",
    [LUPE_EPERM] = "not permitted",
    [LUPE_EIO] = "input/output error",
    [LUPE_ENOSPC] = "no space left on device",
    [LUPE_EINUSE] = "address in use",
    [LUPE_ESCRIPT] = "script error",
    [LUPE_EUNSUPPORTED] = "not supported here",
};

const char *lupe_status_text(lupe_status status) {
  if ((unsigned)status >= sizeof texts / sizeof texts[0]) return "unknown status";
  return texts[status];
}

lupe_status lupe__status_of_errno(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ESTALE:
    case ESRCH:
      return LUPE_ENOENT;
    case EACCES:
    case EPERM:
      return LUPE_EPERM;
    case ENOMEM:
      return LUPE_ENOMEM;
    default:
      return LUPE_EIO;
  }
}
