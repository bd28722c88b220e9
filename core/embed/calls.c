/* calls.c -- what lupe sees, asked of the runtime. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/embed/error.h"
#include "core/embed/link.h"
#include "core/embed/start.h"

/* The first text of the answer, for the caller to free. */
static lupe_status ask(lupe_embedded_op op, const char *argument, char **out) {
  lupe__reply reply;
  if (!out) return lupe__fail(LUPE_EINVAL, "there is no place for the result: the out-pointer is NULL");
  lupe_status status = lupe__may_call();
  if (status == LUPE_OK) status = lupe__link_call(op, &argument, 1, &reply);
  if (status != LUPE_OK) return status;
  char *copy = strdup(reply.texts[0]); /* by this thread: it is the program's memory */
  lupe__reply_clear(&reply);
  if (!copy) return lupe__fail(LUPE_ENOMEM, "no memory for the result");
  *out = copy;
  return LUPE_OK;
}

lupe_status lupe_report(char **out_json) {
  char own[16];
  snprintf(own, sizeof own, "%d", (int)getpid());
  return ask(LUPE_EMBEDDED_REPORT, own, out_json);
}

lupe_status lupe_evaluate(const char *rule_id, char **out_json) {
  if (!rule_id) return lupe__fail(LUPE_EINVAL, "rule_id is NULL, expected such as \"leak.steady-growth\"");
  return ask(LUPE_EMBEDDED_EVALUATE, rule_id, out_json);
}

/* What is known of the working folder is known here: the runtime may be another process. */
static lupe_status absolute(const char *path, char out[PATH_MAX]) {
  if (!path || !*path) return lupe__fail(LUPE_EINVAL, "path is empty, expected that of a file");
  char folder[PATH_MAX] = "";
  if (*path != '/' && !getcwd(folder, sizeof folder)) {
    return lupe__fail(LUPE_EIO, "the working folder cannot be told, so \"%s\" names no file", path);
  }
  size_t room = strlen(folder) + strlen(path) + 2;
  if (room > PATH_MAX) return lupe__fail(LUPE_EINVAL, "path has more than %d bytes", PATH_MAX - 1);
  stpcpy(stpcpy(stpcpy(out, folder), *path == '/' ? "" : "/"), path);
  return LUPE_OK;
}

lupe_status lupe_save_snapshot(const char *path) {
  char whole[PATH_MAX];
  const char *text = whole;
  lupe_status status = lupe__may_call();
  if (status == LUPE_OK) status = absolute(path, whole);
  if (status != LUPE_OK) return status;
  return lupe__link_call(LUPE_EMBEDDED_SNAPSHOT, &text, 1, NULL);
}

lupe_status lupe_get(const char *path, int *out_http_status, char **out_body) {
  lupe__reply reply;
  if (!path || *path != '/') {
    return lupe__fail(LUPE_EINVAL, "path is \"%s\", expected such as \"/api/profiling/memory\"",
                      path ? path : "");
  }
  if (!out_body) return lupe__fail(LUPE_EINVAL, "there is no place for the body: out_body is NULL");
  lupe_status status = lupe__may_call();
  if (status == LUPE_OK) status = lupe__link_call(LUPE_EMBEDDED_GET, &path, 1, &reply);
  if (status != LUPE_OK) return status;
  char *body = strdup(reply.texts[1]);
  int http_status = atoi(reply.texts[0]);
  lupe__reply_clear(&reply);
  if (!body) return lupe__fail(LUPE_ENOMEM, "no memory for the body");
  if (out_http_status) *out_http_status = http_status;
  *out_body = body;
  return LUPE_OK;
}
