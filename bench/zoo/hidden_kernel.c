// link: m
/* hidden_kernel.c -- blocks to which only the kernel has the pointer, and gives it back with an event. */
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "hidden.h"

static void not_here(const char *what) {
  fprintf(stderr, "%s: %s: the machine does not offer it\n", what, strerror(errno));
  exit(ZOO_NOT_HERE);
}

/* Becomes readable when the blocks are to come back. */
static int the_event(void) {
  static int event = -1;
  if (event < 0) event = eventfd(0, EFD_CLOEXEC);
  if (event < 0) abort();
  return event;
}

static void raise_event(void) {
  uint64_t one = 1;
  if (write(the_event(), &one, sizeof one) != sizeof one) abort();
}

/* epoll: a connection per descriptor, known to epoll alone. */
static int queue = -1;

ZOO_SITE hidden_block *register_connection(size_t bytes) {
  return hidden_new(bytes);
}

static void hide_in_epoll(long serial, hidden_block *block) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = block};
  int fd = dup(the_event());
  if (serial == 0) queue = epoll_create1(EPOLL_CLOEXEC);
  if (fd < 0 || epoll_ctl(queue, EPOLL_CTL_ADD, fd, &event) != 0) abort();
}

static hidden_block *take_from_epoll(long serial) {
  struct epoll_event event;
  if (serial == 0) raise_event();
  if (epoll_wait(queue, &event, 1, -1) != 1) abort();
  return event.data.ptr;
}

static void epoll(void) {
  hidden_run(&(hiding_place){register_connection, hide_in_epoll, take_from_epoll, NULL});
}

/* io_uring: requests that wait for the event, each with its block as user data. No copy of that stays in the
 * ring: the entry is emptied when the kernel has read it. */
enum { RING_ENTRIES = 1024 };
static struct {
  int fd;
  unsigned *submit_tail, *submit_indices, *complete_head, *complete_tail;
  unsigned submit_mask, complete_mask;
  struct io_uring_sqe *entries;
  struct io_uring_cqe *completions;
} ring;

static void *ring_part(size_t bytes, off_t which) {
  void *part = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, which);
  if (part == MAP_FAILED) abort();
  return part;
}

static void open_ring(void) {
  struct io_uring_params params = {0};
  ring.fd = (int)syscall(SYS_io_uring_setup, RING_ENTRIES, &params);
  if (ring.fd < 0) not_here("io_uring_setup");
  char *submit =
      ring_part(params.sq_off.array + params.sq_entries * sizeof(unsigned), (off_t)IORING_OFF_SQ_RING);
  char *complete = ring_part(params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe),
                             (off_t)IORING_OFF_CQ_RING);
  ring.entries = ring_part(params.sq_entries * sizeof(struct io_uring_sqe), (off_t)IORING_OFF_SQES);
  ring.submit_tail = (unsigned *)(submit + params.sq_off.tail);
  ring.submit_mask = *(unsigned *)(submit + params.sq_off.ring_mask);
  ring.submit_indices = (unsigned *)(submit + params.sq_off.array);
  ring.complete_head = (unsigned *)(complete + params.cq_off.head);
  ring.complete_tail = (unsigned *)(complete + params.cq_off.tail);
  ring.complete_mask = *(unsigned *)(complete + params.cq_off.ring_mask);
  ring.completions = (struct io_uring_cqe *)(complete + params.cq_off.cqes);
}

ZOO_SITE hidden_block *submit_request(size_t bytes) {
  return hidden_new(bytes);
}

static void hide_in_ring(long serial, hidden_block *block) {
  if (serial == 0) open_ring();
  unsigned tail = *ring.submit_tail, index = tail & ring.submit_mask;
  struct io_uring_sqe *entry = &ring.entries[index];
  *entry = (struct io_uring_sqe){.opcode = IORING_OP_POLL_ADD,
                                 .fd = the_event(),
                                 .poll32_events = POLLIN,
                                 .user_data = (uintptr_t)block};
  ring.submit_indices[index] = index;
  __atomic_store_n(ring.submit_tail, tail + 1, __ATOMIC_RELEASE);
  if (syscall(SYS_io_uring_enter, ring.fd, 1, 0, 0, NULL, 0) != 1) abort();
  *entry = (struct io_uring_sqe){0};
}

