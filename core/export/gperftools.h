/* gperftools.h -- a snapshot in the formats of gperftools, for google-pprof, which does not read pprof's own:
 * heap profiles as text, CPU profiles as words, and the answers of its /pprof/symbol. Addresses are those of
 * address_space.h; of callers, as that tool expects it, the one behind the call.
 * google-pprof asks for all symbols in one request of 19 bytes each, so a profile with more than
 * LUPE_GPERFTOOLS_ADDRESSES different ones has the functions' beginnings in their place.
 * Blocks on the modules' files: for a thread of the pool. */
#ifndef LUPE_EXPORT_GPERFTOOLS_H
#define LUPE_EXPORT_GPERFTOOLS_H

#include <stddef.h>

#include "core/lupe.h"
#include "core/store/snapshot.h"

enum { LUPE_GPERFTOOLS_ADDRESSES = 3400 }; /* what an HTTP body of 64 KiB holds */

/* Results are malloc'd and the caller's. LUPE_ENOMEM. */
lupe_status lupe_gperftools_heap(const lupe_snapshot *s, char **out, size_t *out_bytes);
lupe_status lupe_gperftools_cpu(const lupe_snapshot *s, char **out, size_t *out_bytes);

/* `addresses`: hexadecimal numbers with anything between them. One line "0xADDRESS\tNAME" for each that is in
 * the snapshot; of a call that was inlined the name is "FUNCTION--INLINED". */
lupe_status lupe_gperftools_symbols(const lupe_snapshot *s, const char *addresses, size_t bytes, char **out,
                                    size_t *out_bytes);

#endif
