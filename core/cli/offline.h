/* offline.h -- the commands that run no program: Lua does them (lua/lupe/offline.lua), over a loop with the
 * worker process. */
#ifndef LUPE_CLI_OFFLINE_H
#define LUPE_CLI_OFFLINE_H

#include "core/cli/command.h"
#include "core/paths.h"
#include "core/script/vm.h"

/* Returns lupe's exit code: the command's own, 125 when lupe itself failed or its text could not be written.
 */
int lupe_offline(lupe_vm *vm, const lupe_paths *paths, const lupe_command *command);

#endif
