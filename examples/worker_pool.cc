// worker_pool.cc -- a pool of threads that work for tenants, and marks what it does.
//
//   build/examples/worker_pool 10        works for 10 s, then says what lupe saw
//
// A span counts each job by its kind: how many, how long, and the slowest twentieth. A tag says what memory
// and CPU time belong to, whichever function asked for them: here the cache of rendered pages, and the tenant
// that a job is for. Both end with the block that they stand in, thrown out of or not.
//
// The pages of one tenant, "globex", are never evicted: the LEAK.
#include <lupe.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

// Read by jemalloc before main; see docs/embedding.md.
const char *malloc_conf = "prof:true,prof_active:false,lg_prof_sample:16";

namespace {

// ---- The pool ------------------------------------------------------------------------------------

class Pool {
 public:
  explicit Pool(unsigned threads) {
    for (unsigned i = 0; i < threads; i++) threads_.emplace_back([this] { Work(); });
  }

  // Ends when all jobs are done.
  ~Pool() {
    {
      std::lock_guard<std::mutex> hold(mutex_);
      ending_ = true;
    }
    changed_.notify_all();
    for (std::thread &thread : threads_) thread.join();
  }

  // Waits while too many wait already.
  void Add(std::function<void()> job) {
    std::unique_lock<std::mutex> hold(mutex_);
    changed_.wait(hold, [this] { return jobs_.size() < kMostWaiting; });
    jobs_.push_back(std::move(job));
    changed_.notify_all();
  }

 private:
  static constexpr size_t kMostWaiting = 64;

  void Work() {
    std::unique_lock<std::mutex> hold(mutex_);
    while (true) {
      changed_.wait(hold, [this] { return ending_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      changed_.notify_all();
      hold.unlock();
      try {
        job();
      } catch (const std::exception &e) {
        failed_++;
      }
      hold.lock();
    }
  }

  std::mutex mutex_;  // protects jobs_, ending_
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool ending_ = false;
  std::atomic<unsigned> failed_{0};
  std::vector<std::thread> threads_;
};

// ---- The cache of pages --------------------------------------------------------------------------

class PageCache {
 public:
  void Keep(const std::string &tenant, unsigned number, const std::string &page) {
    LUPE_TAG("html::cache");
    std::lock_guard<std::mutex> hold(mutex_);
    std::map<unsigned, std::string> &pages = pages_[tenant];
    pages[number] = page;
    if (tenant != "globex" && pages.size() > kMostPages) pages.erase(pages.begin());  // BUG: why not globex?
  }

 private:
  static constexpr size_t kMostPages = 200;
  std::mutex mutex_;
  std::map<std::string, std::map<unsigned, std::string>> pages_;
};

PageCache cache;

// ---- The jobs ------------------------------------------------------------------------------------

__attribute__((noinline)) std::string Fill(unsigned number) {
  std::string page(4096, 'x');
  for (unsigned i = 0; i < 20 * page.size(); i++)
    page[i % page.size()] = static_cast<char>('a' + (page[i % page.size()] + i * number) % 26);
  return page;
}

void Render(const std::string &tenant, unsigned number) {
  LUPE_TAG_NAMED(tenant.c_str());
  LUPE_SPAN("render");
  cache.Keep(tenant, number, Fill(number));
}

__attribute__((noinline)) unsigned Count(const std::string &text) {
  unsigned words = 1;
  for (unsigned round = 0; round < 100; round++)
    for (char c : text) words += c == 'e' ? round : 0;
  return words;
}

void Index(const std::string &tenant, unsigned number) {
  LUPE_TAG_NAMED(tenant.c_str());
  LUPE_SPAN("index");
  if (Count(Fill(number)) == 0) throw std::runtime_error("an empty page");
}

// ---- What lupe saw -------------------------------------------------------------------------------

// A route of this program's own: lupe_get answers it without HTTP, and so does
// http://127.0.0.1:7077/api/x/pool.
const char kPoolRoute[] = R"lua(
return {
  api = 1, method = "GET", path = "/api/x/pool", summary = "What the pool's jobs take, and what its cache holds",
  handler = function()
    local view, why_not = lupe.view()
    if not view then return 503, nil, why_not .. "\n" end
    local lines = {}
    for _, span in ipairs(view.spans.list) do
      lines[#lines + 1] = ("%s: %d jobs, 19 of 20 within %.2f ms"):format(span.name, span.count, span.p95_ns / 1e6)
    end
    local function told(what, given)
      local bytes = 0
      for site in view.heap:sites(given) do
        if site.name == "html::cache" then bytes = bytes + site.inuse_space end
      end
      lines[#lines + 1] = ("%s: %.2f MiB"):format(what, bytes / 2 ^ 20)
    end
    told("html::cache", { group = "tag" })
    for _, tenant in ipairs({ "acme", "initech", "globex" }) do
      told("html::cache for " .. tenant, { group = "tag", through = tenant })
    end
    return 200, nil, table.concat(lines, "\n") .. "\n"
  end,
}
)lua";

void Tell(const char *path) {
  char *body = nullptr;
  if (lupe_get(path, nullptr, &body) != LUPE_OK) {
    std::fprintf(stderr, "worker_pool: %s: %s\n", path, lupe_error());
    return;
  }
  std::fputs(body, stdout);
  lupe_free(body);
}

}  // namespace

int main(int argc, char **argv) {
  const auto seconds = std::chrono::seconds(argc > 1 ? std::strtol(argv[1], nullptr, 10) : 10);
  if (lupe_add_route("pool.lua", kPoolRoute) != LUPE_OK || lupe_start(nullptr) != LUPE_OK)
    std::fprintf(stderr, "worker_pool: lupe: %s\n", lupe_error());
  {
    Pool pool(2);
    const auto end = std::chrono::steady_clock::now() + seconds;
    for (unsigned number = 0; std::chrono::steady_clock::now() < end; number++) {
      const std::string tenant = number % 4 == 0 ? "acme" : number % 4 == 1 ? "initech" : "globex";
      pool.Add([=] { Render(tenant, number); });
      if (number % 3 == 0) pool.Add([=] { Index(tenant, number); });
    }
  }
  Tell("/api/x/pool");
  lupe_stop();
  return 0;
}
