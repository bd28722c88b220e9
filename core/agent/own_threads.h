/* own_threads.h -- lupe's threads in this process: the agent's two, and those of an embedded runtime that
 * have been adopted. No clock samples them. The list is in the wiped page, hence empty in forked children.
 * After lupe_wiped_create; thread: any, handlers too. */
#ifndef LUPE_AGENT_OWN_THREADS_H
#define LUPE_AGENT_OWN_THREADS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/agent/wiped.h"
#include "core/lupe.h"

/* Puts a thread into one of the agent's two places, or takes it away (0). */
void lupe_own_threads_set(size_t place, pid_t tid);

/* LUPE_EFULL: LUPE_OWN_ADOPTED_MAX threads that live are there already. Once more is a no-op. */
lupe_status lupe_own_threads_adopt(pid_t tid);
/* False: it is not there. */
bool lupe_own_threads_release(pid_t tid);

bool lupe_own_threads_have(pid_t tid);

/* Returns how many there are. */
size_t lupe_own_threads_list(pid_t out[LUPE_OWN_THREADS]);

/* How many of those that have been adopted live. */
size_t lupe_own_threads_adopted(void);

/* Whether the thread in that place lives. Makes a system call. */
bool lupe_own_threads_lives(size_t place);

/* Threads that are lupe's without being in the list, counted up and down. */
void lupe_own_threads_expect(int change);
size_t lupe_own_threads_expected(void);

/* Changes whenever the list does. */
uint32_t lupe_own_threads_changes(void);

#endif
