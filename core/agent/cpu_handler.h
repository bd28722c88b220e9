/* cpu_handler.h -- SIGPROF's handler: what happens on a thread of the program when its CPU timer expires.
 * Takes no lock, allocates nothing, calls no loader and cannot fault; errno stays. What it needs of the stack
 * that it finds itself on depends on what is left there. */
#ifndef LUPE_AGENT_CPU_HANDLER_H
#define LUPE_AGENT_CPU_HANDLER_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

/* Installed by cpu.c, with SA_SIGINFO and all signals blocked. Thread: any, handler. */
void lupe_cpu_handler(int number, siginfo_t *info, void *context);

/* Whether a SIGPROF comes from a timer of ours, of this process. Thread: any. */
bool lupe_cpu_handler_expects(const siginfo_t *info);

/* What an alternate signal stack must have for it at least, the kernel's part included. Thread: any. */
size_t lupe_cpu_handler_stack_bytes(void);

/* Before it is installed. Thread: the agent's. */
void lupe_cpu_handler_prepare(void);

/* What becomes of signals that are not ours: ignored, else the process ends of them. Thread: any. */
void lupe_cpu_handler_ignore_others(bool ignore);

#endif
