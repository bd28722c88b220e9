/* lupe.h -- the public header: status codes and their texts.
 * C11 and C++ clean. Every fallible function of lupe returns a lupe_status and writes its results
 * through out-pointers, on success only. */
#ifndef LUPE_H
#define LUPE_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lupe_status {
  LUPE_OK = 0,
  LUPE_EINVAL,      /* an argument or an input is not of the documented form */
  LUPE_ENOMEM,      /* memory, or a configured bound, is used up */
  LUPE_EFULL,       /* a bounded queue is full; nothing was added */
  LUPE_EAGAIN,      /* nothing there now */
  LUPE_ECORRUPT,    /* data from another process breaks its format */
  LUPE_EVERSION,    /* the other side speaks another version of the wire */
  LUPE_ENOENT,      /* no such thing */
  LUPE_EPERM,       /* not allowed */
  LUPE_EIO,         /* the system refused; errno tells */
  LUPE_ENOSPC,      /* the disk is full */
  LUPE_EINUSE,      /* an address is taken */
  LUPE_ESCRIPT,     /* a Lua script failed; the message was logged */
  LUPE_EUNSUPPORTED /* this system or program cannot do it */
} lupe_status;

/* A short English text; never NULL, static. Thread: any. */
const char *lupe_status_text(lupe_status status);

#ifdef __cplusplus
}
#endif
#endif
