#include "core/agent/wiped.h"

#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

_Atomic(lupe_wiped *) lupe_wiped_page;
_Thread_local uint32_t lupe_wiped_inside;

lupe_status lupe_wiped_create(void) {
  size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
  lupe_wiped *fresh = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (fresh == MAP_FAILED) return LUPE_EUNSUPPORTED;
  if (madvise(fresh, bytes, MADV_WIPEONFORK) != 0) {
    munmap(fresh, bytes);
    return LUPE_EUNSUPPORTED;
  }
  atomic_store(&fresh->pid, getpid());
  lupe_wiped_page = fresh;
  return LUPE_OK;
}

void lupe_wiped_after_fork(void) {
  atomic_store(&lupe_wiped_page->writers, lupe_wiped_inside);
  atomic_store(&lupe_wiped_page->pid, getpid());
}
