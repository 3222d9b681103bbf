#include "attention.hpp"

#include <algorithm>
#include <cmath>

#include "attention_tiles.hpp"

namespace mg {

namespace {

constexpr int kChunk = 512;
// From this many query rows on, a unit is widened once for all of them, and stays near while they read it.
constexpr int kManyRows = 8;

// A unit of a chunk: where its keys and values are, and which tokens it holds.
struct Unit {
  const uint8_t* keys;
  const uint8_t* values;
  const float* scales;  // of its keys; those of its values lie `value_scales` further
  int first;            // position of its first token
  int tokens;           // of a full one
};

// Where things lie in scratch.
struct Work {
  float* q;        // [rows, head_dim]
  float* scores;   // [rows, slots]
  float* keys;     // [head_dim, kUnit]
  float* values;   // [kUnit, row]
  float* partial;  // of a chunk
  float* merged;   // of those before
  int64_t slots;

  Work(const Cache& cache, int64_t rows, float* scratch) : slots(Chunks(cache).units * kUnit) {
    q = scratch;
    scores = q + rows * cache.head_dim;
    keys = scores + rows * slots;
    values = keys + cache.head_dim * kUnit;
    partial = values + kUnit * cache.row;
    merged = partial + rows * (cache.row + 2);
  }
};

Unit find_unit(const Cache& cache, const Queries& queries, int first_block, int index) {
  int block = index / cache.units, within = index % cache.units;
  const uint8_t* head = cache.head(queries.layer, queries.table[first_block + block], queries.kv_head);
  auto size = static_cast<size_t>(cache.element());
  auto slot = static_cast<size_t>(within * kUnit);
  Unit unit;
  unit.keys = head + slot * static_cast<size_t>(cache.head_dim) * size;
  unit.values = head + cache.values_at + slot * static_cast<size_t>(cache.row) * size;
  unit.scales = reinterpret_cast<const float*>(head + cache.scales_at) + slot;
  unit.first = (first_block + block) * cache.block_size + within * kUnit;
  unit.tokens = std::min(kUnit, cache.block_size - within * kUnit);
  return unit;
}

// Tokens of `unit` that a query at `position` sees.
int seen(const Unit& unit, int position) { return std::clamp(position + 1 - unit.first, 0, unit.tokens); }

template <typename T>
void score_units(const Cache& cache, int64_t first, int64_t rows, const T* const* keys, bool ask, int count, float* s,
                 const Work& work) {
  int64_t r = first;
  int dim = cache.head_dim;
  // Once is enough: only the first rows ask.
  for (; r + 4 <= rows; r += 4, ask = false)
    score_rows<T, 4>(work.q + r * dim, dim, keys, ask, count, s + r * work.slots, work.slots);
  for (; r + 2 <= rows; r += 2, ask = false)
    score_rows<T, 2>(work.q + r * dim, dim, keys, ask, count, s + r * work.slots, work.slots);
  for (; r < rows; ++r, ask = false)
    score_rows<T, 1>(work.q + r * dim, dim, keys, ask, count, s + r * work.slots, work.slots);
}

// R rows from `r` on, each with as many tokens of the unit as it sees.
template <typename T, int R>
void weigh_rows(const Cache& cache, const Queries& queries, int64_t r, const Unit& unit, const T* values,
                const T* ahead, const float* p, float* out, const Work& work) {
  int row = cache.row;
  int common = seen(unit, queries.start + static_cast<int>(r / queries.group));
  value_rows<T, R>(p + r * work.slots, work.slots, 0, common, values, ahead, row, out + r * row);
  // Later tokens may see more. A weight of zero would not do for what they alone see: it may be no number.
  for (int64_t later = r + 1; later < r + R; ++later) {
    int n = seen(unit, queries.start + static_cast<int>(later / queries.group));
    if (n > common)
      value_rows<T, 1>(p + later * work.slots, work.slots, common, n, values, values, row, out + later * row);
  }
}

template <typename T>
void weigh_unit(const Cache& cache, const Queries& queries, int64_t first, const Unit& unit, const T* values,
                const T* ahead, const float* p, float* out, const Work& work) {
  int64_t r = first, rows = queries.rows();
  for (; r + 4 <= rows; r += 4) weigh_rows<T, 4>(cache, queries, r, unit, values, ahead, p, out, work);
  for (; r + 2 <= rows; r += 2) weigh_rows<T, 2>(cache, queries, r, unit, values, ahead, p, out, work);
  for (; r < rows; ++r) weigh_rows<T, 1>(cache, queries, r, unit, values, ahead, p, out, work);
}

// Scores [units * kUnit] of one query row become weights; answers their largest and their sum.
void softmax(float* s, const Unit* units, int count, int position, float* largest_score, float* total) {
  Vec top = splat(-INFINITY);
  for (int u = 0; u < count; ++u) {
    float* scores = s + u * kUnit;
    for (int token = seen(units[u], position); token < kUnit; ++token) scores[token] = -INFINITY;
    for (int j = 0; j < kVecs; ++j) top = larger(top, load(scores + j * kWidth));
  }
  *largest_score = largest(top);
  Vec sums[kVecs] = {};
  for (int u = 0; u < count; ++u)
    for (int j = 0; j < kVecs; ++j) {
      float* scores = s + u * kUnit + j * kWidth;
      Vec p = exp(load(scores) - *largest_score);
      store(scores, p);
      sums[j] += p;
    }
  Vec all = sums[0];
  for (int j = 1; j < kVecs; ++j) all += sums[j];
  *total = sum(all);
}

// s[token] *= scales[token], for a unit.
void scale(float* s, const float* scales) {
  for (int j = 0; j < kUnit; j += kWidth) store(s + j, load(s + j) * load(scales + j));
}

// One chunk, for the tokens from `skip` on: those before see none of it.
template <typename T>
void chunk_of(const Cache& cache, const Queries& queries, int chunk, int skip, float* partial, const Work& work) {
  Chunks chunks(cache);
  int first_block = chunk * (chunks.tokens / cache.block_size);
  int last = std::min(queries.start + queries.count, (chunk + 1) * chunks.tokens);
  int64_t first_row = int64_t{skip} * queries.group, rows = queries.rows();
  bool many = rows - first_row >= kManyRows, widened = many && sizeof(T) < sizeof(float);
  Unit units[kChunk];
  const T *keys[kChunk + kTile], *values[kChunk + 1];
  int count = 0;
  for (; count < chunks.units; ++count) {
    // A unit past the last token may be in a block that the table does not have.
    int block = first_block + count / cache.units;
    if (block * cache.block_size + count % cache.units * kUnit >= last) break;
    units[count] = find_unit(cache, queries, first_block, count);
    keys[count] = reinterpret_cast<const T*>(units[count].keys);
    values[count] = reinterpret_cast<const T*>(units[count].values);
  }
  // What to ask for after the last keys are the first values, and after the last values nothing new.
  for (int u = 0; u < kTile; ++u) keys[count + u] = values[std::min(u, count - 1)];
  values[count] = values[count - 1];
  for (int u = 0, n; u < count; u += n) {
    n = std::min(many ? 1 : kTile, count - u);
    float* s = work.scores + u * kUnit;
    if (widened) {
      const float* wide[] = {work.keys};
      for (int i = 0; i < cache.head_dim * kUnit; i += kWidth) store(work.keys + i, widen(keys[u] + i));
      score_units<float>(cache, first_row, rows, wide, false, 1, s, work);
    } else {
      score_units<T>(cache, first_row, rows, keys + u, true, n, s, work);
    }
  }
  bool scaled = cache.format == KVFormat::int8;
  for (int64_t row = first_row; row < rows; ++row) {
    float* s = work.scores + row * work.slots;
    int position = queries.start + static_cast<int>(row / queries.group);
    if (scaled)
      for (int u = 0; u < count; ++u) scale(s + u * kUnit, units[u].scales);
    softmax(s, units, count, position, &partial[row * 2], &partial[row * 2 + 1]);
    if (scaled)
      for (int u = 0; u < count; ++u) scale(s + u * kUnit, units[u].scales + cache.units * kUnit);
  }
  float* out = partial + rows * 2;
  std::fill(out + first_row * cache.row, out + rows * cache.row, 0.0f);
  for (int u = 0; u < count; ++u) {
    const float* p = work.scores + u * kUnit;
    if (widened) {
      for (int i = 0; i < units[u].tokens * cache.row; i += kWidth) store(work.values + i, widen(values[u] + i));
      weigh_unit<float>(cache, queries, first_row, units[u], work.values, work.values, p, out, work);
    } else {
      weigh_unit<T>(cache, queries, first_row, units[u], values[u], values[u + 1], p, out, work);
    }
  }
}

// Queries side by side: one row to the next is then the same step within a token and across tokens.
Work begin(const Cache& cache, const Queries& queries, float* scratch) {
  Work work(cache, queries.rows(), scratch);
  int64_t width = int64_t{queries.group} * cache.head_dim;
  for (int token = 0; token < queries.count; ++token)
    std::copy_n(queries.q + token * queries.q_stride, width, work.q + token * width);
  return work;
}

int skipped(const Queries& queries, int chunk, int tokens) {
  return std::clamp(chunk * tokens - queries.start, 0, queries.count);
}

void chunk_into(const Cache& cache, const Queries& queries, int chunk, float* partial, const Work& work) {
  int skip = skipped(queries, chunk, Chunks(cache).tokens);
  switch (cache.format) {
    case KVFormat::f32: return chunk_of<float>(cache, queries, chunk, skip, partial, work);
    case KVFormat::bf16: return chunk_of<uint16_t>(cache, queries, chunk, skip, partial, work);
    case KVFormat::int8: return chunk_of<int8_t>(cache, queries, chunk, skip, partial, work);
  }
}

// merged += partial, for query rows from `first` on.
void merge(int64_t first, int64_t rows, int row, float* merged, const float* partial) {
  for (int64_t r = first; r < rows; ++r) {
    float* state = merged + r * 2;
    const float* more = partial + r * 2;
    // Not std::max: a largest score that is no number must not hide behind an order of arguments.
    float top = state[0] < more[0] ? more[0] : state[0];
    Vec keep = exp(splat(state[0] - top)), take = exp(splat(more[0] - top));
    state[1] = state[1] * keep[0] + more[1] * take[0];
    state[0] = top;
    float* out = merged + rows * 2 + r * row;
    const float* in = partial + rows * 2 + r * row;
    for (int d = 0; d < row; d += kWidth) store(out + d, fma(load(in + d), take, load(out + d) * keep));
  }
}

void finish(const Cache& cache, const Queries& queries, const float* merged) {
  for (int64_t r = 0; r < queries.rows(); ++r) {
    const float* from = merged + queries.rows() * 2 + r * cache.row;
    float* to = queries.out + r / queries.group * queries.out_stride + r % queries.group * cache.head_dim;
    float inverse = 1.0f / merged[r * 2 + 1];
    for (int d = 0; d < cache.head_dim; ++d) to[d] = from[d] * inverse;
  }
}

}  // namespace

Chunks::Chunks(const Cache& cache) {
  int blocks = kChunk / cache.block_size;
  tokens = blocks * cache.block_size;
  units = blocks * cache.units;
}

int64_t attention_scratch(const Cache& cache, int group) {
  int64_t rows = std::max(kQueryRows, group);
  int64_t of_rows = rows * (cache.head_dim + Chunks(cache).units * kUnit + 2 * (cache.row + 2));
  return of_rows + kUnit * (cache.head_dim + cache.row);
}

int64_t partial_floats(const Cache& cache, const Queries& queries) { return queries.rows() * (cache.row + 2); }

void attend(const Cache& cache, const Queries& queries, float* scratch) {
  Work work = begin(cache, queries, scratch);
  Chunks chunks(cache);
  chunk_into(cache, queries, 0, work.merged, work);
  for (int chunk = 1; chunk < chunks.count(queries.start + queries.count); ++chunk) {
    chunk_into(cache, queries, chunk, work.partial, work);
    int64_t first = int64_t{skipped(queries, chunk, chunks.tokens)} * queries.group;
    merge(first, queries.rows(), cache.row, work.merged, work.partial);
  }
  finish(cache, queries, work.merged);
}

void attend_chunk(const Cache& cache, const Queries& queries, int chunk, float* partial, float* scratch) {
  chunk_into(cache, queries, chunk, partial, begin(cache, queries, scratch));
}

void merge_chunks(const Cache& cache, const Queries& queries, float* partials) {
  Chunks chunks(cache);
  int64_t size = partial_floats(cache, queries);
  for (int chunk = 1; chunk < chunks.count(queries.start + queries.count); ++chunk) {
    int64_t first = int64_t{skipped(queries, chunk, chunks.tokens)} * queries.group;
    merge(first, queries.rows(), cache.row, partials, partials + chunk * size);
  }
  finish(cache, queries, partials);
}

}  // namespace mg
