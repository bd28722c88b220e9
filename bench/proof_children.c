/* proof_children.c -- watches the hidden children that a leak proof forks: their memory, or their end.
 * usage: proof_children memory PID MS
 *        proof_children kill PID COUNT SEED
 *
 * memory: until it is told to end (SIGTERM), reads every MS milliseconds what PID and its hidden children
 * have for themselves, shared pages divided among those who share them, and what the machine has left. Prints
 * the first reading and the worst, and for how long there was a child.
 *
 * kill: kills COUNT hidden children of PID, each 0 to 60 ms after it was first seen; those that end before
 * that do not count. Prints how many were seen and killed.
 *
 * Hidden are children whose exit signal is 0. Without PID it ends. */
#include "bench/load.h"

#include <dirent.h>
#include <signal.h>
#include <stdbool.h>

enum { CHILDREN_MAX = 16, KILL_WITHIN_US = 60000 };

static volatile sig_atomic_t told_to_end;

static void on_term(int number) {
  (void)number;
  told_to_end = 1;
}

/* The file's text, or "". Not for more threads than one. */
static const char *text_of(const char *format, int pid, int tid) {
  static char text[8192];
  char path[64];
  size_t n = 0;
  snprintf(path, sizeof path, format, pid, tid);
  FILE *file = fopen(path, "re");
  if (file) {
    n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
  }
  text[n] = '\0';
  return text;
}

/* Field 38 of stat: the signal that the parent gets; -1 where the process is gone. */
static int exit_signal_of(int pid) {
  const char *at = strrchr(text_of("/proc/%d/stat", pid, 0), ')');
  for (int field = 3; at && field <= 38; field++) at = strchr(at + 1, ' ');
  return at ? (int)strtol(at, NULL, 10) : -1;
}

static int hidden_children(int pid, int *found) {
  char path[64];
  int count = 0;
  snprintf(path, sizeof path, "/proc/%d/task", pid);
  DIR *tasks = opendir(path);
  if (tasks == NULL) return 0;
  for (struct dirent *task = readdir(tasks); task; task = readdir(tasks)) {
    char list[8192];
    if (task->d_name[0] == '.') continue;
    int tid = (int)strtol(task->d_name, NULL, 10);
    snprintf(list, sizeof list, "%s", text_of("/proc/%d/task/%d/children", pid, tid));
    for (char *word = strtok(list, " "); word; word = strtok(NULL, " ")) {
      int child = (int)strtol(word, NULL, 10);
      if (count < CHILDREN_MAX && exit_signal_of(child) == 0) found[count++] = child;
    }
  }
  closedir(tasks);
  return count;
}

static long long figure(const char *text, const char *name) {
  const char *at = strstr(text, name);
  return at ? strtoll(at + strlen(name), NULL, 10) * 1024 : 0;
}

static bool lives(int pid) {
  return kill(pid, 0) == 0;
}

static void pause_us(long us) {
  struct timespec pause = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
  nanosleep(&pause, NULL);
}

static void watch_memory(int pid, long ms) {
  long long first = -1, most = 0, available = -1, least = 0, seen = 0, looks = 0;
  uint64_t before_ns = load_now_ns(), with_child_ns = 0;
  while (!told_to_end && lives(pid)) {
    int children[CHILDREN_MAX], count = hidden_children(pid, children);
    long long own = figure(text_of("/proc/%d/smaps_rollup", pid, 0), "\nPss:"), sum = own;
    for (int i = 0; i < count; i++) sum += figure(text_of("/proc/%d/smaps_rollup", children[i], 0), "\nPss:");
    /* Where the child ended in between, the parent was still read as sharing with it: too little, not too
     * much. */
    long long left = figure(text_of("/proc/meminfo", 0, 0), "MemAvailable:");
    if (first < 0) first = sum;
    if (available < 0) available = least = left;
    if (sum > most) most = sum;
    if (left < least) least = left;
    uint64_t now_ns = load_now_ns();
    if (count > 0) with_child_ns += now_ns - before_ns;
    before_ns = now_ns;
    seen += count > 0;
    looks++;
    pause_us(ms * 1000);
  }
  printf(
      "{\"first_bytes\":%lld,\"most_bytes\":%lld,\"available_bytes\":%lld,\"least_available_bytes\":%lld,"
      "\"looks\":%lld,\"looks_with_child\":%lld,\"with_child_ms\":%.1f}\n",
      first, most, available, least, looks, seen, (double)with_child_ns / 1e6);
}

static void kill_some(int pid, long count, unsigned seed) {
  long killed = 0, seen = 0;
  int last = 0;
  while (killed < count && !told_to_end && lives(pid)) {
    int children[CHILDREN_MAX];
    if (hidden_children(pid, children) == 0 || children[0] == last) {
      pause_us(500);
      continue;
    }
    seen++;
    last = children[0];
    pause_us(rand_r(&seed) % KILL_WITHIN_US);
    if (exit_signal_of(last) == 0 && kill(last, SIGKILL) == 0) killed++;
  }
  printf("{\"seen\":%ld,\"killed\":%ld}\n", seen, killed);
}

int main(int argc, char **argv) {
  struct sigaction action = {.sa_handler = on_term};
  sigaction(SIGTERM, &action, NULL);
  if (argc == 4 && strcmp(argv[1], "memory") == 0) {
    watch_memory((int)strtol(argv[2], NULL, 10), strtol(argv[3], NULL, 10));
  } else if (argc == 5 && strcmp(argv[1], "kill") == 0) {
    kill_some((int)strtol(argv[2], NULL, 10), strtol(argv[3], NULL, 10),
              (unsigned)strtoul(argv[4], NULL, 10));
  } else {
    fputs("usage: proof_children memory PID MS | kill PID COUNT SEED\n", stderr);
    return 2;
  }
  return 0;
}
