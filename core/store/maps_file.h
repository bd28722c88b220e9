/* maps_file.h -- the text of /proc/PID/maps behind a descriptor that a profiled program sent: its own file
 * there, or a copy in memory. Nothing about the descriptor is believed.
 * Thread: any. Reads by pread, so that the descriptor's position does not matter. */
#ifndef LUPE_STORE_MAPS_FILE_H
#define LUPE_STORE_MAPS_FILE_H

#include <stdbool.h>

#include "core/lupe.h"
#include "core/store/address_map.h"

/* Whether it can be read without ever waiting for another program: *out_live tells that it is the kernel's
 * file, which changes as the process does. LUPE_EINVAL: it is neither that nor a file in memory. */
lupe_status lupe_maps_file_check(int fd, bool *out_live);

/* Takes the text in as a new reading of `map`. LUPE_ENOENT: it is empty, as when the process is gone;
 * LUPE_ECORRUPT: it is no such text, or more than 16 MiB; LUPE_ENOMEM, LUPE_EIO. On an error the map
 * stays as it was. */
lupe_status lupe_maps_file_read(int fd, lupe_address_map *map);

#endif
