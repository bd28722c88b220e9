/* start.c -- lupe_start and lupe_stop: one lupe in a process, and what it is doing. */
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/agent/agent.h"
#include "core/embed/error.h"
#include "core/embed/link.h"
#include "core/embed/start.h"

enum { STOP_MS = 5000 };

typedef enum phase { STOPPED, STARTING, RUNNING, STOPPING } phase;

static struct {
  pthread_mutex_t lock;
  phase phase;
} front = {.lock = PTHREAD_MUTEX_INITIALIZER};

static phase change(phase from, phase to) {
  pthread_mutex_lock(&front.lock);
  phase before = front.phase;
  if (before == from) front.phase = to;
  pthread_mutex_unlock(&front.lock);
  return before;
}

static lupe_status start(const lupe_options *o) {
  size_t count = 0;
  lupe__reply reply;
  while (o->settings && o->settings[count]) count++;
  lupe_status status = lupe__link_open(LUPE_MODE_IN_PROCESS);
  if (status != LUPE_OK) return status;
  status = lupe__link_call(LUPE_EMBEDDED_START, o->settings, count, &reply);
  if (status != LUPE_OK) goto no_runtime;
  status = lupe_agent_start(reply.texts[0], false);
  lupe__reply_clear(&reply);
  if (status == LUPE_OK) return LUPE_OK;
  lupe__fail(status, "the agent cannot be started: %s", lupe_status_text(status));
no_runtime:
  lupe__link_close(STOP_MS);
  return status;
}

lupe_status lupe_start(const lupe_options *options) {
  static const lupe_options usual = {.size = sizeof usual};
  if (change(STOPPED, STARTING) != STOPPED) return lupe__fail(LUPE_EINUSE, "lupe runs in this process already");
  lupe_status status = start(options ? options : &usual);
  change(STARTING, status == LUPE_OK ? RUNNING : STOPPED);
  return status;
}

lupe_status lupe_stop(void) {
  if (change(RUNNING, STOPPING) != RUNNING) return lupe__fail(LUPE_ENOENT, "lupe does not run in this process");
  lupe_agent_stop();
  bool ended = lupe__link_close(STOP_MS);
  change(STOPPING, STOPPED);
  if (!ended) return lupe__fail(LUPE_EIO, "lupe's runtime has not ended within %d s", STOP_MS / 1000);
  return LUPE_OK;
}

lupe_status lupe__may_call(void) {
  pthread_mutex_lock(&front.lock);
  phase now = front.phase;
  pthread_mutex_unlock(&front.lock);
  if (now != RUNNING) return lupe__fail(LUPE_ENOENT, "lupe does not run in this process: call lupe_start first");
  return LUPE_OK;
}
