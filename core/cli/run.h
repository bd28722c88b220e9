/* run.h -- `lupe run`: a program under the profiler, from its start to the report. */
#ifndef LUPE_CLI_RUN_H
#define LUPE_CLI_RUN_H

#include "core/cli/command.h"
#include "core/paths.h"
#include "core/script/vm.h"

/* Returns lupe's exit code: the program's own, 128+N when signal N ended it, 127 not found, 126 not
 * executable, 125 when lupe itself failed or `--require` refused. */
int lupe_run(lupe_vm *vm, const lupe_paths *paths, const lupe_command *command);

#endif
