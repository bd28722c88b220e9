#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cli/command.h"
#include "core/cli/offline.h"
#include "core/cli/run.h"
#include "core/cli/serve.h"
#include "core/embed/embedded.h"
#include "core/paths.h"
#include "core/script/vm.h"
#include "core/script/worker_main.h"

enum { EXIT_BROKEN = 125 };

/* Where a standard stream is closed, its number would go to the next file that is opened, and messages into
 * that file. The program gets them closed as ever. */
static int fill_standard_streams(void) {
  int fd;
  do fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd < 0) return -1;
  close(fd);
  return 0;
}

/* The link's two ends, as numbers of descriptors. It ends as the program does, by theirs. */
static int serve_embedding_program(const char *calls, const char *events) {
  const lupe_embedded given = {.calls = atoi(calls), .events = atoi(events)};
  sigset_t all;
  sigfillset(&all); /* what the terminal sends is the program's */
  pthread_sigmask(SIG_SETMASK, &all, NULL);
  fcntl(given.calls, F_SETFD, FD_CLOEXEC);
  fcntl(given.events, F_SETFD, FD_CLOEXEC);
  lupe_embedded_main(&given);
  return 0;
}

int main(int argc, char **argv) {
  lupe_paths paths;
  const char *missing;
  if (fill_standard_streams() != 0) return EXIT_BROKEN;
  if (lupe_paths_find(&paths, &missing) != LUPE_OK) {
    fprintf(stderr, "lupe: this installation is not whole: %s cannot be found\n", missing);
    return EXIT_BROKEN;
  }
  /* How lupe starts its own process for rules; not for people. */
  if (argc == 2 && strcmp(argv[1], "worker") == 0) return lupe_worker_main(paths.lua);
  /* Likewise, the helper of a program that lupe is embedded in. */
  if (argc == 4 && strcmp(argv[1], "embedded") == 0) return serve_embedding_program(argv[2], argv[3]);

  char error[LUPE_VM_ERROR_BYTES];
  lupe_vm *vm;
  lupe_status status = lupe_vm_create(&vm, paths.lua, 0);
  if (status != LUPE_OK) {
    fprintf(stderr, "lupe: no Lua state: %s\n", lupe_status_text(status));
    return EXIT_BROKEN;
  }
  lupe_command command = {0};
  int code = EXIT_BROKEN;
  if (lupe_command_parse(vm, argc, argv, &command, error, sizeof error) != LUPE_OK) {
    fprintf(stderr, "lupe: %s\n", error);
  } else if (command.argv) {
    code = lupe_run(vm, &paths, &command);
  } else if (command.serve) {
    code = lupe_serve(vm, &paths, &command);
  } else if (command.offline) {
    code = lupe_offline(vm, &paths, &command);
  } else {
    code = command.exit_code;
    if (command.text) fputs(command.text, code == 0 ? stdout : stderr);
  }
  lupe_command_clear(&command);
  lupe_vm_free(vm);
  return code;
}
