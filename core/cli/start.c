#include "core/cli/start.h"

#include <stdio.h>
#include <string.h>

lupe_runtime_options lupe_start_options(const lupe_command *command, uv_loop_t *loop, lupe_vm *vm,
                                        const lupe_paths *paths) {
  return (lupe_runtime_options){
      .loop = loop,
      .vm = vm,
      .paths = paths,
      .host = command->host,
      .port = command->port,
      .port_given = command->port_given,
      .heap_interval_ms = command->heap_interval_ms,
      .cpu_hz = command->cpu_hz,
      .wall_hz = command->wall_hz,
      .memory_interval_ms = command->memory_interval_ms,
  };
}

lupe_status lupe_start_runtime(lupe_runtime **out, const lupe_runtime_options *options) {
  char error[LUPE_VM_ERROR_BYTES];
  lupe_status status = lupe_runtime_create(out, options, error, sizeof error);
  if (status != LUPE_OK) fprintf(stderr, "lupe: %s\n", error);
  return status;
}

void lupe_start_announce(const lupe_command *command, const lupe_runtime *runtime) {
  bool ipv6 = strchr(command->host, ':') != NULL;
  fprintf(stderr, "lupe: http://%s%s%s:%u/api/profiling/memory\n", ipv6 ? "[" : "", command->host,
          ipv6 ? "]" : "", lupe_runtime_port(runtime));
}
