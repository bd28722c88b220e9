#include "core/store/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/store/process.h"
#include "core/wire/channel.h"
#include "core/wire/ring.h"

/* An agent that floods cannot keep the loop. */
enum {
  DRAIN_MAX_RECORDS = 65536, /* at a time: more than the ring can hold */
  RECEIVE_MAX_MESSAGES = 64, /* at a time: an honest agent has few under way */
  PROOFS_UNANSWERED_MAX = 2,
  LATE_MS = 2000, /* before the last drain: a record is written some time after what it tells of, a second of
                     standing still among that */
};

struct lupe_session {
  int fd;
  pid_t pid; /* as the kernel says, not as the agent does */
  uid_t uid;
  lupe_aggregator *aggregator;
  lupe_welcome welcome;
  lupe_session_events events;
  lupe_target *target;
  lupe_target_sampling sampling; /* as the target has it */
  double drained_ms;             /* when the ring was emptied last */
  lupe_ring_reader *reader;
  bool profiles;
  lupe_memory_figures last;        /* what /proc said; time_ms 0: nothing yet */
  uint64_t asked;                  /* for a heap profile that has not come: its serial; 0: none */
  bool rates_asked;                /* for other rates, without an answer yet */
  uint32_t proofs_asked;           /* and not answered */
  uint64_t own_heap_bytes;         /* of lupe's threads in the process, at the last reading */
  uint64_t overdue;                /* a command that nobody waits for any more; 0: none */
  lupe_allocator_figures *figures; /* 4 KiB of scratch, kept off the stack */
};

static bool may_connect(const lupe_peers *peers, uid_t uid) {
  if (uid == geteuid()) return true;
  if (!peers || peers->anyone) return peers != NULL;
  for (size_t i = 0; i < peers->count; i++) {
    if (peers->uids[i] == uid) return true;
  }
  return false;
}

lupe_status lupe_session_create(lupe_session **out, int fd, lupe_aggregator *a, const lupe_welcome *welcome,
                                lupe_session_events events, const lupe_peers *peers) {
  pid_t pid;
  uid_t uid;
  lupe_status status = lupe_channel_peer(fd, &pid, &uid);
  if (status == LUPE_OK && !may_connect(peers, uid)) status = LUPE_EPERM;
  if (status != LUPE_OK) goto refused;

  status = LUPE_ENOMEM;
  lupe_session *s = calloc(1, sizeof *s);
  if (!s) goto refused;
  s->figures = malloc(sizeof *s->figures);
  if (!s->figures) goto no_figures;
  s->fd = fd;
  s->pid = pid;
  s->uid = uid;
  s->aggregator = a;
  s->welcome = *welcome;
  s->events = events;
  *out = s;
  return LUPE_OK;

no_figures:
  free(s);
refused:
  close(fd);
  return status;
}

void lupe_session_free(lupe_session *s) {
  if (!s) return;
  lupe_session_drain(s);
  if (s->target) lupe_target_died(s->target, lupe_unix_ms());
  lupe_ring_reader_free(s->reader);
  close(s->fd);
  free(s->figures);
  free(s);
}

