/* gzip.h -- compresses a stream of pieces into one block of memory, in gzip's format, as fast as zlib can.
 * The same pieces give the same bytes: no time stands in it. Owner and thread: its maker. */
#ifndef LUPE_EXPORT_GZIP_H
#define LUPE_EXPORT_GZIP_H

#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"

typedef struct lupe_gzip lupe_gzip;

lupe_status lupe_gzip_create(lupe_gzip **out); /* LUPE_ENOMEM */
void lupe_gzip_free(lupe_gzip *z);             /* NULL is a no-op */

/* Where memory runs out that is told by finish. */
void lupe_gzip_write(lupe_gzip *z, const void *bytes, size_t count);

/* Ends the stream, once; *out is malloc'd and the caller's. LUPE_ENOMEM. */
lupe_status lupe_gzip_finish(lupe_gzip *z, uint8_t **out, size_t *out_bytes);

#endif
