// link: m pthread
/* hidden_words.c -- blocks whose only pointers look like something else, or are kept where few look. */
#include <pthread.h>
#include <stddef.h>
#include <sys/syscall.h>

#include "hidden.h"

/* low_bits: a kind of object in the three lowest bits. */
static uintptr_t words[HIDDEN_MOST];

ZOO_SITE hidden_block *box_value(size_t bytes) {
  return hidden_new(bytes);
}

static void hide_tagged_low(long serial, hidden_block *block) {
  words[serial] = (uintptr_t)block | (uintptr_t)(1 + serial % 7);
  zoo_kept(words);
}

static hidden_block *take_tagged_low(long serial) {
  return (hidden_block *)(words[serial] & ~(uintptr_t)7); /* NOLINT */
}

static void low_bits(void) {
  hidden_run(&(hiding_place){box_value, hide_tagged_low, take_tagged_low, NULL});
}

/* high_bits: a counter in the upper 16 bits, as lock-free lists have it. */
ZOO_SITE hidden_block *push_node(size_t bytes) {
  return hidden_new(bytes);
}

static void hide_tagged_high(long serial, hidden_block *block) {
  words[serial] = (uintptr_t)block | (uintptr_t)(0x8001 + serial) << 48;
  zoo_kept(words);
}

static hidden_block *take_tagged_high(long serial) {
  return (hidden_block *)(words[serial] & ((UINT64_C(1) << 48) - 1)); /* NOLINT */
}

static void high_bits(void) {
  hidden_run(&(hiding_place){push_node, hide_tagged_high, take_tagged_high, NULL});
}

/* interior: what is handed on is a part of the block, behind its header. */
ZOO_SITE hidden_block *embed_node(size_t bytes) {
  return hidden_new(bytes);
}

static void hide_interior(long serial, hidden_block *block) {
  words[serial] = (uintptr_t)(block->rest + serial % 200);
  zoo_kept(words);
}

static hidden_block *take_interior(long serial) {
  return (hidden_block *)(words[serial] - (uintptr_t)(serial % 200) - offsetof(hidden_block, rest));
}

static void interior(void) {
  hidden_run(&(hiding_place){embed_node, hide_interior, take_interior, NULL});
}

/* packed: pointers that stand at multiples of four. */
static struct __attribute__((packed, aligned(4))) {
  uint32_t serial;
  hidden_block *block;
} packed_table[HIDDEN_MOST];

ZOO_SITE hidden_block *decode_entry(size_t bytes) {
  return hidden_new(bytes);
}

static void hide_packed(long serial, hidden_block *block) {
  packed_table[serial].serial = (uint32_t)serial;
  packed_table[serial].block = block;
  zoo_kept(packed_table);
}

static hidden_block *take_packed(long serial) {
  return packed_table[serial].block;
}

static void packed(void) {
  hidden_run(&(hiding_place){decode_entry, hide_packed, take_packed, NULL});
}

/* What belongs to a thread is kept by a second one. */
static void *run_in_thread(void *place) {
  hidden_run(place);
  return NULL;
}

static void in_second_thread(hiding_place *place) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, run_in_thread, place) != 0) abort();
  while (zoo_tick()) {
  }
  pthread_join(thread, NULL);
}

/* static_tls: a thread's variables. */
static __thread hidden_block *mine[HIDDEN_MOST];

ZOO_SITE hidden_block *thread_buffer(size_t bytes) {
  return hidden_new(bytes);
}

static void hide_in_tls(long serial, hidden_block *block) {
  mine[serial] = block;
  zoo_kept(mine);
}

static hidden_block *take_from_tls(long serial) {
  return mine[serial];
}

static void static_tls(void) {
  in_second_thread(&(hiding_place){thread_buffer, hide_in_tls, take_from_tls, NULL});
}

/* dynamic_tls: a key of pthread_setspecific for each. */
static pthread_key_t keys[HIDDEN_MOST];

ZOO_SITE hidden_block *thread_context(size_t bytes) {
  return hidden_new(bytes);
}

