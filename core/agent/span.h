/* span.h -- lupe_span_begin and lupe_span_end of lupe.h. Each thread that ends spans has a table of the
 * blocks it counts in, one for each name, made by the system and not by malloc; when the thread ends, the
 * blocks go on with others. */
#ifndef LUPE_AGENT_SPAN_H
#define LUPE_AGENT_SPAN_H

#include <stdbool.h>

/* Before a session begins: from now on threads can have tables. False: the program has used up all keys of
 * thread-specific data. Thread: the agent's. */
bool lupe_spans_prepare(void);

#endif
