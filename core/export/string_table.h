/* string_table.h -- gives every distinct text a number, in the order in which they come; "" is 0.
 * Texts are borrowed and must outlive the table. Owner and thread: its maker. */
#ifndef LUPE_EXPORT_STRING_TABLE_H
#define LUPE_EXPORT_STRING_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"

/* Embedded in its owner; all zero is empty. */
typedef struct lupe_string_table {
  const char **texts; /* by number */
  uint32_t *slots;    /* number + 1; a power of two, at least twice as many as texts */
  size_t count, capacity;
} lupe_string_table;

lupe_status lupe_string_table_init(lupe_string_table *t); /* LUPE_ENOMEM */
void lupe_string_table_clear(lupe_string_table *t);       /* frees what it holds */

/* Its number; UINT32_MAX where memory ran out. */
uint32_t lupe_string_table_number(lupe_string_table *t, const char *text);

#endif
