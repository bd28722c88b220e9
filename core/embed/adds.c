#include "core/embed/adds.h"

#include <ctype.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/embed/error.h"
#include "core/embed/link.h"

enum { FILES_MAX = 64, TEXT_MAX = 64 << 10, NAME_MAX_BYTES = 64 };

typedef struct add {
  struct add *next;
  lupe_embedded_op op;
  const char *name, *text; /* behind the struct */
} add;

/* Each change is the store of one pointer: in a child that was forked amid one the list is whole. */
static struct {
  pthread_mutex_t lock; /* held while the runtime is asked: additions come one after the other */
  add *first;
  bool live; /* there is a runtime, which has all of them */
} adds = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The link that points to what was added under this name, or to the end. */
static add **place_of(lupe_embedded_op op, const char *name, size_t *count) {
  add **found = NULL, **at = &adds.first;
  for (*count = 0; *at; at = &(*at)->next, ++*count) {
    if ((*at)->op == op && strcmp((*at)->name, name) == 0) found = at;
  }
  return found ? found : at;
}

static add *copy_of(lupe_embedded_op op, const char *name, const char *text) {
  size_t name_bytes = strlen(name) + 1, text_bytes = strlen(text) + 1;
  add *a = malloc(sizeof *a + name_bytes + text_bytes);
  if (!a) return NULL;
  char *copy = (char *)(a + 1);
  *a = (add){
      .op = op, .name = memcpy(copy, name, name_bytes), .text = memcpy(copy + name_bytes, text, text_bytes)};
  return a;
}

/* "queue_depth.lua", or of a module "queue" and "shop.queue". */
static bool is_name(const char *name, bool is_file) {
  size_t bytes = strlen(name);
  if (bytes == 0 || bytes > NAME_MAX_BYTES) return false;
  for (const char *p = name; *p; p++) {
    if (!isalnum((unsigned char)*p) && !strchr("_-.", *p)) return false;
  }
  bool ends_in_lua = bytes > 4 && strcmp(name + bytes - 4, ".lua") == 0;
  return name[0] != '.' && ends_in_lua == is_file;
}

static lupe_status send(lupe_embedded_op op, const char *name, const char *text) {
  const char *const texts[] = {name, text};
  return lupe__link_call(op, texts, 2, NULL);
}

static lupe_status keep(lupe_embedded_op op, const char *name, const char *text) {
  size_t count;
  add **place = place_of(op, name, &count), *former = *place;
  if (!former && count >= FILES_MAX) {
    return lupe__fail(LUPE_EFULL, "%s: at most %d rules, routes and modules can be added", name, FILES_MAX);
  }
  add *fresh = copy_of(op, name, text);
  if (!fresh) return lupe__fail(LUPE_ENOMEM, "%s: no memory to keep it", name);
  lupe_status status = adds.live ? send(op, name, text) : LUPE_OK;
  if (status != LUPE_OK) {
    free(fresh);
    return status;
  }
  fresh->next = former ? former->next : NULL;
  *place = fresh;
  free(former);
  return LUPE_OK;
}

static lupe_status add_file(lupe_embedded_op op, const char *name, const char *text) {
  bool is_file = op != LUPE_EMBEDDED_ADD_MODULE;
  if (!name || !is_name(name, is_file)) {
    return lupe__fail(LUPE_EINVAL,
                      "name is \"%.100s\", expected such as \"%s\": letters, digits, '_', '-', '.', "
                      "at most %d%s",
                      name ? name : "", is_file ? "queue_depth.lua" : "queue", NAME_MAX_BYTES,
                      is_file ? "" : "; a module is named without \".lua\"");
  }
  if (!text) return lupe__fail(LUPE_EINVAL, "%s: text is NULL, expected that of a file of Lua", name);
  if (strnlen(text, TEXT_MAX + 1) > TEXT_MAX) {
    return lupe__fail(LUPE_EINVAL, "%s: the text has more than %d bytes", name, TEXT_MAX);
  }
  pthread_mutex_lock(&adds.lock);
  lupe_status status = keep(op, name, text);
  pthread_mutex_unlock(&adds.lock);
  return status;
}

lupe_status lupe_add_rule(const char *name, const char *text) {
  return add_file(LUPE_EMBEDDED_ADD_RULE, name, text);
}

lupe_status lupe_add_route(const char *name, const char *text) {
  return add_file(LUPE_EMBEDDED_ADD_ROUTE, name, text);
}

lupe_status lupe_add_module(const char *name, const char *text) {
  return add_file(LUPE_EMBEDDED_ADD_MODULE, name, text);
}

lupe_status lupe__adds_send(void) {
  lupe_status status = LUPE_OK;
  pthread_mutex_lock(&adds.lock);
  for (int pass = 0; pass < 2; pass++) { /* modules first: the others require them */
    for (const add *a = adds.first; a && status == LUPE_OK; a = a->next) {
      if ((a->op == LUPE_EMBEDDED_ADD_MODULE) == (pass == 0)) status = send(a->op, a->name, a->text);
    }
  }
  adds.live = status == LUPE_OK;
  pthread_mutex_unlock(&adds.lock);
  return status;
}

void lupe__adds_end(void) {
  pthread_mutex_lock(&adds.lock);
  adds.live = false;
  pthread_mutex_unlock(&adds.lock);
}

void lupe__adds_forget(void) {
  adds.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
  adds.live = false;
}