/* What the agent sends as text is any bytes. */
static void copy_text(char *out, const char *text, size_t bytes) {
  size_t n = strnlen(text, bytes - 1);
  for (size_t i = 0; i < n; i++) out[i] = (char)(text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?');
  out[n] = '\0';
}

static lupe_status on_hello(lupe_session *s, const lupe_hello *hello, int segment_fd) {
  if (hello->version != LUPE_WIRE_VERSION) return LUPE_EVERSION;
  if (s->target || segment_fd < 0) return LUPE_ECORRUPT;
  lupe_ring_reader *reader;
  lupe_status status = lupe_ring_reader_create(&reader, segment_fd);
  if (status != LUPE_OK) return status;

  char name[256] = "?";
  uint64_t start_ticks = hello->start_ticks;
  if (hello->name[0]) {
    copy_text(name, hello->name, sizeof hello->name);
  } else {
    lupe_process_name(s->pid, name, sizeof name);
  }
  lupe_process_start_ticks(s->pid, &start_ticks);
  char allocator[sizeof hello->allocator];
  copy_text(allocator, hello->allocator, sizeof allocator);
  lupe_target_info info = {
      .pid = s->pid,
      .ppid = hello->ppid,
      .start_ticks = start_ticks,
      .heap_state = hello->heap_state,
      .forked = hello->forked,
      .sample_period_bytes = hello->sample_period_bytes,
      .time_ms = lupe_unix_ms(),
      .name = name,
      .allocator = allocator,
      .memory_functions = hello->memory_functions,
  };
  status = lupe_aggregator_add(s->aggregator, &info, &s->target);
  if (status != LUPE_OK) {
    lupe_ring_reader_free(reader);
    return status;
  }
  s->reader = reader;
  s->drained_ms = lupe_unix_ms();
  s->profiles = hello->heap_state == LUPE_HEAP_ON || hello->heap_state == LUPE_HEAP_NO_HOOK;
  lupe_session_measure(s);
  status = lupe_channel_send(s->fd, LUPE_WELCOME, &s->welcome, sizeof s->welcome, -1);
  return status == LUPE_ENOENT ? LUPE_OK : status; /* a short life: its last words wait to be read */
}

static lupe_status on_message(lupe_session *s, const lupe_message *m, const void *body, int fd) {
  lupe_status status = LUPE_OK;
  if (m->type == LUPE_HELLO && m->body_bytes == sizeof(lupe_hello)) {
    status = on_hello(s, body, fd);
  } else if (m->type == LUPE_PROFILED && m->body_bytes == sizeof(lupe_profile_reply) && s->target) {
    const lupe_profile_reply *reply = body;
    if (reply->serial != 0) s->asked = 0; /* 0: the unasked one of a process that exits */
    lupe_session_measure(s);              /* the figures that belong to this profile */
    s->events.profiled(s->events.arg, s, body, fd);
    return LUPE_OK;
  } else if (m->type == LUPE_COMMANDED && m->body_bytes == sizeof(lupe_command_reply) && s->target) {
    const lupe_command_reply *reply = body;
    if (reply->serial == 0) s->rates_asked = false;
    if (reply->serial >= s->overdue) s->overdue = 0; /* answers come in the order of their commands */
    s->events.commanded(s->events.arg, s, reply);
  } else if (m->type == LUPE_PROVED && m->body_bytes == sizeof(lupe_proof_reply) && s->target) {
    const lupe_proof_reply *reply = body;
    if (reply->serial != 0 && s->proofs_asked > 0) s->proofs_asked--; /* 0: unasked, as it exits */
    s->events.proved(s->events.arg, s, reply, fd);
    return LUPE_OK;
  } else if (m->type == LUPE_MAPS && m->body_bytes == 0 && s->target) {
    /* Without one its samples have no names, no more than that. */
    if (fd < 0) return LUPE_OK;
    if (lupe_target_set_maps(s->target, fd) == LUPE_OK) {
      s->events.mapped(s->events.arg);
    } else {
      fprintf(stderr, "lupe: process %d sent something else than its mappings\n", (int)s->pid);
    }
    return LUPE_OK;
  } else if (m->type == LUPE_MARKS && m->body_bytes == 0 && s->target) {
    /* Without them it has no tags and spans, no more than that. */
    status = fd < 0 ? LUPE_OK : lupe_target_set_marks(s->target, fd);
    if (status != LUPE_OK)
      fprintf(stderr, "lupe: the marks of process %d cannot be read: %s\n", (int)s->pid,
              lupe_status_text(status));
    return LUPE_OK;
  } else if (m->type == LUPE_GOODBYE) {
    if (s->target) lupe_target_leaves(s->target);
  } else {
    status = LUPE_ECORRUPT;
  }
  if (fd >= 0) close(fd);
  return status;
}

lupe_status lupe_session_receive(lupe_session *s) {
  for (int i = 0; i < RECEIVE_MAX_MESSAGES; i++) {
    _Alignas(8) char body[LUPE_CHANNEL_BODY_MAX];
    lupe_message m;
    int fd = -1;
    lupe_status status = lupe_channel_receive(s->fd, &m, body, sizeof body, &fd);
    if (status == LUPE_EAGAIN) return LUPE_OK;
    if (status == LUPE_OK) status = on_message(s, &m, body, fd);
    if (status == LUPE_OK) continue;
    if (status != LUPE_ENOENT) {
      fprintf(stderr, "lupe: process %d: its agent's message was refused: %s\n", (int)s->pid,
              status == LUPE_EIO ? strerror(errno) : lupe_status_text(status));
    }
    return LUPE_ENOENT;
  }
  return LUPE_OK;
}

static void update_sampling(lupe_session *s) {
  const lupe_counters *c = lupe_ring_reader_counters(s->reader);
  lupe_target_sampling sampling = {
      .cpu_state = atomic_load_explicit(&c->cpu_state, memory_order_relaxed),
      .wall_state = atomic_load_explicit(&c->wall_state, memory_order_relaxed),
      .threads_untimed = atomic_load_explicit(&c->threads_untimed, memory_order_relaxed),
      .threads_unread = atomic_load_explicit(&c->threads_unread, memory_order_relaxed),
  };
  if (memcmp(&sampling, &s->sampling, sizeof sampling) == 0) return;
  s->sampling = sampling;
  lupe_target_set_sampling(s->target, &sampling);
}

void lupe_session_drain(lupe_session *s) {
  if (!s->reader) return;
  lupe_record_copy r;
  double now_ms = lupe_unix_ms(), oldest_ms = s->drained_ms - LATE_MS;
  double clock_ms = (double)lupe_clock_ns(CLOCK_MONOTONIC) / 1e6;
  update_sampling(s);
  for (int i = 0; i < DRAIN_MAX_RECORDS; i++) {
    lupe_status status = lupe_ring_reader_pop(s->reader, &r);
    if (status != LUPE_OK) break; /* empty, or thrown away and counted */
    if (r.kind == LUPE_RECORD_HEAP) {
      if (r.depth > 0) lupe_target_sample(s->target, r.frames, r.depth, r.weight);
      continue;
    }
    double time_ms = now_ms - (clock_ms - (double)r.time_ns / 1e6);
    lupe_thread_sample sample = {
        .kind = r.kind,
        .tid = (int32_t)r.tid,
        .weight = r.weight,
        .state = r.state,
        .switches = r.switches,
        .time_ms = time_ms < oldest_ms ? oldest_ms
                   : time_ms > now_ms  ? now_ms
                                       : time_ms,
    };
    lupe_target_thread_sample(s->target, &sample, r.frames, r.depth);
  }
  s->drained_ms = now_ms;
}

lupe_status lupe_session_allocator(const lupe_session *s, lupe_allocator_figures *out) {
  return s->reader ? lupe_ring_reader_figures(s->reader, out) : LUPE_EAGAIN;
}

void lupe_session_measure(lupe_session *s) {
  if (!s->target) return;
  /* Of a process that has just ended only the segment still tells; the rest stays as it was last. */
  lupe_memory_figures figures;
  if (lupe_process_read(s->pid, &figures) == LUPE_OK) {
    s->last = figures;
  } else if (s->last.time_ms > 0) {
    figures = s->last;
    figures.time_ms = lupe_unix_ms();
  } else {
    return;
  }
  if (lupe_session_allocator(s, s->figures) == LUPE_OK) {
    const lupe_allocator_figures *f = s->figures;
    figures.has_allocator = 1;
    figures.allocated_bytes = f->allocated_bytes;
    figures.active_bytes = f->active_bytes;
    figures.metadata_bytes = f->metadata_bytes;
    figures.resident_bytes = f->resident_bytes;
    figures.mapped_bytes = f->mapped_bytes;
    figures.retained_bytes = f->retained_bytes;
    figures.cached_bytes = f->cached_bytes;
    s->own_heap_bytes = f->own_allocated_bytes;
    _Static_assert(sizeof(lupe_size_class) == sizeof(lupe_snapshot_size_class), "one layout");
    lupe_target_classes(s->target, (const lupe_snapshot_size_class *)f->classes, f->class_count);
  }
  lupe_target_figures(s->target, &figures);
}

lupe_status lupe_session_request_profile(lupe_session *s, uint64_t serial) {
  if (!s->profiles) return LUPE_EUNSUPPORTED;
  if (s->asked)
    return LUPE_EAGAIN; /* it is stopped or swapped out: not a pile of requests for when it goes on */
  lupe_profile_request request = {.serial = serial};
  lupe_status status = lupe_channel_send(s->fd, LUPE_PROFILE, &request, sizeof request, -1);
  if (status == LUPE_OK) s->asked = serial;
  return status;
}

bool lupe_session_awaits_profile(const lupe_session *s, uint64_t serial) {
  return s->asked == serial;
}

lupe_status lupe_session_command(lupe_session *s, const lupe_agent_command *command) {
  if (!s->target || s->overdue) return LUPE_EAGAIN;
  return lupe_channel_send(s->fd, LUPE_COMMAND, command, sizeof *command, -1);
}

void lupe_session_overdue(lupe_session *s, uint64_t serial) {
  if (s->overdue < serial) s->overdue = serial;
}

lupe_status lupe_session_set_rates(lupe_session *s, uint32_t cpu_hz, uint32_t wall_hz) {
  s->welcome.cpu_hz = cpu_hz;
  s->welcome.wall_hz = wall_hz;
  if (!s->target) return LUPE_OK;
  if (s->rates_asked) return LUPE_EAGAIN;
  lupe_agent_command command = {.kind = LUPE_COMMAND_SAMPLING, .cpu_hz = cpu_hz, .wall_hz = wall_hz};
  lupe_status status = lupe_channel_send(s->fd, LUPE_COMMAND, &command, sizeof command, -1);
  s->rates_asked = status == LUPE_OK;
  return status;
}

lupe_status lupe_session_prove(lupe_session *s, const lupe_proof_request *request) {
  if (!s->target || s->proofs_asked >= PROOFS_UNANSWERED_MAX) return LUPE_EAGAIN;
  lupe_status status = lupe_channel_send(s->fd, LUPE_PROVE, request, sizeof *request, -1);
  if (status == LUPE_OK) s->proofs_asked++;
  return status;
}

lupe_status lupe_session_set_proof_at_exit(lupe_session *s, const lupe_proof_limits *limits) {
  s->welcome.proof_at_exit = limits != NULL;
  s->welcome.proof = limits ? *limits : (lupe_proof_limits){0};
  if (!s->target) return LUPE_OK;
  return lupe_channel_send(s->fd, LUPE_WELCOME, &s->welcome, sizeof s->welcome, -1);
}

uid_t lupe_session_uid(const lupe_session *s) {
  return s->uid;
}

pid_t lupe_session_pid(const lupe_session *s) {
  return s->pid;
}
lupe_target *lupe_session_target(const lupe_session *s) {
  return s->target;
}

void lupe_session_add_cost(const lupe_session *s, lupe_agent_cost *sum) {
  if (!s->reader) return;
  const lupe_counters *c = lupe_ring_reader_counters(s->reader);
  sum->heap_samples += atomic_load_explicit(&c->heap_samples, memory_order_relaxed);
  sum->dropped_records += atomic_load_explicit(&c->dropped_records, memory_order_relaxed);
  sum->truncated_stacks += atomic_load_explicit(&c->truncated_stacks, memory_order_relaxed);
  sum->cpu_samples += atomic_load_explicit(&c->cpu_samples, memory_order_relaxed);
  sum->wall_looks += atomic_load_explicit(&c->wall_looks, memory_order_relaxed);
  sum->wall_moved += atomic_load_explicit(&c->wall_moved, memory_order_relaxed);
  sum->handler_ns += atomic_load_explicit(&c->handler_ns, memory_order_relaxed);
  sum->hook_ns += atomic_load_explicit(&c->hook_ns, memory_order_relaxed);
  sum->thread_cpu_ns += atomic_load_explicit(&c->thread_cpu_ns, memory_order_relaxed);
  sum->thread_cpu_ns += atomic_load_explicit(&c->proof_cpu_ns, memory_order_relaxed);
  sum->profiles += atomic_load_explicit(&c->profiles, memory_order_relaxed);
  sum->profile_ns += atomic_load_explicit(&c->profile_ns, memory_order_relaxed);
  sum->corruptions += lupe_ring_reader_corruptions(s->reader);
  sum->own_heap_bytes += s->own_heap_bytes;
}
