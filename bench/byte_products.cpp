// What the two instructions that AVX2 has for products of bytes can do here: multiply-add of bytes and addition of
// 16-bit sums, from registers to registers. No weights are read or unpacked, nothing is scaled or widened, so no product
// of int8 or int4 matrices made of these two is faster.
//
// Prints multiplications and additions a second of every pass but the first, one a line.
//
// Usage: byte-products PASSES

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#ifdef __AVX2__

namespace {

constexpr std::int64_t kTurns = 20'000'000;
constexpr double kOperations = 8 * 32 * 2;  // of a turn: eight vectors of 32 products, each added

// Eight sums, each waiting only for itself; four registers for what has been multiplied.
#define PRODUCT(into, weights, sum) \
  "vpmaddubsw %%ymm8, %%ymm" #weights ", %%ymm" #into "\n vpaddw %%ymm" #into ", %%ymm" #sum ", %%ymm" #sum "\n"

void turn() {
  asm volatile(PRODUCT(12, 9, 0) PRODUCT(13, 9, 1) PRODUCT(14, 9, 2) PRODUCT(15, 9, 3) PRODUCT(12, 10, 4)
                   PRODUCT(13, 10, 5) PRODUCT(14, 10, 6) PRODUCT(15, 10, 7)::
                       : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm12", "xmm13", "xmm14",
                         "xmm15");
}

}  // namespace

int main(int argc, char** argv) {
  const int passes = argc == 2 ? std::atoi(argv[1]) : 0;
  if (passes < 1) {
    std::fprintf(stderr, "usage: byte-products PASSES, at least 1\n");
    return 2;
  }
  for (int pass = 0; pass <= passes; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    for (std::int64_t i = 0; i < kTurns; ++i) turn();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (pass > 0) std::printf("%.0f\n", kTurns * kOperations / seconds.count());
  }
}

#else

int main() {
  std::fprintf(stderr, "this processor has no AVX2\n");
  return 1;
}

#endif
