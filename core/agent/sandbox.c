/* sandbox.c -- prctl and libseccomp's seccomp_load, as the program calls them.
 * Behind a filter of the program's, a system call that it did not think of may end it. The agent makes some
 * on the program's threads (for stacks, and at exit), so it leaves before the filter is there. What the
 * program did until then is in the report. A filter that is set by the bare system call is not noticed. */
#include <dlfcn.h>
#include <errno.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/agent/control.h"

__attribute__((visibility("default"))) int prctl(int option, ...) {
  unsigned long arguments[4];
  va_list list;
  va_start(list, option);
  for (int i = 0; i < 4; i++) arguments[i] = va_arg(list, unsigned long);
  va_end(list);
  /* Without a filter it is a question: whether the kernel knows them. */
  bool confines = arguments[0] == SECCOMP_MODE_STRICT || arguments[1] != 0;
  if (option == PR_SET_SECCOMP && confines) lupe_control_leave();
  return (int)syscall(SYS_prctl, option, arguments[0], arguments[1], arguments[2], arguments[3]);
}

typedef int seccomp_loader(const void *filter);

__attribute__((visibility("default"))) seccomp_loader seccomp_load;
int seccomp_load(const void *filter) {
  seccomp_loader *real = (seccomp_loader *)dlsym(RTLD_NEXT, "seccomp_load");
  if (!real) { /* the library came with a plugin, which sees it and we do not */
    void *library = dlopen("libseccomp.so.2", RTLD_LAZY | RTLD_NOLOAD);
    real = library ? (seccomp_loader *)dlsym(library, "seccomp_load") : NULL;
  }
  if (!real) return -ENOSYS;
  lupe_control_leave();
  return real(filter);
}
