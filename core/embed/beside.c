#include "core/embed/beside.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

lupe_status lupe__beside(char out[PATH_MAX], const char *const *candidates) {
  Dl_info own;
  char folder[PATH_MAX] = "";
  /* Through links: liblupe.so.0 may be one, and the other parts be where the file is. */
  if (dladdr((void *)lupe__beside, &own) && own.dli_fname && realpath(own.dli_fname, folder)) {
    *strrchr(folder, '/') = '\0';
  }
  for (; *candidates; candidates++) {
    int n = **candidates == '/' ? snprintf(out, PATH_MAX, "%s", *candidates)
                                : snprintf(out, PATH_MAX, "%s/%s", folder, *candidates);
    struct stat info; /* PREFIX/lib has a folder that is called as the program is */
    if (n < PATH_MAX && access(out, R_OK) == 0 && stat(out, &info) == 0 && S_ISREG(info.st_mode))
      return LUPE_OK;
  }
  return LUPE_ENOENT;
}
