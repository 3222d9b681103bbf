// Attention of new tokens to their sequence's keys and values, read through its blocks.
//
// The context is cut into chunks that begin at fixed positions. Each chunk's softmax is taken by itself and chunks are
// merged in order, so a token's result has the same bits whether its chunks were computed by one thread or several, and
// whatever other tokens were computed beside it: every number is one chain of operations in the order of keys.
#pragma once

#include <cstdint>

#include "cache.hpp"

namespace mg {

// New tokens of one sequence, at neighbouring positions, for one layer and one kv head.
struct Queries {
  const int32_t* table;  // the sequence's blocks
  int layer, kv_head;
  int start;             // position of the first token; it sees keys 0..start
  int count;             // tokens
  int group;             // query heads that share the kv head
  const float* q;        // [count][group, head_dim], rotated and divided by sqrt(head_dim)
  int64_t q_stride;      // from token to token
  float* out;            // likewise
  int64_t out_stride;

  int64_t rows() const { return static_cast<int64_t>(count) * group; }
};

// How a cache's blocks make chunks.
struct Chunks {
  int tokens, units;
  explicit Chunks(const Cache& cache);
  int count(int positions) const { return (positions + tokens - 1) / tokens; }
};

// Query rows (tokens * group) of one task: as many tokens share the keys of a chunk once it is in the nearest cache.
constexpr int kQueryRows = 32;

// Floats that `attend` and its parts want to work in.
int64_t attention_scratch(const Cache& cache, int group);

// Floats of what one chunk gives: per query row its largest score, its sum, and a row of weighted values.
int64_t partial_floats(const Cache& cache, const Queries& queries);

// All of it.
void attend(const Cache& cache, const Queries& queries, float* scratch);

// The same in two parts: any chunk into `partial`; then all partials, chunk after chunk, into the result.
void attend_chunk(const Cache& cache, const Queries& queries, int chunk, float* partial, float* scratch);
void merge_chunks(const Cache& cache, const Queries& queries, float* partials);

}  // namespace mg
