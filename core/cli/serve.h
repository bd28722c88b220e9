/* serve.h -- `lupe serve`: a runtime without a program of its own. Programs connect to its socket, come and
 * go; SIGTERM and SIGINT end it, and leave them as they are. */
#ifndef LUPE_CLI_SERVE_H
#define LUPE_CLI_SERVE_H

#include "core/cli/command.h"
#include "core/paths.h"
#include "core/script/vm.h"

/* Returns lupe's exit code: 0 where it was told to end, 125 where it could not begin. */
int lupe_serve(lupe_vm *vm, const lupe_paths *paths, const lupe_command *command);

#endif
