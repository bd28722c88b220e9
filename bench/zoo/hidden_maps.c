// link: m
/* hidden_maps.c -- blocks whose only pointers are in mappings of the program's own, of one kind or another.
 */
#include <sys/mman.h>

#include "hidden.h"

static hidden_block **table;

static void hide_in_table(long serial, hidden_block *block) {
  table[serial] = block;
  zoo_kept(table);
}

static hidden_block *take_from_table(long serial) {
  return table[serial];
}

static void map_table(int flags, int fd, int advice) {
  size_t bytes = HIDDEN_MOST * sizeof *table;
  table = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (table == MAP_FAILED) abort();
  if (advice >= 0 && madvise(table, bytes, advice) != 0) abort();
}

/* not_forked: a child of fork does not have the mapping (VmFlags `dc`). */
ZOO_SITE hidden_block *pin_buffer(size_t bytes) {
  return hidden_new(bytes);
}

static void not_forked(void) {
  map_table(MAP_PRIVATE | MAP_ANONYMOUS, -1, MADV_DONTFORK);
  hidden_run(&(hiding_place){pin_buffer, hide_in_table, take_from_table, NULL});
}

/* wiped: a child of fork finds the mapping empty (VmFlags `wf`), as secrets are kept. */
ZOO_SITE hidden_block *derive_key(size_t bytes) {
  return hidden_new(bytes);
}

static void wiped(void) {
  map_table(MAP_PRIVATE | MAP_ANONYMOUS, -1, MADV_WIPEONFORK);
  hidden_run(&(hiding_place){derive_key, hide_in_table, take_from_table, NULL});
}

/* own_mapping: a table in anonymous memory that no allocator knows. */
ZOO_SITE hidden_block *add_to_index(size_t bytes) {
  return hidden_new(bytes);
}

static void own_mapping(void) {
  map_table(MAP_PRIVATE | MAP_ANONYMOUS, -1, -1);
  hidden_run(&(hiding_place){add_to_index, hide_in_table, take_from_table, NULL});
}

/* shared_memory: the same, shared with whom it may concern. */
ZOO_SITE hidden_block *publish_record(size_t bytes) {
  return hidden_new(bytes);
}

static void shared_memory(void) {
  int fd = memfd_create("zoo", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, HIDDEN_MOST * (off_t)sizeof *table) != 0) abort();
  map_table(MAP_SHARED, fd, -1);
  close(fd);
  hidden_run(&(hiding_place){publish_record, hide_in_table, take_from_table, NULL});
}

/* private_file: a table in a private copy of a file's pages. */
ZOO_SITE hidden_block *patch_page(size_t bytes) {
  return hidden_new(bytes);
}

static void private_file(void) {
  int fd = memfd_create("zoo", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, HIDDEN_MOST * (off_t)sizeof *table) != 0) abort();
  map_table(MAP_PRIVATE, fd, -1);
  close(fd);
  hidden_run(&(hiding_place){patch_page, hide_in_table, take_from_table, NULL});
}

int main(int argc, char **argv) {
  static const zoo_scenario scenarios[] = {
      {"not_forked", not_forked},     {"wiped", wiped},
      {"own_mapping", own_mapping},   {"shared_memory", shared_memory},
      {"private_file", private_file}, {NULL, NULL},
  };
  return zoo_main(argc, argv, scenarios);
}
