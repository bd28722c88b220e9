#include "core/agent/session.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/agent/heap.h"
#include "core/agent/heap_pages.h"
#include "core/agent/marks.h"
#include "core/agent/own_maps.h"
#include "core/clock.h"
#include "core/wire/channel.h"
#include "core/wire/ring.h"

enum {
  SEND_WAIT_MS = 1000,
  CONNECT_ATTEMPTS = 20, /* while the runtime's queue is full */
  CONNECT_PAUSE_MS = 2,
  FIGURES_MIN_MS = 50,
  FIGURES_MAX_MS = 60000,
  CPU_HZ_MAX = 1000,
  WALL_HZ_MAX = 100,
};

int64_t lupe_session_now_ms(void) {
  return lupe_clock_ns(CLOCK_MONOTONIC) / 1000000;
}

/* The first three numbers are taken by something that cannot be written: a library's message to "stderr"
 * must not reach our socket. */
lupe_status lupe_session_own_descriptors(void) {
  if (close_range(0, ~0U, CLOSE_RANGE_UNSHARE) != 0) return LUPE_EUNSUPPORTED;
  int fd;
  do {
    fd = memfd_create("lupe-nothing", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) != 0) {
      return LUPE_EUNSUPPORTED;
    }
  } while (fd < 2);
  return LUPE_OK;
}

lupe_status lupe_session_connect(lupe_session *se, const char *path) {
  lupe_status status = LUPE_EAGAIN;
  for (int i = 0; status == LUPE_EAGAIN && i < CONNECT_ATTEMPTS; i++) {
    if (i > 0) poll(NULL, 0, CONNECT_PAUSE_MS);
    status = lupe_channel_connect(path, &se->socket);
  }
  if (status != LUPE_OK) return status;
  pid_t pid;
  uid_t uid;
  status = lupe_channel_peer(se->socket, &pid, &uid);
  if (status == LUPE_OK && uid != geteuid() && uid != 0) status = LUPE_EPERM;
  return status;
}

/* Anything but LUPE_OK: the runtime is gone, or has not read for too long. */
static lupe_status say(lupe_session *se, uint32_t type, const void *body, size_t bytes, int pass_fd) {
  lupe_status status = lupe_channel_send(se->socket, type, body, bytes, pass_fd);
  if (status == LUPE_EAGAIN) {
    struct pollfd room = {.fd = se->socket, .events = POLLOUT};
    poll(&room, 1, SEND_WAIT_MS);
    status = lupe_channel_send(se->socket, type, body, bytes, pass_fd);
  }
  return status;
}

static lupe_status send_maps(lupe_session *se) {
  int maps = lupe_own_maps_open();
  if (maps < 0) return LUPE_OK; /* no /proc: stacks stay addresses */
  lupe_status status = say(se, LUPE_MAPS, NULL, 0, maps);
  close(maps);
  return status;
}

/* Where there is no memory for them, spans are not counted. */
static lupe_status send_marks(lupe_session *se) {
  int fd;
  if (lupe_marks_open(&fd) != LUPE_OK) return LUPE_OK;
  lupe_status status = say(se, LUPE_MARKS, NULL, 0, fd);
  close(fd);
  return status;
}

lupe_status lupe_session_open(lupe_session *se, const lupe_hello *hello) {
  int fd;
  lupe_status status = lupe_segment_create(&fd, &se->segment);
  if (status != LUPE_OK) return status;
  status = say(se, LUPE_HELLO, hello, sizeof *hello, fd);
  close(fd);
  if (status == LUPE_OK) status = send_marks(se);
  if (status != LUPE_OK) return status;
  lupe_heap_arm(se->segment);
  lupe_heap_activate(true);
  return send_maps(se);
}

lupe_status lupe_session_seal(int fd) {
  return fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == 0 ? LUPE_OK
                                                                                               : LUPE_EIO;
}

