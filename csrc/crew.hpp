// A fixed crew of threads that run one function together, share its work in chunks and wait for one another.
//
// The caller is thread 0; a crew of one is the caller alone and touches no atomic. Waiting is spinning for some tens of
// microseconds and then sleeping, so that two crews on two cores do not burn each other's time. Who does a chunk is
// left to chance, so work must give the same bits whoever does it. A crew does not survive fork(): see `forked`.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace mg {

class Crew {
 public:
  // Throws std::system_error where the system gives no thread.
  explicit Crew(int threads);
  ~Crew();
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  int size() const { return size_; }
  // True in a child process: its crew has no threads but the caller's.
  bool forked() const;

  // Runs job(thread) on every thread of the crew and returns when all have. The job must not throw.
  void run(const std::function<void(int)>& job);

  // Within a job, called by all threads alike: splits [0, count) into chunks of `grain` and calls body(first, last) for
  // each on whoever is free. `after` runs once on one thread when all chunks are done and before anyone goes on.
  template <typename Body, typename After>
  void share(int64_t count, int64_t grain, Body&& body, After&& after) {
    if (size_ == 1) {
      if (count > 0) body(int64_t{0}, count);
      after();
      return;
    }
    for (int64_t first; (first = next_.fetch_add(grain, std::memory_order_relaxed)) < count;)
      body(first, std::min(first + grain, count));
    meet(after);
  }
  template <typename Body>
  void share(int64_t count, int64_t grain, Body&& body) {
    share(count, grain, body, [] {});
  }

 private:
  // Waits until all threads are here; the last to come runs `after`.
  template <typename After>
  void meet(After&& after) {
    uint32_t turn = turn_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 < size_) {
      await(turn_, turn);
      return;
    }
    after();
    next_.store(0, std::memory_order_relaxed);
    arrived_.store(0, std::memory_order_relaxed);
    advance(turn_);
  }

  void await(const std::atomic<uint32_t>& value, uint32_t old);
  void advance(std::atomic<uint32_t>& value);
  void serve(int thread);

  const int size_;
  const pid_t owner_;
  std::vector<std::thread> threads_;
  const std::function<void(int)>* job_ = nullptr;
  bool stop_ = false;
  // Each on a line of its own: they are written by everyone.
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> turn_{0};
  alignas(64) std::atomic<uint32_t> jobs_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  struct Sleep {
    std::mutex mutex;
    std::condition_variable wake;
  };
  // Held apart so that a forked child can leave it alone: it cannot be destroyed while somebody sleeps on it, and who
  // slept in the parent never wakes in the child.
  std::unique_ptr<Sleep> sleep_ = std::make_unique<Sleep>();
};

}  // namespace mg
