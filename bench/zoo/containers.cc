// link: m
/* containers.cc -- the containers of the C++ library in balance: what comes in goes out, or is bounded. */
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "background.h"

namespace {

/* deque: as much is taken as is put in, with a length that wanders. */
std::deque<std::string> pending;

__attribute__((noipa)) void enqueue_order(size_t bytes) {
  pending.emplace_back(bytes, 'o');
}

void deque() {
  size_t bytes = zoo_bytes(300, 3000);
  double mean = zoo_uniform(500, 2500), rate = mean / zoo_uniform(0.5, 2);
  double period = zoo_uniform(3, 9), swing = zoo_uniform(0.2, 0.6);
  zoo_pace pace = {};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) enqueue_order(bytes);
    double most = mean * (1 + swing * sin(2 * M_PI * zoo_elapsed() / period));
    while (static_cast<double>(pending.size()) > most) pending.pop_front();
  }
}

/* ttl: an entry lives for 8 to 25 s: that long the cache grows, and then it has found its size. */
struct entry {
  double until;
  std::string value;
};
std::map<uint64_t, entry> entries;

__attribute__((noipa)) void remember_entry(uint64_t key, size_t bytes, double until) {
  entries.emplace(key, entry{until, std::string(bytes, 'e')});
}

void ttl() {
  size_t bytes = zoo_bytes(300, 3000);
  double seconds = zoo_uniform(8, 25), rate = zoo_uniform(50, 300);
  uint64_t serial = 0;
  zoo_pace pace = {};
  while (zoo_tick()) {
    double now = zoo_elapsed();
    for (long n = zoo_due(&pace, rate); n > 0; n--) remember_entry(++serial, bytes, now + seconds);
    while (!entries.empty() && entries.begin()->second.until < now) entries.erase(entries.begin());
  }
}

/* interning: words of a text, of which there are only so many. */
std::unordered_set<std::string> words;

__attribute__((noipa)) void intern_word(const std::string &word) {
  words.insert(word);
}

void interning() {
  long vocabulary = zoo_between(3000, 12000);
  size_t bytes = zoo_bytes(100, 500);
  double rate = static_cast<double>(vocabulary) / zoo_uniform(4, 10);
  zoo_pace pace = {};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      std::string word = std::to_string(zoo_between(1, vocabulary));
      word.resize(bytes, '.');
      intern_word(word);
    }
  }
}

/* scenes: a graph of shared nodes is built anew every few seconds; the old one falls with its root. */
struct node {
  std::vector<std::shared_ptr<node>> children;
  std::string label;
};

__attribute__((noipa)) std::shared_ptr<node> place_node(size_t bytes) {
  auto placed = std::make_shared<node>();
  placed->label.assign(bytes, 's');
  return placed;
}

void scenes() {
  size_t bytes = zoo_bytes(200, 1500);
  long most = zoo_between(1000, 4000), count = 0;
  double rate = static_cast<double>(most) / zoo_uniform(2, 9);
  std::shared_ptr<node> root = place_node(bytes), leaf;
  zoo_pace pace = {};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      if (++count == most) {
        count = 0;
        leaf = nullptr;
        root = place_node(bytes);
      }
      auto placed = place_node(bytes);
      if (leaf && zoo_chance(0.5)) {
        placed->children.push_back(leaf);
      } else {
        leaf = placed;
      }
      root->children.push_back(placed);
    }
  }
}

}  // namespace

int main(int argc, char **argv) {
  static const zoo_scenario scenarios[] = {
      {"deque", deque}, {"ttl", ttl}, {"interning", interning}, {"scenes", scenes}, {nullptr, nullptr}};
  return zoo_main(argc, argv, scenarios);
}
