// link: m
/* caches.c -- memory that grows to what a cache or a table may hold, and stays there. */
#include "background.h"

/* lru_*: a slot per page; full after 8 to 15, 20 to 30 or 38 to 45 s, and from then on newcomers push others
 * out. */
ZOO_SITE char *cache_page(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void lru(double seconds) {
  enum { SLOTS = 8192 };
  static char *slots[SLOTS];
  size_t bytes = zoo_bytes(500, 4000), count = zoo_bytes(2000, SLOTS), next = 0;
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, (double)count / seconds); n > 0; n--) {
      char **oldest = &slots[next++ % count];
      free(*oldest);
      *oldest = cache_page(zoo_bytes(bytes / 2, bytes));
    }
  }
}

static void lru_fast(void) {
  lru(zoo_uniform(8, 15));
}
static void lru_middle(void) {
  lru(zoo_uniform(20, 30));
}
static void lru_slow(void) {
  lru(zoo_uniform(38, 45));
}

/* zipf: a cache of everything that is ever asked for, and some keys are asked for much more often. */
ZOO_SITE char *cache_lookup(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void zipf(void) {
  enum { KEYS = 2000 };
  static char *values[KEYS];
  static double below[KEYS];
  double sum = 0, power = zoo_uniform(0.4, 0.7), rate = zoo_uniform(350, 600);
  size_t bytes = zoo_bytes(1000, 8000);
  for (int i = 0; i < KEYS; i++) below[i] = sum += pow(i + 1, -power);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      double wanted = zoo_uniform(0, sum);
      int low = 0, high = KEYS - 1;
      while (low < high) {
        int middle = (low + high) / 2;
        if (below[middle] < wanted) {
          low = middle + 1;
        } else {
          high = middle;
        }
      }
      if (values[low] == NULL) values[low] = cache_lookup(bytes);
    }
  }
}

/* lazy_tables: one table per tenant, made when the tenant is first seen. */
ZOO_SITE char *make_table(size_t bytes) {
  return zoo_used(calloc(1, bytes), bytes);
}

static void lazy_tables(void) {
  enum { TENANTS = 120 };
  static char *tables[TENANTS];
  size_t bytes = zoo_bytes(30 * ZOO_KIB, 150 * ZOO_KIB);
  long tenants = zoo_between(40, TENANTS);
  double rate = (double)tenants / zoo_uniform(4, 9);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      char **table = &tables[zoo_between(0, tenants - 1)];
      if (*table == NULL) *table = make_table(bytes);
    }
  }
}

/* free_list: freed objects are kept for the next ones, up to a limit, as an interpreter does. */
typedef struct object {
  struct object *next;
  char fields[];
} object;

ZOO_SITE object *new_object(size_t bytes) {
  return zoo_used(malloc(sizeof(object) + bytes), bytes);
}

static void free_list(void) {
  static object *live, *kept;
  size_t bytes = zoo_bytes(100, 900), kept_count = 0, kept_most = zoo_bytes(500, 3000), live_count = 0;
  size_t mean = zoo_bytes(2000, 6000);
  double period = zoo_uniform(4, 11), phase = zoo_uniform(0, period);
  while (zoo_tick()) {
    double angle = 2 * M_PI * (zoo_elapsed() + phase) / period;
    size_t wanted = (size_t)((double)mean * (1 + 0.6 * sin(angle)));
    for (; live_count < wanted; live_count++) {
      object *made = kept;
      if (made != NULL) {
        kept = made->next;
        kept_count--;
      } else {
        made = new_object(bytes);
      }
      made->next = live;
      live = made;
    }
    for (; live_count > wanted; live_count--) {
      object *gone = live;
      live = gone->next;
      if (kept_count == kept_most) {
        free(gone);
        continue;
      }
      gone->next = kept;
      kept = gone;
      kept_count++;
    }
  }
}

/* rehash: keys come until all are known; the table doubles on the way. */
ZOO_SITE char **resize_buckets(size_t count) {
  return zoo_used(calloc(count, sizeof(char *)), count * sizeof(char *));
}
ZOO_SITE char *insert_key(size_t bytes) {
  return zoo_used(malloc(bytes), bytes);
}

static void rehash(void) {
  size_t capacity = 64, used = 0, most = zoo_bytes(6000, 30000), bytes = zoo_bytes(100, 500);
  static char **table;
  table = resize_buckets(capacity);
  double rate = (double)most / zoo_uniform(10, 30);
  zoo_pace pace = {0};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0 && used < most; n--) {
      if (used == capacity) {
        char **larger = resize_buckets(2 * capacity);
        memcpy(larger, table, capacity * sizeof *table);
        free(table);
        table = larger;
        capacity *= 2;
      }
      table[used++] = insert_key(bytes);
    }
  }
}

int main(int argc, char **argv) {
  static const zoo_scenario scenarios[] = {
      {"lru_fast", lru_fast},       {"lru_middle", lru_middle}, {"lru_slow", lru_slow}, {"zipf", zipf},
      {"lazy_tables", lazy_tables}, {"free_list", free_list},   {"rehash", rehash},     {NULL, NULL},
  };
  return zoo_main(argc, argv, scenarios);
}
