// How fast this machine reads memory: so many threads, each summing its own part of one large block, again and again.
//
// Prints bytes a second of every pass but the first, one a line. Four streams a thread, since one alone does not keep
// the memory busy; large pages where the system gives them, since a decoder's weights have them too where they can.
//
// Usage: read-bandwidth THREADS MEGABYTES PASSES

#include <sys/mman.h>

#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

// A vector of four numbers in the compiler's own terms: no intrinsics, so that any CPU's widest unit is used.
using Four = std::uint64_t __attribute__((vector_size(32), aligned(32)));

std::uint64_t sum(const Four* start, std::int64_t count) {
  Four a{}, b{}, c{}, d{};
  const std::int64_t quarter = count / 4;
  for (std::int64_t i = 0; i + 1 < quarter; i += 2) {
    // Two at a time: a cache line of each stream.
    a += start[i] ^ start[i + 1];
    b += start[quarter + i] ^ start[quarter + i + 1];
    c += start[2 * quarter + i] ^ start[2 * quarter + i + 1];
    d += start[3 * quarter + i] ^ start[3 * quarter + i + 1];
  }
  const Four all = a + b + c + d;
  return all[0] + all[1] + all[2] + all[3];
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: read-bandwidth THREADS MEGABYTES PASSES\n");
    return 2;
  }
  const int threads = std::atoi(argv[1]);
  const std::int64_t bytes = std::atoll(argv[2]) << 20;
  const int passes = std::atoi(argv[3]);
  if (threads < 1 || bytes < 1 || passes < 1) {
    std::fprintf(stderr, "all three must be at least 1\n");
    return 2;
  }
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    std::fprintf(stderr, "no room for %lld bytes\n", static_cast<long long>(bytes));
    return 1;
  }
  madvise(memory, bytes, MADV_HUGEPAGE);
  std::memset(memory, 1, bytes);
  const std::int64_t part = bytes / 32 / threads;
  std::vector<std::uint64_t> sums(threads);
  // One thread more than work: the main one, which holds the clock.
  std::barrier<> gate(threads + 1);
  std::vector<std::thread> crew;
  for (int t = 0; t < threads; ++t) {
    crew.emplace_back([&, t] {
      for (int pass = 0; pass <= passes; ++pass) {
        gate.arrive_and_wait();
        sums[t] += sum(static_cast<const Four*>(memory) + t * part, part);
        gate.arrive_and_wait();
      }
    });
  }
  for (int pass = 0; pass <= passes; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    gate.arrive_and_wait();
    gate.arrive_and_wait();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (pass > 0) std::printf("%.0f\n", static_cast<double>(bytes) / seconds.count());
  }
  for (std::thread& one : crew) one.join();
  // The sums must be wanted, or the compiler leaves the reading out.
  std::uint64_t all = 0;
  for (const std::uint64_t one : sums) all += one;
  std::fprintf(stderr, "%llu\n", static_cast<unsigned long long>(all));
}