static hidden_block *take_from_ring(long serial) {
  if (serial == 0) raise_event();
  unsigned head = *ring.complete_head;
  while (__atomic_load_n(ring.complete_tail, __ATOMIC_ACQUIRE) == head) {
    if (syscall(SYS_io_uring_enter, ring.fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0 && errno != EINTR) {
      abort();
    }
  }
  hidden_block *block =
      (hidden_block *)(uintptr_t)ring.completions[head & ring.complete_mask].user_data; /* NOLINT */
  __atomic_store_n(ring.complete_head, head + 1, __ATOMIC_RELEASE);
  return block;
}

static void io_uring(void) {
  hidden_run(&(hiding_place){submit_request, hide_in_ring, take_from_ring, NULL});
}

/* aio: the same by the older interface. */
static aio_context_t context;

ZOO_SITE hidden_block *submit_control_block(size_t bytes) {
  return hidden_new(bytes);
}

static void hide_in_aio(long serial, hidden_block *block) {
  struct iocb control = {.aio_lio_opcode = IOCB_CMD_POLL,
                         .aio_fildes = (unsigned)the_event(),
                         .aio_buf = POLLIN,
                         .aio_data = (uintptr_t)block};
  struct iocb *list = &control;
  if (serial == 0 && syscall(SYS_io_setup, HIDDEN_MOST, &context) != 0) not_here("io_setup");
  if (syscall(SYS_io_submit, context, 1, &list) != 1) not_here("io_submit of a poll");
}

static hidden_block *take_from_aio(long serial) {
  struct io_event event;
  long got;
  if (serial == 0) raise_event();
  do {
    got = syscall(SYS_io_getevents, context, 1, 1, &event, NULL);
  } while (got < 0 && errno == EINTR);
  if (got != 1) abort();
  return (hidden_block *)(uintptr_t)event.data; /* NOLINT */
}

static void aio(void) {
  hidden_run(&(hiding_place){submit_control_block, hide_in_aio, take_from_aio, NULL});
}

/* timers: each brings its block with its signal, an hour from now, or sooner. */
static timer_t timers[HIDDEN_MOST];

ZOO_SITE hidden_block *arm_timeout(size_t bytes) {
  return hidden_new(bytes);
}

static void only_timeouts(sigset_t *set) {
  sigemptyset(set);
  sigaddset(set, SIGRTMIN + 3);
}

static void hide_in_timer(long serial, hidden_block *block) {
  struct sigevent event = {
      .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3, .sigev_value.sival_ptr = block};
  struct itimerspec when = {.it_value.tv_sec = 3600};
  if (timer_create(CLOCK_MONOTONIC, &event, &timers[serial]) != 0) abort();
  if (timer_settime(timers[serial], 0, &when, NULL) != 0) abort();
}

static hidden_block *take_from_timer(long serial) {
  struct itimerspec now = {.it_value.tv_nsec = 1};
  siginfo_t info;
  sigset_t timeouts;
  only_timeouts(&timeouts);
  if (timer_settime(timers[serial], 0, &now, NULL) != 0) abort();
  while (sigwaitinfo(&timeouts, &info) < 0) {
    if (errno != EINTR) abort();
  }
  timer_delete(timers[serial]);
  return info.si_value.sival_ptr;
}

static void posix_timers(void) {
  sigset_t timeouts;
  only_timeouts(&timeouts);
  sigprocmask(SIG_BLOCK, &timeouts, NULL);
  hidden_run(&(hiding_place){arm_timeout, hide_in_timer, take_from_timer, NULL});
}

int main(int argc, char **argv) {
  static const zoo_scenario scenarios[] = {
      {"epoll", epoll}, {"io_uring", io_uring}, {"aio", aio}, {"posix_timers", posix_timers}, {NULL, NULL}};
  return zoo_main(argc, argv, scenarios);
}
