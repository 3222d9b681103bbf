#include "step.hpp"

#include "error.hpp"

namespace mg {

namespace {

// Walks through the message; every piece is checked to lie within it.
struct Reader {
  const int32_t* at;
  int64_t left;

  const int32_t* take(int64_t count) {
    MG_REQUIRE(0 <= count && count <= left, MG_STATE, "the message ends %lld numbers early",
               static_cast<long long>(count - left));
    const int32_t* taken = at;
    at += count;
    left -= count;
    return taken;
  }
};

// Indices into `count` ids, in order.
void check_indices(const char* name, const int32_t* indices, int n, int count) {
  for (int i = 0; i < n; ++i) {
    MG_REQUIRE(0 <= indices[i] && indices[i] < count, MG_VALUE, "%s has index %d, the step has %d ids", name,
               indices[i], count);
    MG_REQUIRE(i == 0 || indices[i - 1] < indices[i], MG_VALUE, "%s must ascend, but %d follows %d", name, indices[i],
               indices[i - 1]);
  }
}

}  // namespace

void Step::read(const int32_t* message, int64_t length, const float* given, const Cache& cache, int vocab) {
  Reader reader{message, length};
  const int32_t* counts = reader.take(4);
  count = counts[0];
  row_count = counts[2];
  place_count = counts[3];
  MG_REQUIRE(count > 0 && counts[1] > 0, MG_VALUE, "a step has %d ids in %d spans, must have some", count, counts[1]);
  ids = reader.take(count);
  for (int i = 0; i < count; ++i)
    MG_REQUIRE(0 <= ids[i] && ids[i] < vocab, MG_VALUE, "ids has %d, the vocabulary has %d", ids[i], vocab);
  spans.clear();
  int64_t total = 0;
  for (int i = 0; i < counts[1]; ++i) {
    const int32_t* head = reader.take(3);
    int start = head[0], stop = head[1], blocks = head[2];
    MG_REQUIRE(0 <= start && start < stop, MG_VALUE, "span %d is %d to %d, must be 0 <= start < stop", i, start, stop);
    MG_REQUIRE(int64_t{blocks} * cache.block_size >= stop, MG_VALUE, "span %d stops at %d, its %d blocks hold %lld", i,
               stop, blocks, static_cast<long long>(blocks) * cache.block_size);
    const int32_t* table = reader.take(blocks);
    for (int b = 0; b < blocks; ++b)
      MG_REQUIRE(0 <= table[b] && table[b] < cache.blocks, MG_VALUE, "span %d has block %d, the cache has %lld", i,
                 table[b], static_cast<long long>(cache.blocks));
    spans.push_back({start, stop, static_cast<int>(total), table});
    total += stop - start;
    MG_REQUIRE(total <= count, MG_VALUE, "the spans have more tokens than the %d ids", count);
  }
  MG_REQUIRE(total == count, MG_VALUE, "the spans have %lld tokens, ids has %d", static_cast<long long>(total), count);
  rows = reader.take(row_count);
  check_indices("rows", rows, row_count, count);
  places = reader.take(place_count);
  check_indices("places", places, place_count, count);
  MG_REQUIRE(reader.left == 0, MG_STATE, "the message has %lld numbers too many", static_cast<long long>(reader.left));
  MG_REQUIRE(place_count == 0 || given != nullptr, MG_STATE, "places without features");
  features = given;
}

}  // namespace mg
