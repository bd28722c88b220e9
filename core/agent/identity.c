/* identity.c -- setuid, setgroups and their kin, as the program calls them.
 * Users and groups belong to a thread. The C library has each of the program's threads make the same call,
 * and ends the process where one is told something else than the others. Capabilities belong to a thread,
 * too, and are changed in the caller's alone (capset, PR_SET_KEEPCAPS): after that the agent's thread may not
 * be allowed what the caller is, or the other way round. Then it leaves first. What is executed next has an
 * agent of its own again. */
#include <dlfcn.h>
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/agent/control.h"

#define INTERPOSED __attribute__((visibility("default")))

/* Whether the thread has it now. False: there is no such thread. */
static bool read_capability(pid_t tid, unsigned capability, bool *out) {
  struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, tid};
  struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
  if (syscall(SYS_capget, &head, data) != 0) return false;
  *out = (data[0].effective & UINT32_C(1) << capability) != 0; /* both are among the first 32 */
  return true;
}

static bool is_alike(pid_t agents, unsigned capability) {
  bool callers_has, agents_has;
  return read_capability(0, capability, &callers_has) && read_capability(agents, capability, &agents_has) &&
         callers_has == agents_has;
}

static void prepare(unsigned capability) {
  int saved_errno = errno;
  pid_t agents = lupe_control_thread_id();
  if (agents != 0 && !is_alike(agents, capability)) lupe_control_retire(false);
  errno = saved_errno;
}

/* What is called through to is the next in line after the agent. It is looked up before the program starts:
 * in signal handlers, which may call these, the loader cannot be asked. */
#define INTERPOSE(name, capability, parameters, arguments)           \
  static int(*next_##name) parameters;                               \
  __attribute__((constructor)) static void look_up_##name(void) {    \
    next_##name = (__typeof__(next_##name))dlsym(RTLD_NEXT, #name);  \
  }                                                                  \
  INTERPOSED int name parameters {                                   \
    if (!next_##name) look_up_##name(); /* an earlier constructor */ \
    if (!next_##name) {                                              \
      errno = ENOSYS;                                                \
      return -1;                                                     \
    }                                                                \
    prepare(capability);                                             \
    return next_##name arguments;                                    \
  }

INTERPOSE(setuid, CAP_SETUID, (uid_t uid), (uid))
INTERPOSE(seteuid, CAP_SETUID, (uid_t uid), (uid))
INTERPOSE(setreuid, CAP_SETUID, (uid_t ruid, uid_t euid), (ruid, euid))
INTERPOSE(setresuid, CAP_SETUID, (uid_t ruid, uid_t euid, uid_t suid), (ruid, euid, suid))
INTERPOSE(setgid, CAP_SETGID, (gid_t gid), (gid))
INTERPOSE(setegid, CAP_SETGID, (gid_t gid), (gid))
INTERPOSE(setregid, CAP_SETGID, (gid_t rgid, gid_t egid), (rgid, egid))
INTERPOSE(setresgid, CAP_SETGID, (gid_t rgid, gid_t egid, gid_t sgid), (rgid, egid, sgid))
INTERPOSE(setgroups, CAP_SETGID, (size_t n, const gid_t *groups), (n, groups))
INTERPOSE(initgroups, CAP_SETGID, (const char *user, gid_t group), (user, group))
