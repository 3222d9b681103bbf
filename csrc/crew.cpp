#include "crew.hpp"

#include <unistd.h>

#include <chrono>

namespace mg {

namespace {

constexpr auto kSpin = std::chrono::microseconds(30);

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

Crew::Crew(int threads) : size_(threads), owner_(getpid()) {
  try {
    for (int thread = 1; thread < size_; ++thread) threads_.emplace_back([this, thread] { serve(thread); });
  } catch (...) {
    stop_ = true;
    advance(jobs_);
    for (auto& thread : threads_) thread.join();
    throw;
  }
}

Crew::~Crew() {
  if (forked()) {
    // The threads are the parent's; there is nothing here to join.
    for (auto& thread : threads_) thread.detach();
    sleep_.release();
    return;
  }
  stop_ = true;
  advance(jobs_);
  for (auto& thread : threads_) thread.join();
}

bool Crew::forked() const { return size_ > 1 && getpid() != owner_; }

void Crew::run(const std::function<void(int)>& job) {
  if (size_ == 1) {
    job(0);
    return;
  }
  job_ = &job;
  advance(jobs_);
  job(0);
  meet([] {});
}

void Crew::serve(int thread) {
  for (uint32_t done = 0;; ++done) {
    await(jobs_, done);
    if (stop_) return;
    (*job_)(thread);
    meet([] {});
  }
}

void Crew::await(const std::atomic<uint32_t>& value, uint32_t old) {
  auto patience = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      pause();
    }
  } while (std::chrono::steady_clock::now() < patience);
  // Sequentially consistent on both sides: either the sleeper sees the new value, or the other side the sleeper.
  sleepers_.fetch_add(1);
  {
    std::unique_lock<std::mutex> lock(sleep_->mutex);
    sleep_->wake.wait(lock, [&] { return value.load() != old; });
  }
  sleepers_.fetch_sub(1);
}

void Crew::advance(std::atomic<uint32_t>& value) {
  value.fetch_add(1);
  if (sleepers_.load() == 0) return;
  { std::lock_guard<std::mutex> lock(sleep_->mutex); }
  sleep_->wake.notify_all();
}

}  // namespace mg
