// Keys and values of past tokens, in blocks: where each lies, and how a new one is written.
//
// Knows no attention and no sequences. Layout: [layer][block][kv head][keys, values, scales]. Keys stand in units of
// kUnit tokens, [unit][head_dim][kUnit], so that one vector holds the same channel of neighbouring tokens and scores
// need no sums across lanes; values are rows, [token][row]. The last unit of a block may be part empty.
#pragma once

#include <cstdint>

#include "memory.hpp"

namespace mg {

enum class KVFormat : int32_t { f32 = 0, bf16 = 1, int8 = 2 };

constexpr int kUnit = 16;

struct Cache {
  KVFormat format;
  int layers, kv_heads, head_dim;
  int64_t blocks;
  int block_size;
  int units;           // in a block
  int row;             // numbers of a row of values: head_dim rounded up to whole vectors; the rest stays zero
  size_t values_at;    // bytes from the start of a head's part of a block
  size_t scales_at;    // int8: float of keys [units * kUnit], then of values [units * kUnit]
  size_t head_bytes;   // a head's part of a block
  Memory memory;

  // Zeros. Throws Failure or std::bad_alloc.
  Cache(int layers, int kv_heads, int head_dim, int64_t blocks, int block_size, int32_t format);

  int element() const { return format == KVFormat::f32 ? 4 : format == KVFormat::bf16 ? 2 : 1; }

  // Keys, values and scales of one head in one block.
  uint8_t* head(int layer, int64_t block, int kv_head) const {
    size_t index = (static_cast<size_t>(layer) * static_cast<size_t>(blocks) + static_cast<size_t>(block)) *
                       static_cast<size_t>(kv_heads) +
                   static_cast<size_t>(kv_head);
    return memory.data() + index * head_bytes;
  }

  // Writes the rotated key and the value [head_dim] of one token of one head.
  void write(int layer, int64_t block, int offset, int kv_head, const float* key, const float* value) const;
};

}  // namespace mg
