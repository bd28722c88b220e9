#include "core/embed/about.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/agent/agent.h"
#include "core/embed/error.h"
#include "core/embed/link.h"
#include "core/embed/start.h"

static const char *const missing[] = {
    [LUPE_HEAP_ON] = "",
    [LUPE_HEAP_NO_JEMALLOC] =
        "the program does not use jemalloc: link it to libjemalloc, or start it with "
        "LD_PRELOAD=libjemalloc.so.2",
    [LUPE_HEAP_NO_PROFILING] =
        "this jemalloc was built without profiling (--enable-prof): use one that has it, as "
        "Debian's libjemalloc2 does",
    [LUPE_HEAP_PROF_DISABLED] =
        "jemalloc's profiling is off in this process, and cannot be switched on later: set "
        "MALLOC_CONF=prof:true,prof_active:false,lg_prof_sample:19 before the program starts, or define the "
        "same text in it as const char *malloc_conf",
    [LUPE_HEAP_NO_HOOK] = "",
    [LUPE_HEAP_SWITCHED_OFF] = "lupe was told to leave the allocator alone (allocator=system)",
};

const char *lupe__heap_missing(const lupe_heap_info *heap) {
  if ((unsigned)heap->state >= sizeof missing / sizeof missing[0]) return "the agent's state is not known";
  return missing[heap->state];
}

/* `text` as JSON, cut where there is no room: what is told here is ours, but for a path. */
static void quote(char *out, size_t bytes, const char *text) {
  size_t at = 0;
  out[at++] = '"';
  for (; *text && at + 8 < bytes; text++) {
    unsigned char c = (unsigned char)*text;
    if (c == '"' || c == '\\') out[at++] = '\\';
    if (c < 0x20) {
      at += (size_t)snprintf(out + at, bytes - at, "\\u%04x", c);
    } else {
      out[at++] = (char)c;
    }
  }
  out[at++] = '"';
  out[at] = '\0';
}

/* Of a daemon nothing is known here but where it is. */
static lupe_status about_daemon(const lupe_heap_info *heap, char **out) {
  char socket[512], allocator[64], reason[512], *text;
  quote(socket, sizeof socket, lupe__socket());
  quote(allocator, sizeof allocator, heap->allocator);
  quote(reason, sizeof reason, lupe__heap_missing(heap));
  bool lacks_heap = *lupe__heap_missing(heap) != '\0';
  int n = asprintf(&text,
                   "{\"mode\":\"daemon\",\"version\":\"" LUPE_VERSION
                   "\",\"url\":null,\"socket\":%s,\"pid\":null,\"allocator\":%s,\"unavailable\":[%s%s%s]}",
                   socket, allocator, lacks_heap ? "{\"what\":\"heap\",\"reason\":" : "",
                   lacks_heap ? reason : "", lacks_heap ? "}" : "");
  if (n < 0) return lupe__fail(LUPE_ENOMEM, "no memory for the result");
  *out = text;
  return LUPE_OK;
}

lupe_status lupe_about(char **out_json) {
  if (!out_json) return lupe__fail(LUPE_EINVAL, "there is no place for the result: out_json is NULL");
  lupe_status status = lupe__may_call();
  const lupe_heap_info *heap = lupe_agent_heap();
  if (status == LUPE_EUNSUPPORTED) return about_daemon(heap, out_json);
  if (status != LUPE_OK) return status;
  char own[16];
  snprintf(own, sizeof own, "%d", (int)getpid());
  const char *const texts[] = {lupe__mode_name(), own, heap->allocator, lupe__heap_missing(heap)};
  lupe__reply reply;
  status = lupe__link_call(LUPE_EMBEDDED_ABOUT, texts, 4, &reply);
  if (status != LUPE_OK) return status;
  *out_json = strdup(reply.texts[0]);
  lupe__reply_clear(&reply);
  return *out_json ? LUPE_OK : lupe__fail(LUPE_ENOMEM, "no memory for the result");
}