/* A copy: the kernel shows nothing any more when the process is gone. */
static lupe_status send_last_maps(lupe_session *se) {
  lupe_status status = LUPE_OK;
  int maps = lupe_own_maps_open(), copy = memfd_create("lupe-maps", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  bool whole = maps >= 0 && copy >= 0 && lupe_own_maps_copy(maps, copy) == 0;
  if (whole && lupe_session_seal(copy) == LUPE_OK) status = say(se, LUPE_MAPS, NULL, 0, copy);
  if (maps >= 0) close(maps);
  if (copy >= 0) close(copy);
  return status;
}

void lupe_session_refresh(lupe_session *se) {
  lupe_allocator_figures figures;
  if (lupe_heap_read_figures(&figures) == LUPE_OK) lupe_segment_publish_figures(se->segment, &figures);
  atomic_store_explicit(&se->segment->counters.thread_cpu_ns,
                        (uint64_t)lupe_clock_ns(CLOCK_THREAD_CPUTIME_ID), memory_order_relaxed);
  lupe_marks_refresh();
}

/* With the allocator's figures of the same moment, for whoever compares the two. */
static lupe_status send_profile(lupe_session *se, uint64_t serial) {
  lupe_profile_reply reply = {.serial = serial, .time_ms = lupe_clock_ns(CLOCK_REALTIME) / 1000000};
  lupe_session_refresh(se);
  int64_t start_ns = lupe_clock_ns(CLOCK_MONOTONIC);
  int fd = memfd_create("lupe-profile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  reply.status = fd < 0 ? errno : lupe_heap_dump(fd);
  reply.elapsed_ns = (uint64_t)(lupe_clock_ns(CLOCK_MONOTONIC) - start_ns);
  if (reply.status == 0) {
    /* The runtime may map it: it must not change any more. */
    if (lupe_session_seal(fd) != LUPE_OK) {
      reply.status = errno;
    } else {
      atomic_fetch_add_explicit(&se->segment->counters.profiles, 1, memory_order_relaxed);
      atomic_fetch_add_explicit(&se->segment->counters.profile_ns, reply.elapsed_ns, memory_order_relaxed);
    }
  }
  lupe_status said = say(se, LUPE_PROFILED, &reply, sizeof reply, reply.status == 0 ? fd : -1);
  if (fd >= 0) close(fd);
  return said;
}

static uint32_t lower(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}

static void set_sampling(lupe_session *se, uint32_t cpu_hz, uint32_t wall_hz) {
  if (!se->enabled) cpu_hz = wall_hz = 0;
  lupe_sampler_change(&se->sampler, se->segment, lower(cpu_hz, CPU_HZ_MAX), lower(wall_hz, WALL_HZ_MAX));
}

static lupe_status on_welcome(lupe_session *se, const lupe_welcome *w) {
  if (w->version != LUPE_WIRE_VERSION) return LUPE_EVERSION;
  int64_t interval_ms = w->figures_interval_ms;
  if (interval_ms < FIGURES_MIN_MS) interval_ms = FIGURES_MIN_MS;
  if (interval_ms > FIGURES_MAX_MS) interval_ms = FIGURES_MAX_MS;
  se->figures_interval_ms = interval_ms;
  se->figures_due_ms = lupe_session_now_ms();
  se->enabled = w->enabled != 0;
  lupe_heap_activate(se->enabled);
  lupe_heap_arm(se->enabled ? se->segment : NULL);
  se->proof_at_exit = w->proof_at_exit != 0;
  se->exit_limits = w->proof;
  se->comes_back = w->comes_back != 0;
  set_sampling(se, w->cpu_hz, w->wall_hz);
  se->welcomed = true;
  return LUPE_OK;
}

/* ---- proofs ---- */

static lupe_proof_asked asked_for(lupe_session *se, uint64_t serial, const lupe_proof_limits *limits) {
  return (lupe_proof_asked){
      .serial = serial,
      .limits = *limits,
      .sample_period_bytes = se->has_profiles ? se->sample_period_bytes : 0,
      .own = se->own,
      .own_count = lupe_own_threads_list(se->own),
      .first_frame = se->first_frame,
  };
}

static lupe_status refuse_proof(lupe_session *se, uint64_t serial, lupe_proof_outcome outcome) {
  lupe_proof_reply reply = {
      .serial = serial, .outcome = outcome, .time_ms = lupe_clock_ns(CLOCK_REALTIME) / 1000000};
  return say(se, LUPE_PROVED, &reply, sizeof reply, -1);
}

static lupe_status answer_proof(lupe_session *se) {
  lupe_proof *p = &se->proof;
  if (p->phase != LUPE_PROOF_ENDED) return LUPE_OK;
  int fd = p->reply.outcome == LUPE_PROOF_COMPLETE ? p->block_fd : -1;
  atomic_fetch_add_explicit(&se->segment->counters.proof_cpu_ns, p->child_cpu_ns, memory_order_relaxed);
  lupe_status said = say(se, LUPE_PROVED, &p->reply, sizeof p->reply, fd);
  lupe_proof_clear(p);
  return said;
}

static lupe_status on_prove(lupe_session *se, const lupe_proof_request *r) {
  if (!se->enabled) return refuse_proof(se, r->serial, LUPE_PROOF_LEAVING);
  if (se->proof.phase != LUPE_PROOF_IDLE) return refuse_proof(se, r->serial, LUPE_PROOF_BUSY);
  lupe_proof_asked asked = asked_for(se, r->serial, &r->limits);
  lupe_proof_begin(&se->proof, &asked);
  return answer_proof(se);
}

int64_t lupe_session_proof_due_ms(const lupe_session *se) {
  return lupe_proof_due_ms(&se->proof);
}

lupe_status lupe_session_prove_on(lupe_session *se, int64_t now_ms) {
  lupe_proof_step(&se->proof, now_ms);
  return answer_proof(se);
}

static bool wants_last_proof(const lupe_session *se) {
  return se->proof_at_exit && se->enabled;
}

static int64_t longest_ms(const lupe_proof_limits *l) {
  return l->interval_ms + 2 * ((int64_t)l->max_ms + LUPE_PROOF_GRACE_MS);
}

/* What was asked for and is under way is given up. At exit the program waits. */
static lupe_status end_proofs(lupe_session *se, bool exiting) {
  lupe_proof_abandon(&se->proof);
  lupe_status said = answer_proof(se);
  if (said != LUPE_OK || !exiting || !wants_last_proof(se)) return said;
  lupe_proof_asked asked = asked_for(se, 0, &se->exit_limits);
  lupe_proof_begin(&se->proof, &asked);
  atomic_store(se->proves_until, lupe_session_now_ms() + longest_ms(&se->exit_limits));
  while (se->proof.phase != LUPE_PROOF_ENDED) {
    poll(NULL, 0, 1);
    lupe_proof_step(&se->proof, lupe_session_now_ms());
  }
  atomic_store(se->proves_until, 0);
  return answer_proof(se);
}

/* ---- commands ---- */

static bool is_decay(int32_t ms) {
  return ms >= LUPE_DECAY_SAME && ms <= LUPE_DECAY_MAX_MS;
}

/* EINPROGRESS: part of it. */
static int carry_out(lupe_session *se, const lupe_agent_command *c) {
  if (!se->enabled) return EPERM;
  switch (c->kind) {
    case LUPE_COMMAND_SAMPLING:
      set_sampling(se, c->cpu_hz, c->wall_hz);
      return 0;
    case LUPE_COMMAND_PURGE:
      return lupe_heap_purge(&se->arena);
    case LUPE_COMMAND_DECAY:
      if (!is_decay(c->dirty_decay_ms) || !is_decay(c->muzzy_decay_ms)) return EINVAL;
      return lupe_heap_set_decay(c->dirty_decay_ms, c->muzzy_decay_ms, &se->arena);
    default:
      return ENOSYS;
  }
}

lupe_status lupe_session_go_on(lupe_session *se) {
  const lupe_agent_command *c = &se->command;
  lupe_command_reply reply = {.serial = c->serial, .status = carry_out(se, c)};
  se->busy = reply.status == EINPROGRESS;
  if (se->busy) return LUPE_OK;
  reply.elapsed_ns = (uint64_t)(lupe_clock_ns(CLOCK_MONOTONIC) - se->command_ns);
  if (se->enabled && c->kind != LUPE_COMMAND_SAMPLING)
    lupe_session_refresh(se); /* who asks sees what it did */
  return say(se, LUPE_COMMANDED, &reply, sizeof reply, -1);
}

static lupe_status on_command(lupe_session *se, const lupe_agent_command *c) {
  se->command = *c;
  se->arena = 0;
  se->command_ns = lupe_clock_ns(CLOCK_MONOTONIC);
  return lupe_session_go_on(se);
}

lupe_status lupe_session_answer(lupe_session *se) {
  lupe_message m;
  union {
    lupe_welcome welcome;
    lupe_profile_request profile;
    lupe_agent_command command;
    lupe_proof_request proof;
  } body;
  lupe_status status = lupe_channel_receive(se->socket, &m, &body, sizeof body, NULL);
  if (status == LUPE_EAGAIN) return LUPE_OK;
  if (status != LUPE_OK) return status;
  if (m.type == LUPE_WELCOME && m.body_bytes == sizeof body.welcome) return on_welcome(se, &body.welcome);
  if (m.type == LUPE_PROFILE && m.body_bytes == sizeof body.profile) {
    return send_profile(se, body.profile.serial);
  }
  if (m.type == LUPE_COMMAND && m.body_bytes == sizeof body.command) return on_command(se, &body.command);
  if (m.type == LUPE_PROVE && m.body_bytes == sizeof body.proof) return on_prove(se, &body.proof);
  return LUPE_ECORRUPT;
}

void lupe_session_farewell(lupe_session *se, bool exiting) {
  lupe_sampler_end(&se->sampler);
  if (end_proofs(se, exiting) != LUPE_OK) return;
  if (se->enabled && se->has_profiles) {
    if (send_profile(se, 0) != LUPE_OK) return;
  } else if (se->enabled) {
    lupe_session_refresh(se);
    if (send_last_maps(se) != LUPE_OK) return;
  }
  say(se, LUPE_GOODBYE, NULL, 0, -1);
}

void lupe_session_close(lupe_session *se) {
  lupe_sampler_close(&se->sampler);
  lupe_proof_abandon(&se->proof);
  lupe_proof_clear(&se->proof);
  lupe_heap_restore();
  lupe_marks_close();
  if (se->socket >= 0) close(se->socket);
  se->socket = -1;
}
