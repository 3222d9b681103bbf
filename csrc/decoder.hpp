// The text network with its weights packed, and one step of it.
//
// A step is cut into slices of rows; a slice goes through all layers. Within a layer every matrix product, attention
// and (for many rows) row-wise part is a phase that the crew shares out. Slices, chunks and threads change no bits.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "attention.hpp"
#include "cache.hpp"
#include "crew.hpp"
#include "magister.h"
#include "matrix.hpp"
#include "memory.hpp"
#include "step.hpp"

namespace mg {

struct Layer {
  Matrix matrices[7];                  // MG_WQ to MG_W3
  std::vector<float> norms[2];         // before attention, before the gate
};

// Rows that go into matrices, in float and, once for each group that a matrix asks for, in int8.
struct Input {
  static constexpr int kGroups = 3;
  Activations floats{};
  Activations integers[kGroups];
  int groups = 0;

  // The form that `linear` reads.
  const Activations& for_linear(const Linear& linear) const;
};

class Decoder {
 public:
  // Throws Failure for shapes that make no network, and what Crew throws.
  Decoder(const mg_config& config, const float* frequencies, int threads);

  void put_norm(int layer, int part, const float* values);
  void put_embedding(int32_t format, const void* values);
  void put_matrix(int layer, int part, int32_t format, int32_t group, int32_t scale_type, const void* values,
                  const float* scales, const float* mins);
  int64_t bytes() const;

  void forward(const Cache& cache, const int32_t* message, int64_t length, const float* features, float* logits);

 private:
  // Neighbouring new tokens of one span, few enough for one attention task per kv head.
  struct Block {
    const int32_t* table;
    int start, count;  // position of the first, tokens
    int row;           // in the slice
    int chunks;
    int64_t partials;  // where in partials_ those of its first kv head begin, if the context is split
  };
  struct Product {
    const Matrix* matrix;
    float* y;
  };

  struct Slot {
    int32_t block;
    int offset;
  };

  bool complete() const;
  Matrix& matrix_at(int layer, int part);
  void make_room(const Cache& cache);

  void plan_slice(int first, int count);
  void plan_attention();
  // A slice, on every thread alike.
  void run_slice(int thread);
  void attention(int layer, int thread, const Input& input);
  template <typename Rows>
  void multiply_all(const Product* products, int n, const Input& input, int64_t width, Rows&& rows);
  template <typename Body, typename Between, typename Rows>
  void phase(int64_t count, int64_t grain, Body&& body, Between&& between, int64_t width, Rows&& rows);
  bool alone(int64_t width) const { return crew_.size() == 1 || rows_ * width <= kAloneNumbers; }

  Input aim(const Memory& x, int64_t inputs, std::initializer_list<const Matrix*> matrices) const;
  Input aim_at_attention(const Layer& layer) const;
  Queries queries(const Block& block, int layer, int kv_head) const;
  void keep_wanted_rows();

  // Row-wise parts, for rows [first, last) of the slice.
  void enter(int64_t first, int64_t last);
  void add_rows(int64_t first, int64_t last);
  void norm_rows(const std::vector<float>& norm, int64_t first, int64_t last);
  void rotate_and_keep(int layer, int64_t first, int64_t last);
  void quantise(const Input& input, int64_t first, int64_t last) const;

  // Numbers in row-wise work below which sharing it out costs more than it saves.
  static constexpr int64_t kAloneNumbers = 1 << 15;
  static constexpr int kSliceRows = 512;

  const mg_config config_;
  const int q_width_, kv_width_, block_tokens_;
  std::vector<float> frequencies_;
  std::vector<Layer> layers_;
  std::vector<float> norm_;
  Matrix output_;
  Memory embedding_;
  int32_t embedding_format_ = -1;
  Crew crew_;

  // Of the step and the slice that is being computed.
  Step step_{};
  const Cache* cache_ = nullptr;
  float* logits_ = nullptr;
  int64_t first_ = 0, rows_ = 0;      // of the slice: index of its first token, its rows
  int wanted_first_ = 0, wanted_ = 0; // of step_.rows: those in the slice
  bool split_ = false;
  int64_t chunk_tasks_ = 0;
  std::vector<Block> blocks_;
  std::vector<int> positions_;        // of each row
  std::vector<Slot> slots_;

  // Scratch; each grows to the largest slice and stays.
  Memory x_, h_, y_, q_, k_, v_, attended_, gate_, up_, tables_, partials_, work_;
  Memory integers_[Input::kGroups], scales_[Input::kGroups], sums_[Input::kGroups];
  int64_t work_floats_ = 0;
};

}  // namespace mg
