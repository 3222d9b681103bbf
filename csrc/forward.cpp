// One step: slices of rows through all layers.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "decoder.hpp"
#include "error.hpp"
#include "rowwise.hpp"
#include "vector.hpp"

namespace mg {

const Activations& Input::for_linear(const Linear& linear) const {
  if (linear.format != Format::int8 && linear.format != Format::int4) return floats;
  int slot = 0;
  while (integers[slot].group != linear.group) ++slot;
  return integers[slot];
}

void Decoder::forward(const Cache& cache, const int32_t* message, int64_t length, const float* features,
                      float* logits) {
  MG_REQUIRE(!crew_.forked(), MG_STATE, "the decoder was made before a fork: its threads are in the other process");
  MG_REQUIRE(complete(), MG_STATE, "the decoder lacks weights");
  MG_REQUIRE(cache.layers == config_.layers && cache.kv_heads == config_.kv_heads && cache.head_dim == config_.head_dim,
             MG_VALUE, "the cache has %d layers, %d heads of %d, the decoder %d, %d of %d", cache.layers,
             cache.kv_heads, cache.head_dim, config_.layers, config_.kv_heads, config_.head_dim);
  step_.read(message, length, features, cache, config_.vocab);
  cache_ = &cache;
  logits_ = logits;
  make_room(cache);
  const std::function<void(int)> slice = [this](int thread) { run_slice(thread); };
  for (int first = 0; first < step_.count; first += kSliceRows) {
    plan_slice(first, std::min(kSliceRows, step_.count - first));
    crew_.run(slice);
  }
}

void Decoder::plan_slice(int first, int count) {
  first_ = first;
  rows_ = count;
  const int32_t* end = step_.rows + step_.row_count;
  const int32_t* from = std::lower_bound(step_.rows, end, first);
  wanted_first_ = static_cast<int>(from - step_.rows);
  wanted_ = static_cast<int>(std::lower_bound(from, end, first + count) - from);
  blocks_.clear();
  positions_.clear();
  slots_.clear();
  for (const Span& span : step_.spans) {
    int from_index = std::max(first, span.first), to = std::min(first + count, span.first + span.stop - span.start);
    for (int index = from_index; index < to; index += block_tokens_) {
      int tokens = std::min(block_tokens_, to - index), start = span.start + index - span.first;
      blocks_.push_back({span.table, start, tokens, index - first, Chunks(*cache_).count(start + tokens), 0});
      for (int position = start; position < start + tokens; ++position) {
        positions_.push_back(position);
        slots_.push_back({span.table[position / cache_->block_size], position % cache_->block_size});
      }
    }
  }
  plan_attention();
}

// Whether to cut contexts among threads: only where whole contexts would leave some without work.
void Decoder::plan_attention() {
  auto tasks = static_cast<int64_t>(blocks_.size()) * config_.kv_heads;
  int64_t floats = 0;
  chunk_tasks_ = 0;
  for (Block& block : blocks_) {
    block.partials = floats;
    chunk_tasks_ += int64_t{block.chunks} * config_.kv_heads;
    floats += block.chunks * config_.kv_heads * partial_floats(*cache_, queries(block, 0, 0));
  }
  split_ = crew_.size() > 1 && tasks < 4 * crew_.size() && chunk_tasks_ > tasks;
  if (split_) partials_.ensure(static_cast<size_t>(floats) * sizeof(float));
}

// Shares out `body`, then does `rows` for every row of the slice: within the same phase where they are few numbers,
// in one of its own where they are many. `between` runs once, before any row.
template <typename Body, typename Between, typename Rows>
void Decoder::phase(int64_t count, int64_t grain, Body&& body, Between&& between, int64_t width, Rows&& rows) {
  crew_.share(count, grain, body, [&] {
    between();
    if (alone(width)) rows(int64_t{0}, rows_);
  });
  if (!alone(width)) crew_.share(rows_, 1, rows);
}

template <typename Rows>
void Decoder::multiply_all(const Product* products, int n, const Input& input, int64_t width, Rows&& rows) {
  int64_t total = 0;
  for (int i = 0; i < n; ++i) total += panels(products[i].matrix->linear);
  auto multiply_panels = [&](int64_t first, int64_t last) {
    for (int i = 0; i < n; ++i) {
      const Linear& linear = products[i].matrix->linear;
      int64_t count = panels(linear), from = std::max(first, int64_t{0}), to = std::min(last, count);
      if (from < to) multiply(linear, input.for_linear(linear), 0, rows_, products[i].y, linear.outputs, from, to);
      first -= count;
      last -= count;
    }
  };
  // Several chunks a thread, so that one that is late takes fewer.
  // A multiple of 4: one row runs four panels side by side.
  int64_t grain = std::max(int64_t{4}, (total / (int64_t{crew_.size()} * 8) + 3) / 4 * 4);
  phase(total, grain, multiply_panels, [] {}, width, rows);
}

void Decoder::run_slice(int thread) {
  const Layer* layers = layers_.data();
  Input input = aim_at_attention(layers[0]);
  phase(0, 1, [](int64_t, int64_t) {}, [] {}, config_.dim, [&](int64_t first, int64_t last) {
    enter(first, last);
    norm_rows(layers[0].norms[0], first, last);
    quantise(input, first, last);
  });
  for (int index = 0; index < config_.layers; ++index) {
    const Layer& layer = layers[index];
    const Matrix* m = layer.matrices;
    bool last_layer = index + 1 == config_.layers;
    const Product qkv[] = {{&m[MG_WQ], q_.as<float>()}, {&m[MG_WK], k_.as<float>()}, {&m[MG_WV], v_.as<float>()}};
    multiply_all(qkv, 3, input, q_width_ + 2 * kv_width_,
                 [&](int64_t first, int64_t last) { rotate_and_keep(index, first, last); });
    // Nothing reads what the last layer makes of tokens whose logits nobody wants.
    if (last_layer && wanted_ == 0) return;
    input = aim(attended_, q_width_, {&m[MG_WO]});
    attention(index, thread, input);
    const Product out[] = {{&m[MG_WO], y_.as<float>()}};
    Input gated = aim(h_, config_.dim, {&m[MG_W1], &m[MG_W3]});
    multiply_all(out, 1, input, config_.dim, [&](int64_t first, int64_t last) {
      add_rows(first, last);
      norm_rows(layer.norms[1], first, last);
      quantise(gated, first, last);
    });
    const Product up[] = {{&m[MG_W1], gate_.as<float>()}, {&m[MG_W3], up_.as<float>()}};
    input = aim(gate_, config_.hidden, {&m[MG_W2]});
    multiply_all(up, 2, gated, config_.hidden, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row)
        swiglu(gate_.as<float>() + row * config_.hidden, up_.as<float>() + row * config_.hidden, config_.hidden);
      quantise(input, first, last);
    });
    const Product down[] = {{&m[MG_W2], y_.as<float>()}};
    Input next = last_layer ? aim(h_, config_.dim, {&output_}) : aim_at_attention(layers[index + 1]);
    multiply_all(down, 1, input, config_.dim, [&](int64_t first, int64_t last) {
      add_rows(first, last);
      norm_rows(last_layer ? norm_ : layers[index + 1].norms[0], first, last);
      quantise(next, first, last);
    });
    input = next;
  }
  const Product head[] = {{&output_, logits_ + int64_t{wanted_first_} * config_.vocab}};
  multiply_all(head, 1, input, 0, [](int64_t, int64_t) {});
}

