#include "core/unwanted.h"

#include <stdatomic.h>
#include <stddef.h>

static _Thread_local const _Atomic bool *unwanted;

bool lupe_unwanted(void) {
  return unwanted && atomic_load_explicit(unwanted, memory_order_relaxed);
}

void lupe_unwanted_by(const _Atomic bool *flag) {
  unwanted = flag;
}
