// Weights in, sizes checked, scratch made; the step itself is in forward.cpp.
#include "decoder.hpp"

#include <algorithm>
#include <cstring>

#include "error.hpp"

namespace mg {

namespace {

const mg_config& checked(const mg_config& c, int threads) {
  struct {
    const char* name;
    int32_t value;
  } positive[] = {{"dim", c.dim},           {"layers", c.layers}, {"heads", c.heads}, {"kv_heads", c.kv_heads},
                  {"head_dim", c.head_dim}, {"hidden", c.hidden}, {"vocab", c.vocab}, {"threads", threads}};
  for (const auto& field : positive)
    MG_REQUIRE(field.value > 0, MG_VALUE, "%s is %d, must be greater than 0", field.name, field.value);
  MG_REQUIRE(threads <= 1024, MG_VALUE, "threads is %d, must be at most 1024", threads);
  MG_REQUIRE(c.head_dim % 2 == 0, MG_VALUE, "head_dim is %d, must be even", c.head_dim);
  MG_REQUIRE(c.heads % c.kv_heads == 0, MG_VALUE, "heads is %d, must be a multiple of kv_heads, %d", c.heads,
             c.kv_heads);
  MG_REQUIRE(int64_t{c.heads} * c.head_dim <= INT32_MAX, MG_VALUE, "heads is %d, too many", c.heads);
  return c;
}

}  // namespace

Decoder::Decoder(const mg_config& config, const float* frequencies, int threads)
    : config_(checked(config, threads)),
      q_width_(config.heads * config.head_dim),
      kv_width_(config.kv_heads * config.head_dim),
      block_tokens_(std::max(1, kQueryRows / (config.heads / config.kv_heads))),
      frequencies_(frequencies, frequencies + config.head_dim / 2),
      layers_(static_cast<size_t>(config.layers)),
      crew_(threads) {}

Matrix& Decoder::matrix_at(int layer, int part) {
  if (part == MG_OUTPUT) return output_;
  MG_REQUIRE(0 <= layer && layer < config_.layers, MG_VALUE, "layer is %d, must be below %d", layer, config_.layers);
  MG_REQUIRE(MG_WQ <= part && part <= MG_W3, MG_VALUE, "part %d is no matrix", part);
  return layers_[static_cast<size_t>(layer)].matrices[part];
}

void Decoder::put_norm(int layer, int part, const float* values) {
  MG_REQUIRE(part == MG_NORM || (0 <= layer && layer < config_.layers), MG_VALUE, "layer is %d, must be below %d",
             layer, config_.layers);
  MG_REQUIRE(part >= MG_ATTENTION_NORM && part <= MG_NORM, MG_VALUE, "part %d is no norm", part);
  auto& norm = part == MG_NORM ? norm_ : layers_[static_cast<size_t>(layer)].norms[part - MG_ATTENTION_NORM];
  norm.assign(values, values + config_.dim);
}

void Decoder::put_embedding(int32_t format, const void* values) {
  MG_REQUIRE(format == MG_F32 || format == MG_BF16, MG_VALUE, "format is %d, embeddings are float32 or bfloat16",
             format);
  size_t bytes = static_cast<size_t>(config_.vocab) * static_cast<size_t>(config_.dim) * (format == MG_F32 ? 4 : 2);
  Memory fresh(bytes);
  memcpy(fresh.data(), values, bytes);
  embedding_ = std::move(fresh);
  embedding_format_ = format;
}

void Decoder::put_matrix(int layer, int part, int32_t format, int32_t group, int32_t scale_type, const void* values,
                         const float* scales, const float* mins) {
  Matrix& place = matrix_at(layer, part);
  const int64_t dim = config_.dim, hidden = config_.hidden, q = q_width_, kv = kv_width_;
  const int64_t shapes[][2] = {{q, dim}, {kv, dim}, {kv, dim}, {dim, q}, {hidden, dim}, {dim, hidden}, {hidden, dim}};
  int64_t outputs = part == MG_OUTPUT ? config_.vocab : shapes[part][0];
  int64_t inputs = part == MG_OUTPUT ? dim : shapes[part][1];
  Matrix fresh(format, group, mins != nullptr, scale_type, outputs, inputs);
  pack_rows(fresh.linear, 0, outputs, values, scales, mins);
  place = std::move(fresh);
}

int64_t Decoder::bytes() const {
  size_t total = output_.memory.bytes() + norm_.size() * sizeof(float);
  for (const Layer& layer : layers_) {
    for (const Matrix& matrix : layer.matrices) total += matrix.memory.bytes();
    for (const auto& norm : layer.norms) total += norm.size() * sizeof(float);
  }
  return static_cast<int64_t>(total);
}

bool Decoder::complete() const {
  if (!output_.present() || norm_.empty() || embedding_format_ < 0) return false;
  for (const Layer& layer : layers_) {
    for (const Matrix& matrix : layer.matrices)
      if (!matrix.present()) return false;
    if (layer.norms[0].empty() || layer.norms[1].empty()) return false;
  }
  return true;
}

void Decoder::make_room(const Cache& cache) {
  auto rows = static_cast<size_t>(std::min(step_.count, kSliceRows));
  auto floats = [&](Memory& memory, int64_t width) {
    memory.ensure(rows * static_cast<size_t>(width) * sizeof(float));
  };
  floats(x_, config_.dim);
  floats(h_, config_.dim);
  floats(y_, config_.dim);
  floats(q_, q_width_);
  floats(k_, kv_width_);
  floats(v_, kv_width_);
  floats(attended_, q_width_);
  floats(gate_, config_.hidden);
  floats(up_, config_.hidden);
  floats(tables_, 2 * config_.head_dim);
  auto widest = static_cast<size_t>(std::max({config_.dim, q_width_, config_.hidden}));
  for (int slot = 0; slot < Input::kGroups; ++slot) {
    integers_[slot].ensure(rows * widest);
    // No group is smaller than 16.
    scales_[slot].ensure(rows * (widest / 16 + 1) * sizeof(float));
    sums_[slot].ensure(rows * (widest / 16 + 1) * sizeof(int32_t));
  }
  work_floats_ = (attention_scratch(cache, config_.heads / config_.kv_heads) + 15) / 16 * 16;
  work_.ensure(static_cast<size_t>(work_floats_ * crew_.size()) * sizeof(float));
}

}  // namespace mg