Input Decoder::aim_at_attention(const Layer& layer) const {
  const Matrix* m = layer.matrices;
  return aim(h_, config_.dim, {&m[MG_WQ], &m[MG_WK], &m[MG_WV]});
}

// Where products with `matrices` find the rows `x`, and in which forms.
Input Decoder::aim(const Memory& x, int64_t inputs, std::initializer_list<const Matrix*> matrices) const {
  Input input;
  input.floats = {inputs, 0, x.as<float>(), nullptr, nullptr, nullptr};
  for (const Matrix* matrix : matrices) {
    if (!matrix->integer()) continue;
    int slot = 0;
    while (slot < input.groups && input.integers[slot].group != matrix->linear.group) ++slot;
    if (slot < input.groups) continue;
    input.integers[input.groups++] = {inputs,
                                      matrix->linear.group,
                                      x.as<float>(),
                                      integers_[slot].as<int8_t>(),
                                      scales_[slot].as<float>(),
                                      sums_[slot].as<int32_t>()};
  }
  return input;
}

void Decoder::quantise(const Input& input, int64_t first, int64_t last) const {
  for (int slot = 0; slot < input.groups; ++slot) quantize_rows(input.integers[slot], first, last);
}

// Embeddings, or features in their places, and the rotations of the slice's tokens.
void Decoder::enter(int64_t first, int64_t last) {
  const int64_t dim = config_.dim;
  const int32_t* places_end = step_.places + step_.place_count;
  for (int64_t row = first; row < last; ++row) {
    auto index = static_cast<int32_t>(first_ + row);
    float* x = x_.as<float>() + row * dim;
    const int32_t* place = std::lower_bound(step_.places, places_end, index);
    int64_t id = step_.ids[index];
    if (place != places_end && *place == index) {
      memcpy(x, step_.features + (place - step_.places) * dim, static_cast<size_t>(dim) * sizeof(float));
    } else if (embedding_format_ == MG_F32) {
      memcpy(x, embedding_.as<float>() + id * dim, static_cast<size_t>(dim) * sizeof(float));
    } else {
      const uint16_t* from = embedding_.as<uint16_t>() + id * dim;
      for (int64_t i = 0; i < dim; ++i) x[i] = from_bf16(from[i]);
    }
    rotation(positions_[static_cast<size_t>(row)], frequencies_.data(), config_.head_dim,
             tables_.as<float>() + row * 2 * config_.head_dim);
  }
}

