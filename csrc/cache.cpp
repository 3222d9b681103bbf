#include "cache.hpp"

#include <cmath>

#include "error.hpp"
#include "vector.hpp"

namespace mg {

namespace {

size_t round_up(size_t x, size_t unit) { return (x + unit - 1) / unit * unit; }

// |x| / 127 of the largest, and how to round by it; the definition is quantized.quantize_activations.
struct Rounding {
  float scale, inverse;
};

Rounding rounding(const float* x, int n) {
  float top = 0.0f;
  bool finite = true;
  for (int i = 0; i < n; ++i) {
    float size = std::fabs(x[i]);
    finite = finite && std::isfinite(size);
    top = top < size ? size : top;
  }
  // A scale that is not a number carries the fault on: whole numbers could not.
  if (!finite) return {NAN, 0.0f};
  return {top / 127.0f, top > 0.0f ? 127.0f / top : 0.0f};
}

int8_t rounded(float x, Rounding by) {
  // What is not finite has been dealt with; adding 1.5 * 2^23 rounds half to even.
  if (by.inverse == 0.0f) return 0;
  return static_cast<int8_t>((x * by.inverse + 12582912.0f) - 12582912.0f);
}

}  // namespace

Cache::Cache(int layers, int kv_heads, int head_dim, int64_t blocks, int block_size, int32_t format_number)
    : format(static_cast<KVFormat>(format_number)),
      layers(layers),
      kv_heads(kv_heads),
      head_dim(head_dim),
      blocks(blocks),
      block_size(block_size),
      units((block_size + kUnit - 1) / kUnit),
      row(static_cast<int>(round_up(static_cast<size_t>(head_dim), 16))) {
  MG_REQUIRE(format_number >= MG_KV_F32 && format_number <= MG_KV_INT8, MG_VALUE, "format is %d, must be 0 to %d",
             format_number, MG_KV_INT8);
  MG_REQUIRE(blocks > 0 && blocks <= INT32_MAX, MG_VALUE, "blocks is %lld, must be 1 to %d",
             static_cast<long long>(blocks), INT32_MAX);
  MG_REQUIRE(block_size > 0 && block_size <= 512, MG_VALUE, "block_size is %d, must be 1 to 512", block_size);
  auto size = static_cast<size_t>(element());
  auto slots = static_cast<size_t>(units * kUnit);
  values_at = round_up(slots * static_cast<size_t>(head_dim) * size, 64);
  scales_at = values_at + round_up(static_cast<size_t>(block_size * row) * size, 64);
  head_bytes = scales_at + (format == KVFormat::int8 ? 2 * slots * sizeof(float) : 0);
  size_t heads = static_cast<size_t>(layers) * static_cast<size_t>(blocks) * static_cast<size_t>(kv_heads);
  if (heads > SIZE_MAX / 2 / head_bytes) throw std::bad_alloc();
  memory = Memory(heads * head_bytes);
}

void Cache::write(int layer, int64_t block, int offset, int kv_head, const float* key, const float* value) const {
  uint8_t* base = head(layer, block, kv_head);
  size_t key_at = static_cast<size_t>(offset / kUnit * kUnit * head_dim + offset % kUnit);
  size_t value_at = static_cast<size_t>(offset * row);
  switch (format) {
    case KVFormat::f32: {
      auto* keys = reinterpret_cast<float*>(base) + key_at;
      for (int d = 0; d < head_dim; ++d) keys[d * kUnit] = key[d];
      auto* values = reinterpret_cast<float*>(base + values_at) + value_at;
      memcpy(values, value, static_cast<size_t>(head_dim) * sizeof(float));
      return;
    }
    case KVFormat::bf16: {
      auto* keys = reinterpret_cast<uint16_t*>(base) + key_at;
      auto* values = reinterpret_cast<uint16_t*>(base + values_at) + value_at;
      for (int d = 0; d < head_dim; ++d) keys[d * kUnit] = to_bf16(key[d]);
      for (int d = 0; d < head_dim; ++d) values[d] = to_bf16(value[d]);
      return;
    }
    case KVFormat::int8: {
      auto* keys = reinterpret_cast<int8_t*>(base) + key_at;
      auto* values = reinterpret_cast<int8_t*>(base + values_at) + value_at;
      auto* scales = reinterpret_cast<float*>(base + scales_at) + offset;
      Rounding k = rounding(key, head_dim), v = rounding(value, head_dim);
      for (int d = 0; d < head_dim; ++d) keys[d * kUnit] = rounded(key[d], k);
      for (int d = 0; d < head_dim; ++d) values[d] = rounded(value[d], v);
      scales[0] = k.scale;
      scales[units * kUnit] = v.scale;
      return;
    }
  }
}

}  // namespace mg