struct mg_decoder {
  mg::Decoder decoder;
};
struct mg_cache {
  mg::Cache cache;
};

mg_decoder* mg_decoder_new(const mg_config* config, const float* frequencies, int32_t threads) {
  return mg::guarded_new([&] { return new mg_decoder{{*config, frequencies, threads}}; });
}

void mg_decoder_free(mg_decoder* decoder) { delete decoder; }

int mg_decoder_put_norm(mg_decoder* decoder, int32_t layer, int32_t part, const float* values) {
  return mg::guarded([&] { decoder->decoder.put_norm(layer, part, values); });
}

int mg_decoder_put_embedding(mg_decoder* decoder, int32_t format, const void* values) {
  return mg::guarded([&] { decoder->decoder.put_embedding(format, values); });
}

int mg_decoder_put_matrix(mg_decoder* decoder, int32_t layer, int32_t part, int32_t format, int32_t group,
                          int32_t scale_type, const void* values, const float* scales, const float* mins) {
  return mg::guarded(
      [&] { decoder->decoder.put_matrix(layer, part, format, group, scale_type, values, scales, mins); });
}

int64_t mg_decoder_bytes(const mg_decoder* decoder) { return decoder->decoder.bytes(); }

mg_cache* mg_cache_new(const mg_config* config, int64_t blocks, int32_t block_size, int32_t format) {
  return mg::guarded_new([&] {
    return new mg_cache{{config->layers, config->kv_heads, config->head_dim, blocks, block_size, format}};
  });
}

void mg_cache_free(mg_cache* cache) { delete cache; }

int64_t mg_cache_bytes(const mg_cache* cache) { return static_cast<int64_t>(cache->cache.memory.bytes()); }

int mg_forward(mg_decoder* decoder, mg_cache* cache, const int32_t* step, int64_t length, const float* features,
               float* logits) {
  return mg::guarded([&] { decoder->decoder.forward(cache->cache, step, length, features, logits); });
}