void Decoder::add_rows(int64_t first, int64_t last) {
  add(x_.as<float>() + first * config_.dim, y_.as<float>() + first * config_.dim, (last - first) * config_.dim);
}

void Decoder::norm_rows(const std::vector<float>& norm, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row)
    rms_norm(x_.as<float>() + row * config_.dim, norm.data(), config_.eps, config_.dim,
             h_.as<float>() + row * config_.dim);
}

void Decoder::rotate_and_keep(int layer, int64_t first, int64_t last) {
  const int dim = config_.head_dim;
  // Scores are divided here, once a token, instead of once a key.
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  for (int64_t row = first; row < last; ++row) {
    const float* table = tables_.as<float>() + row * 2 * dim;
    float* key = k_.as<float>() + row * kv_width_;
    rotate(q_.as<float>() + row * q_width_, table, config_.heads, dim, scale);
    rotate(key, table, config_.kv_heads, dim, 1.0f);
    Slot slot = slots_[static_cast<size_t>(row)];
    for (int head = 0; head < config_.kv_heads; ++head)
      cache_->write(layer, slot.block, slot.offset, head, key + head * dim,
                    v_.as<float>() + row * kv_width_ + head * dim);
  }
}

Queries Decoder::queries(const Block& block, int layer, int kv_head) const {
  int group = config_.heads / config_.kv_heads;
  int64_t at = int64_t{block.row} * q_width_ + int64_t{kv_head} * group * config_.head_dim;
  return {block.table, layer,    kv_head, block.start, block.count, group, q_.as<float>() + at,
          q_width_,    attended_.as<float>() + at, q_width_};
}

void Decoder::attention(int layer, int thread, const Input& input) {
  float* scratch = work_.as<float>() + thread * work_floats_;
  const int heads = config_.kv_heads;
  auto between = [&] {
    if (layer + 1 == config_.layers) keep_wanted_rows();
  };
  auto rows = [&](int64_t first, int64_t last) { quantise(input, first, last); };
  const int64_t width = input.groups * q_width_, tasks = static_cast<int64_t>(blocks_.size()) * heads;
  if (!split_) {
    auto whole = [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task)
        attend(*cache_, queries(blocks_[static_cast<size_t>(task / heads)], layer, static_cast<int>(task % heads)),
               scratch);
    };
    phase(tasks, 1, whole, between, width, rows);
    return;
  }
  auto one_chunk = [&](int64_t task) {
    size_t index = 0;
    for (; task >= int64_t{blocks_[index].chunks} * heads; ++index) task -= int64_t{blocks_[index].chunks} * heads;
    const Block& block = blocks_[index];
    int head = static_cast<int>(task / block.chunks), chunk = static_cast<int>(task % block.chunks);
    Queries wanted = queries(block, layer, head);
    float* partial = partials_.as<float>() + block.partials + task * partial_floats(*cache_, wanted);
    attend_chunk(*cache_, wanted, chunk, partial, scratch);
  };
  crew_.share(chunk_tasks_, 1, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) one_chunk(task);
  });
  auto merged = [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const Block& block = blocks_[static_cast<size_t>(task / heads)];
      Queries wanted = queries(block, layer, static_cast<int>(task % heads));
      int64_t size = partial_floats(*cache_, wanted);
      merge_chunks(*cache_, wanted, partials_.as<float>() + block.partials + task % heads * block.chunks * size);
    }
  };
  phase(tasks, 1, merged, between, width, rows);
}

// Past the last attention only rows whose logits are wanted go on; they move up to the front.
void Decoder::keep_wanted_rows() {
  for (int i = 0; i < wanted_; ++i) {
    int64_t row = step_.rows[wanted_first_ + i] - first_;
    if (row == i) continue;
    float *x = x_.as<float>(), *attended = attended_.as<float>();
    std::copy_n(x + row * config_.dim, config_.dim, x + i * int64_t{config_.dim});
    std::copy_n(attended + row * q_width_, q_width_, attended + i * int64_t{q_width_});
  }
  rows_ = wanted_;
}

}  // namespace mg
