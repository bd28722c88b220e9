/* command.h -- the command line, understood by lua/lupe/cli.lua, as C needs it.
 * The effective configuration stays in the vm, under LUPE_CONFIG_KEY. */
#ifndef LUPE_CLI_COMMAND_H
#define LUPE_CLI_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/paths.h"
#include "core/script/vm.h"

#define LUPE_OFFLINE_KEY "lupe.offline" /* in the Lua registry: what lua/lupe/cli.lua understood */

typedef struct lupe_command {
  char **argv; /* of the program to run, NULL-terminated; points into main's. NULL: there is nothing to run */
  bool serve;  /* there is no program: they come by themselves */
  bool offline; /* a command that runs no program: what was understood is under LUPE_OFFLINE_KEY */
  char *text;   /* neither: this is printed instead, help to stdout, an error to stderr */
  int exit_code;

  char host[64]; /* the settings that C acts on */
  uint16_t port;
  bool port_given, profile, require;
  bool end_wanted; /* there is something to do at the end: a report, a recording */
  char
      *output; /* file for the report, NULL: stderr; offline, for what the command has to say, NULL: stdout */
  double duration_s; /* 0: until it ends by itself */
  uint32_t heap_interval_ms, memory_interval_ms;
  uint32_t cpu_hz, wall_hz;
  char *socket; /* of the agents, for `serve` */
  char *users;  /* whose programs may connect to it; NULL: lupe's own user's */
} lupe_command;

/* LUPE_OK also for a command line that is wrong (argv NULL, text, exit_code). LUPE_ESCRIPT, LUPE_ENOMEM with
 * `error`. */
lupe_status lupe_command_parse(lupe_vm *vm, int argc, char **argv, lupe_command *out, char *error,
                               size_t error_bytes);
void lupe_command_clear(lupe_command *c);

/* The environment to start the program in (lua/lupe/launch.lua): NULL-terminated, freed by
 * lupe_command_free_environment. What contradicts it is said on stderr. LUPE_EINVAL: the agent cannot be
 * preloaded, `error` says why. */
lupe_status lupe_command_environment(lupe_vm *vm, const lupe_paths *paths, const char *socket, char ***out,
                                     char *error, size_t error_bytes);
void lupe_command_free_environment(char **environment);

#endif
