// link: m
/* lost_cxx.cc -- what C++ loses: released, in a circle, in containers, on the way of an exception. */
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "background.h"

namespace {

/* unique_ptr: release() where reset() was meant. */
struct widget {
  explicit widget(size_t bytes) : pixels(new char[bytes]) { zoo_used(pixels.get(), bytes); }
  std::unique_ptr<char[]> pixels;
  int serial = 0;
};

__attribute__((noipa)) std::unique_ptr<widget> draw_widget(size_t bytes) {
  std::unique_ptr<widget> drawn(new widget(bytes));
  drawn->serial = static_cast<int>(bytes);
  return drawn;
}

void released() {
  size_t bytes = zoo_bytes(300, 3000);
  double rate = zoo_uniform(60, 250) * ZOO_KIB / static_cast<double>(bytes), lost = zoo_uniform(0.3, 0.9);
  zoo_pace pace = {};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      std::unique_ptr<widget> drawn = draw_widget(bytes);
      if (zoo_chance(lost)) (void)drawn.release();
    }
  }
}

/* cycle: a room knows its guests, and each guest its room. */
struct room {
  std::vector<std::shared_ptr<room>> doors;
  std::string name;
};

__attribute__((noipa)) std::shared_ptr<room> make_room(size_t bytes) {
  auto made = std::make_shared<room>();
  made->name.assign(bytes, 'r');
  made->doors.reserve(4);
  return made;
}

void cycle() {
  size_t bytes = zoo_bytes(200, 2000);
  double rate = zoo_uniform(60, 250) * ZOO_KIB / static_cast<double>(2 * bytes);
  zoo_pace pace = {};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      auto one = make_room(bytes), other = make_room(bytes);
      one->doors.push_back(other);
      if (zoo_chance(0.6)) other->doors.push_back(one);
    }
  }
}

/* container: an index is built anew, and the old one is forgotten with all that is in it. */
__attribute__((noipa)) std::map<int, std::string> *build_index(int entries, size_t bytes) {
  auto *index = new std::map<int, std::string>;
  for (int i = 0; i < entries; i++) (*index)[i * 7 % entries] = std::string(bytes, 'i');
  return index;
}

void container() {
  size_t bytes = zoo_bytes(50, 600);
  int entries = static_cast<int>(zoo_between(20, 200));
  double rate =
      zoo_uniform(60, 250) * ZOO_KIB / (static_cast<double>(entries) * static_cast<double>(bytes + 72));
  std::map<int, std::string> *index = nullptr;
  zoo_pace pace = {};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      if (zoo_chance(0.2)) delete index;
      index = build_index(entries, bytes);
      zoo_used(index, 1);
    }
  }
  delete index;
}

/* string: built in place in a buffer that is reused without calling destructors. */
__attribute__((noipa)) void render_name(void *place, size_t bytes) {
  new (place) std::string(bytes, 'n');
  zoo_kept(place); /* no tail call: the name stays in the stack */
}

void string() {
  alignas(std::string) static char place[sizeof(std::string)];
  size_t bytes = zoo_bytes(100, 1500);
  double rate = zoo_uniform(40, 250) * ZOO_KIB / static_cast<double>(bytes);
  zoo_pace pace = {};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) render_name(place, bytes);
  }
}

/* exception: a channel is opened by plain new, and what is thrown afterwards goes past its delete. */
__attribute__((noipa)) char *open_channel(size_t bytes) {
  return static_cast<char *>(zoo_used(new char[bytes], bytes));
}

__attribute__((noipa)) void use_channel(size_t bytes, double fails) {
  char *channel = open_channel(bytes);
  if (zoo_chance(fails)) throw std::runtime_error("the channel is closed");
  delete[] channel;
}

void exception() {
  size_t bytes = zoo_bytes(500, 6000);
  double rate = zoo_uniform(300, 700) * ZOO_KIB / static_cast<double>(bytes), fails = zoo_uniform(0.1, 0.3);
  zoo_pace pace = {};
  while (zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0; n--) {
      try {
        use_channel(bytes, fails);
      } catch (const std::runtime_error &) {
      }
    }
  }
}

}  // namespace

int main(int argc, char **argv) {
  static const zoo_scenario scenarios[] = {{"unique_ptr", released}, {"cycle", cycle},
                                           {"container", container}, {"string", string},
                                           {"exception", exception}, {nullptr, nullptr}};
  return zoo_main(argc, argv, scenarios);
}