static void hide_behind_key(long serial, hidden_block *block) {
  if (pthread_key_create(&keys[serial], NULL) != 0 || pthread_setspecific(keys[serial], block) != 0) abort();
}

static hidden_block *take_from_key(long serial) {
  return pthread_getspecific(keys[serial]);
}

static void dynamic_tls(void) {
  in_second_thread(&(hiding_place){thread_context, hide_behind_key, take_from_key, NULL});
}

/* in_register: a list whose head is in no memory while its thread waits, only in RBX. */
static uintptr_t disguised_head; /* its complement, while nobody waits */

ZOO_SITE hidden_block *append_step(size_t bytes) {
  return hidden_new(bytes);
}

static void hide_in_list(long serial, hidden_block *block) {
  block->next = serial == 0 ? NULL : (hidden_block *)~disguised_head; /* NOLINT */
  disguised_head = ~(uintptr_t)block;
}

static hidden_block *take_from_list(long serial) {
  hidden_block *head = (hidden_block *)~disguised_head; /* NOLINT */
  (void)serial;
  disguised_head = ~(uintptr_t)head->next;
  return head;
}

/* Nothing but these instructions sees the head: it waits until the deadline, then for the byte of a rest. */
__attribute__((noipa)) static void wait_with_head_in_register(const struct timespec *deadline, bool rests) {
  static const char told[] = "resting\n";
  char byte;
  __asm__ volatile(
      "movq %[head], %%rbx\n\t"
      "notq %%rbx\n\t"
      "movq $0, %[head]\n\t"
      "1: movl %[clock_nanosleep], %%eax\n\t"
      "movl $1, %%edi\n\t" /* CLOCK_MONOTONIC */
      "movl $1, %%esi\n\t" /* TIMER_ABSTIME */
      "movq %[deadline], %%rdx\n\t"
      "xorl %%r10d, %%r10d\n\t"
      "syscall\n\t"
      "cmpq %[interrupted], %%rax\n\t"
      "je 1b\n\t"
      "testl %[rests], %[rests]\n\t"
      "jz 3f\n\t"
      "movl %[write], %%eax\n\t"
      "movl $1, %%edi\n\t"
      "movq %[told], %%rsi\n\t"
      "movl $8, %%edx\n\t"
      "syscall\n\t"
      "2: movl %[read], %%eax\n\t"
      "xorl %%edi, %%edi\n\t"
      "movq %[byte], %%rsi\n\t"
      "movl $1, %%edx\n\t"
      "syscall\n\t"
      "cmpq %[interrupted], %%rax\n\t"
      "je 2b\n\t"
      "3: notq %%rbx\n\t"
      "movq %%rbx, %[head]"
      : [head] "+m"(disguised_head)
      : [deadline] "r"(deadline), [rests] "r"((int)rests), [told] "r"(told), [byte] "r"(&byte),
        [clock_nanosleep] "i"(SYS_clock_nanosleep), [write] "i"(SYS_write), [read] "i"(SYS_read),
        [interrupted] "i"(-EINTR)
      : "rax", "rbx", "rcx", "rdx", "rdi", "rsi", "r10", "r11", "cc", "memory");
}

static void wait_in_register(void) {
  double left = zoo_waits ? fmax(0, zoo_seconds - zoo_elapsed()) : 0;
  struct timespec deadline;
  clock_gettime(CLOCK_MONOTONIC, &deadline);
  deadline.tv_sec += (time_t)left;
  wait_with_head_in_register(&deadline, zoo_rests);
}

static void in_register(void) {
  hidden_run(&(hiding_place){append_step, hide_in_list, take_from_list, wait_in_register});
}

int main(int argc, char **argv) {
  static const zoo_scenario scenarios[] = {
      {"low_bits", low_bits},       {"high_bits", high_bits},
      {"interior", interior},       {"packed", packed},
      {"static_tls", static_tls},   {"dynamic_tls", dynamic_tls},
      {"in_register", in_register}, {NULL, NULL},
  };
  return zoo_main(argc, argv, scenarios);
}
