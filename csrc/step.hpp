// The message of one step, read and checked; its layout is in magister.h.
#pragma once

#include <cstdint>
#include <vector>

#include "cache.hpp"

namespace mg {

// New tokens of one sequence.
struct Span {
  int start, stop;       // positions
  int first;             // index of the first new token among all ids
  const int32_t* table;  // blocks
};

struct Step {
  const int32_t* ids;
  int count;
  std::vector<Span> spans;
  const int32_t* rows;
  int row_count;
  const int32_t* places;
  int place_count;
  const float* features;

  // Throws Failure if anything in the message points outside of the vocabulary, the cache or the message. The step
  // keeps pointers into the message. Reading a second one takes no new memory unless it has more spans.
  void read(const int32_t* message, int64_t length, const float* features, const Cache& cache, int vocab);
};

}  // namespace mg
