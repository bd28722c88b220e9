/* start.h -- a runtime by the command line's settings: what `lupe run` and `lupe serve` begin with. */
#ifndef LUPE_CLI_START_H
#define LUPE_CLI_START_H

#include "core/cli/command.h"
#include "core/paths.h"
#include "core/runtime.h"
#include "core/script/vm.h"

/* The options that the settings give; the caller may add to them. Borrows from all its arguments. */
lupe_runtime_options lupe_start_options(const lupe_command *command, uv_loop_t *loop, lupe_vm *vm,
                                        const lupe_paths *paths);
/* LUPE_OK, or what is wrong was said on stderr. */
lupe_status lupe_start_runtime(lupe_runtime **out, const lupe_runtime_options *options);
/* Says on stderr where it answers. */
void lupe_start_announce(const lupe_command *command, const lupe_runtime *runtime);

#endif
