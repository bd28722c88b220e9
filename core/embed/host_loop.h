/* host_loop.h -- a knock on the host's libuv loop: its functions are looked up where the program has them, so
 * that liblupe.so needs no libuv. */
#ifndef LUPE_EMBED_HOST_LOOP_H
#define LUPE_EMBED_HOST_LOOP_H

#include "core/lupe.h"

struct uv_loop_s;
typedef struct lupe__host_loop lupe__host_loop;

/* `knocked` will be called on the loop's thread, soon after each knock; several knocks may be one call. It
 * does not keep the loop alive. LUPE_EUNSUPPORTED: no libuv; LUPE_ENOMEM, LUPE_EIO; explained. Thread: the
 * loop's. */
lupe_status lupe__host_loop_open(lupe__host_loop **out, struct uv_loop_s *loop, void (*knocked)(void));
void lupe__host_loop_knock(lupe__host_loop *h); /* thread: any that has the program's descriptor table */
/* `knocked` is not called any more once this has returned. On the loop's thread its handle is closed at
 * once, and the loop needs one more turn to forget it; on another one this waits for the loop's thread to do
 * so, at most a second: a loop that does not run then finds the handle closing when it does. NULL is a
 * no-op. */
void lupe__host_loop_close(lupe__host_loop *h);

#endif
