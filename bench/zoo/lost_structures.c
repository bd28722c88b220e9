// link: m
/* lost_structures.c -- blocks that hang together and are lost with the one through which they were found:
 * most of them something points to still, but that is lost as well. */
#include "background.h"

typedef struct step {
  struct step *next, *before;
  char notes[];
} step;

/* chain: a list that grows at its end; where it begins is known to nobody. One structure, ever longer. */
static step *last_step;

ZOO_SITE step *append_to_chain(size_t bytes) {
  step *s = zoo_used(malloc(sizeof *s + bytes), sizeof *s + bytes);
  s->next = s->before = NULL;
  return s;
}

static void chain(void) {
  size_t bytes = zoo_bytes(300, 3000);
  double rate = zoo_uniform(60, 250) * ZOO_KIB / (double)bytes;
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      step *s = append_to_chain(bytes);
      if (last_step) last_step->next = s;
      last_step = s;
    }
  }
}

/* ring: playlists linked both ways and round, each replaced by the next without being freed. */
static step *playlist;

static void free_list(step *head) {
  while (head) {
    step *s = head;
    head = s->next;
    free(s);
  }
}

ZOO_SITE step *add_to_playlist(size_t bytes) {
  step *s = zoo_used(malloc(sizeof *s + bytes), sizeof *s + bytes);
  s->next = s->before = s;
  return s;
}

static void ring(void) {
  size_t bytes = zoo_bytes(200, 2000);
  long length = zoo_between(10, 120);
  double rate = zoo_uniform(60, 250) * ZOO_KIB / (double)(bytes * (size_t)length);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      playlist = add_to_playlist(bytes);
      for (long i = 1; i < length; i++) {
        step *s = add_to_playlist(bytes);
        s->next = playlist;
        s->before = playlist->before;
        s->before->next = s;
        playlist->before = s;
      }
    }
  }
  zoo_rest();
  if (playlist == NULL) return;
  playlist->before->next = NULL;
  free_list(playlist);
  playlist = NULL;
}

/* tree: a document is parsed anew, and the old one's root is forgotten. */
typedef struct branch {
  struct branch *left, *right;
  long key;
  char text[];
} branch;
static branch *document;

ZOO_SITE branch *parse_branch(long key, size_t bytes) {
  branch *b = zoo_used(malloc(sizeof *b + bytes), sizeof *b + bytes);
  b->left = b->right = NULL;
  b->key = key;
  return b;
}

static void free_tree(branch *root) {
  if (root == NULL) return;
  free_tree(root->left);
  free_tree(root->right);
  free(root);
}

static void tree(void) {
  size_t bytes = zoo_bytes(100, 1200);
  long nodes = zoo_between(30, 250);
  double rate = zoo_uniform(60, 250) * ZOO_KIB / (double)(bytes * (size_t)nodes);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      document = NULL;
      for (long i = 0; i < nodes; i++) {
        branch **at = &document;
        long key = (long)(zoo_random() >> 1);
        while (*at) at = key < (*at)->key ? &(*at)->left : &(*at)->right;
        *at = parse_branch(key, bytes);
      }
    }
  }
  zoo_rest();
  free_tree(document);
  document = NULL;
}

/* table: a hash table of strings is dropped where it should have been emptied: buckets, entries and strings.
 */
enum { BUCKETS = 64 };
typedef struct entry {
  struct entry *next;
  char *name;
} entry;
static entry **names;

ZOO_SITE entry **new_buckets(void) {
  entry **made = calloc(BUCKETS, sizeof *made);
  if (made == NULL) abort();
  zoo_kept(made);
  return made;
}
ZOO_SITE entry *new_entry(void) {
  return zoo_used(malloc(sizeof(entry)), sizeof(entry));
}
ZOO_SITE char *copy_name(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void free_names(void) {
  for (int i = 0; names && i < BUCKETS; i++) {
    while (names[i]) {
      entry *e = names[i];
      names[i] = e->next;
      free(e->name);
      free(e);
    }
  }
  free(names);
  names = NULL;
}

static void table(void) {
  size_t bytes = zoo_bytes(100, 1500);
  long entries = zoo_between(40, 300);
  double rate = zoo_uniform(60, 250) * ZOO_KIB / (double)(bytes * (size_t)entries);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      names = new_buckets();
      for (long i = 0; i < entries; i++) {
        entry *e = new_entry(), **bucket = &names[zoo_random() % BUCKETS];
        e->name = copy_name(bytes);
        e->next = *bucket;
        *bucket = e;
      }
    }
  }
  zoo_rest();
  free_names();
}

/* pieces: one list, cut here and there by a careless removal: what stood behind the cut is lost. */
static step *work_list;

ZOO_SITE step *add_work(size_t bytes) {
  step *s = zoo_used(malloc(sizeof *s + bytes), sizeof *s + bytes);
  s->before = NULL;
  return s;
}

static void pieces(void) {
  size_t bytes = zoo_bytes(200, 2000), length = 0, most = zoo_bytes(100, 400);
  double rate = zoo_uniform(80, 300) * ZOO_KIB / (double)bytes;
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      step *s = add_work(bytes);
      s->next = work_list;
      work_list = s;
      if (++length < most) continue;
      length = zoo_bytes(most / 2, most - 1);
      for (size_t i = 1; i < length; i++) s = s->next;
      s->next = NULL;
    }
  }
  zoo_rest();
  free_list(work_list);
  work_list = NULL;
}

int main(int argc, char **argv) {
  static const zoo_scenario scenarios[] = {{"chain", chain}, {"ring", ring},     {"tree", tree},
                                           {"table", table}, {"pieces", pieces}, {NULL, NULL}};
  return zoo_main(argc, argv, scenarios);
}
