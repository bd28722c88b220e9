/* users.h -- the users that a setting names. */
#ifndef LUPE_CLI_USERS_H
#define LUPE_CLI_USERS_H

#include "core/lupe.h"
#include "core/store/session.h"

/* Names and numbers with commas between them, or "all"; NULL and "" are nobody. out->uids is malloc'd.
 * LUPE_EINVAL, explained in `error`: an unknown name, or lupe does not run as root, whom alone other users'
 * programs believe; LUPE_ENOMEM. Thread: any, one at a time (it asks the system's user database). */
lupe_status lupe_users_parse(const char *text, lupe_peers *out, char *error, size_t error_bytes);

#endif
