// How a packed matrix lies in memory, and what the kernels of every format share. Knows no arithmetic.
//
// A panel is 16 outputs. It is a run of groups, each a line of 16 scales, a line of 16 mins where there are mins, and
// the values; f32 and bf16 matrices are one group without scales. Values lie by input: f32, bf16 and fp8 have the 16
// outputs of an input side by side; int8 has 64 bytes for 4 inputs, four neighbouring bytes an output; int4 has the
// same for 8 inputs, the first 4 in the low nibbles. So one stream is read from end to end, and no lane is ever summed
// with its neighbour.
#pragma once

#include <cstring>

#include "linear.hpp"
#include "simd.hpp"

namespace mg {

struct Layout {
  int64_t group;        // inputs; all of them for f32 and bf16
  size_t scale_line;    // bytes of 16 scales, 0 without
  size_t head;          // bytes of scales and mins before the values of a group
  size_t input_bytes;   // 16 values of one input; int4: half of a byte each
  size_t group_bytes;   // head and values
  size_t panel_bytes;   // from one panel to the next, whole cache lines
};

inline Layout layout_of(const Linear& linear) {
  constexpr size_t kInputBytes[] = {64, 32, 16, 16, 8};  // by Format
  Layout layout{};
  layout.group = linear.group > 0 ? linear.group : linear.inputs;
  if (linear.group > 0) layout.scale_line = linear.scale_type == ScaleType::f32 ? 64 : 32;
  layout.head = layout.scale_line * (linear.has_min ? 2 : 1);
  layout.input_bytes = kInputBytes[static_cast<int>(linear.format)];
  layout.group_bytes = layout.head + layout.input_bytes * static_cast<size_t>(layout.group);
  const size_t groups = layout.group > 0 ? static_cast<size_t>(linear.inputs / layout.group) : 0;
  layout.panel_bytes = (groups * layout.group_bytes + 63) / 64 * 64;
  return layout;
}

// Weights of a panel and rows of activations that a kernel multiplies, from one input to another.
struct Block {
  const uint8_t* panel;   // first output, first input of the matrix
  int64_t first, last;    // inputs
  float* y;               // of the first row and output; what is there is added to unless `first` is 0
  int64_t y_stride;
  int64_t outputs;        // of the matrix from this panel on
};

inline simd::Floats load_outputs(const Block& block, int row, int panel) {
  const float* y = block.y + row * block.y_stride + panel * kPanel;
  const int64_t count = block.outputs - panel * kPanel;
  if (block.first == 0) return simd::zeros();
  if (count >= kPanel) return simd::load_f32(y);
  float lanes[kPanel] = {};
  std::memcpy(lanes, y, static_cast<size_t>(count) * sizeof(float));
  return simd::load_f32(lanes);
}

inline void store_outputs(const Block& block, int row, int panel, const simd::Floats& value) {
  float* y = block.y + row * block.y_stride + panel * kPanel;
  const int64_t count = block.outputs - panel * kPanel;
  if (count >= kPanel) return simd::store(y, value);
  float lanes[kPanel];
  simd::store(lanes, value);
  std::memcpy(y, lanes, static_cast<size_t>(count) * sizeof(float));
}

inline simd::Floats load_scales(ScaleType type, const uint8_t* p) {
  if (type == ScaleType::f16) return simd::load_f16(p);
  if (type == ScaleType::bf16) return simd::load_bf16(p);
  return simd::load_f32(p);
}

// `total` things in `parts` parts that differ by one at most: where part `i` starts.
inline int64_t part_start(int64_t total, int64_t parts, int64_t i) { return total * i / parts; }

// Rows that share one packed piece of activations, and with it one reading of the weights, at most.
constexpr int64_t kRowsTogether = 96;
constexpr size_t kScratch = 128 * 1024;  // bytes of activations on the stack: a quarter of a common L2 cache

// Several panels multiplied side by side are several streams from memory, which come faster than one; and one row's
// sums depend each on the one before, so they also fill the pipeline. With more rows there are no registers for it.
constexpr int panels_together(int64_t rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }

// Bytes between the weights of a panel that are multiplied and those asked for meanwhile (measured).
constexpr size_t ahead(int panels) { return panels > 1 ? 1024 : 2048; }

// Asks for the weights at p, which are next, as far as the kernels themselves do not ask ahead.
inline void prefetch_start(const uint8_t* p) {
  for (size_t byte = 0; byte < ahead(1); byte += 64) simd::prefetch(p + byte);
}

// The product for the formats of linear_float.cpp and linear_integer.cpp; arguments as in `multiply`.
void multiply_floats(const Linear& linear, const Activations& activations, int64_t first_row, int64_t last_row,
                     float* y, int64_t y_stride, int64_t first_panel, int64_t last_panel);
void multiply_integers(const Linear& linear, const Activations& activations, int64_t first_row, int64_t last_row,
                       float* y, int64_t y_stride, int64_t first_panel, int64_t last_panel);

}  // namespace mg
