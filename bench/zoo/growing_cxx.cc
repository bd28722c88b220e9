// link: m
/* growing_cxx.cc -- containers that only ever get more, and are reachable all the while. */
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "background.h"

namespace {

/* visits: a counter per visitor, under a name that is made up anew by most of them. */
std::unordered_map<std::string, long> visits_of;

__attribute__((noipa)) void count_visit(const std::string &visitor) {
  visits_of[visitor]++;
}

void visits() {
  size_t bytes = zoo_bytes(40, 400);
  double rate = zoo_uniform(60, 250) * ZOO_KIB / static_cast<double>(bytes + 56);
  zoo_pace pace = {};
  visits_of.reserve(200000); /* the table itself is there from the start */
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      std::string visitor = std::to_string(zoo_random() >> 20);
      visitor.resize(bytes, '.');
      count_visit(visitor);
    }
  }
}

/* observers: whoever subscribes is kept, also when nothing is left to tell. */
struct observer {
  std::string name;
  std::vector<int> topics;
};
std::vector<std::shared_ptr<observer>> observers;

__attribute__((noipa)) std::shared_ptr<observer> subscribe(size_t bytes) {
  auto made = std::make_shared<observer>();
  made->name.assign(bytes, 'o');
  made->topics.assign(8, 1);
  return made;
}

void subscriptions() {
  size_t bytes = zoo_bytes(200, 2000);
  double rate = zoo_uniform(60, 250) * ZOO_KIB / static_cast<double>(bytes);
  zoo_pace pace = {};
  observers.reserve(200000);
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      auto made = subscribe(bytes);
      if (zoo_chance(0.7)) observers.push_back(made);
    }
  }
}

}  // namespace

int main(int argc, char **argv) {
  static const zoo_scenario scenarios[] = {
      {"visits", visits}, {"observers", subscriptions}, {nullptr, nullptr}};
  return zoo_main(argc, argv, scenarios);
}
