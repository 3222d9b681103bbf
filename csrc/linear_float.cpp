// Products of f32, bf16 and fp8 matrices: float32 activations, float32 sums.
//
// Every sum runs over the inputs in their order, one fused multiply-add each, whatever the rows beside it; fp8 sums
// each group in pieces of at most kPiece inputs, which the group's scale then multiplies.
#include <algorithm>

#include "linear_layout.hpp"

namespace mg {

namespace {

using simd::Floats;

constexpr int64_t kPiece = 256;  // inputs

using Kernel = void (*)(const Block& block, const Layout& layout, ScaleType scale_type, const float* x);

template <Format kFormat>
Floats load_weights(const uint8_t* p) {
  if constexpr (kFormat == Format::f32) return simd::load_f32(p);
  if constexpr (kFormat == Format::bf16) return simd::load_bf16(p);
  if constexpr (kFormat == Format::fp8) return simd::load_fp8(p);
}

// sums[row][panel] += x[input][row] * weights[panel][input] for `inputs` inputs.
template <Format kFormat, int kRows, int kPanels>
inline void add_products(Floats (&sums)[kRows][kPanels], const uint8_t* weights, const Layout& layout, const float* x,
                         int64_t inputs) {
  constexpr size_t kInputBytes = kFormat == Format::f32 ? 64 : kFormat == Format::bf16 ? 32 : 16;
  for (int64_t k = 0; k < inputs; ++k) {
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const uint8_t* place = weights + static_cast<size_t>(p) * layout.panel_bytes;
      simd::prefetch(place + ahead(kPanels));
      const Floats w = load_weights<kFormat>(place);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) sums[r][p] = simd::fma(simd::broadcast(x + r), w, sums[r][p]);
    }
    weights += kInputBytes;
    x += kRows;
  }
}

// Where the piece of fp8 that begins at `first` ends: a group's end, or kPiece inputs later.
int64_t piece_end(int64_t group, int64_t first) {
  const int64_t start = first / group * group;
  return std::min(first + kPiece, start + group);
}

template <int kRows, int kPanels>
void add_pieces(Floats (&sums)[kRows][kPanels], const Block& block, const Layout& layout, ScaleType scale_type,
                const float* x) {
  constexpr float kUnit = 256.0f;  // load_fp8 gives 1/256 of the number
  for (int64_t k = block.first, end; k < block.last; x += (end - k) * kRows, k = end) {
    end = piece_end(layout.group, k);
    const int64_t group = k / layout.group;
    const uint8_t* scales = block.panel + static_cast<size_t>(group) * layout.group_bytes;
    const size_t skip = layout.head + layout.input_bytes * static_cast<size_t>(k - group * layout.group);
    Floats piece[kRows][kPanels];
    for (auto& row : piece)
      for (Floats& sum : row) sum = simd::zeros();
    add_products<Format::fp8, kRows, kPanels>(piece, scales + skip, layout, x, end - k);
    for (int p = 0; p < kPanels; ++p) {
      const Floats stored = load_scales(scale_type, scales + static_cast<size_t>(p) * layout.panel_bytes);
      const Floats scale = simd::multiply(stored, simd::broadcast(&kUnit));
      for (int r = 0; r < kRows; ++r) sums[r][p] = simd::fma(piece[r][p], scale, sums[r][p]);
    }
  }
}

template <Format kFormat, int kRows, int kPanels>
void multiply_block(const Block& block, const Layout& layout, ScaleType scale_type, const float* x) {
  Floats sums[kRows][kPanels];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) sums[r][p] = load_outputs(block, r, p);
  if constexpr (kFormat == Format::fp8) {
    add_pieces<kRows, kPanels>(sums, block, layout, scale_type, x);
  } else {
    const uint8_t* weights = block.panel + layout.input_bytes * static_cast<size_t>(block.first);
    add_products<kFormat, kRows, kPanels>(sums, weights, layout, x, block.last - block.first);
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) store_outputs(block, r, p, sums[r][p]);
}

template <Format kFormat, int kRows>
Kernel find_kernel(int64_t rows, bool wide) {
  if (rows == kRows) {
    constexpr int kWide = panels_together(kRows);
    return wide ? multiply_block<kFormat, kRows, kWide> : multiply_block<kFormat, kRows, 1>;
  }
  if constexpr (kRows > 1) return find_kernel<kFormat, kRows - 1>(rows, wide);
  return nullptr;
}

Kernel kernel_for(Format format, int64_t rows, bool wide) {
  if (format == Format::f32) return find_kernel<Format::f32, simd::kFloatRows>(rows, wide);
  if (format == Format::bf16) return find_kernel<Format::bf16, simd::kFloatRows>(rows, wide);
  return find_kernel<Format::fp8, simd::kFloatRows>(rows, wide);
}

// x of the rows that one kernel call takes, [inputs][rows].
void interleave(float* to, const Activations& activations, int64_t row, int64_t rows, int64_t first, int64_t last) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* x = activations.x + (row + r) * activations.inputs;
    for (int64_t k = first; k < last; ++k) to[(k - first) * rows + r] = x[k];
  }
}

// The last input that one pass over the panels takes: about `inputs` more than `first`, fp8 in whole pieces.
int64_t pass_end(const Linear& linear, int64_t first, int64_t inputs) {
  if (linear.format != Format::fp8) return std::min(first + inputs, linear.inputs);
  int64_t end = piece_end(linear.group, first);
  while (end < linear.inputs && piece_end(linear.group, end) - first <= inputs) end = piece_end(linear.group, end);
  return end;
}

}  // namespace

void multiply_floats(const Linear& linear, const Activations& activations, int64_t first_row, int64_t last_row,
                     float* y, int64_t y_stride, int64_t first_panel, int64_t last_panel) {
  const Layout layout = layout_of(linear);
  const int64_t rows = last_row - first_row;
  if (rows <= 0 || first_panel >= last_panel) return;
  alignas(64) float scratch[kScratch / sizeof(float)];
  constexpr int64_t kRoom = kScratch / sizeof(float);
  const int64_t parts = (rows + kRowsTogether - 1) / kRowsTogether;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t from = first_row + part_start(rows, parts, part), to = first_row + part_start(rows, parts, part + 1);
    const int64_t count = to - from, blocks = (count + simd::kFloatRows - 1) / simd::kFloatRows;
    const int64_t inputs = count == 1 ? linear.inputs : kRoom / count;
    const int64_t together = panels_together(count);
    for (int64_t first = 0, last; first < linear.inputs; first = last) {
      last = pass_end(linear, first, inputs);
      for (int64_t b = 0; b < blocks && count > 1; ++b) {
        const int64_t start = part_start(count, blocks, b), end = part_start(count, blocks, b + 1);
        interleave(scratch + start * (last - first), activations, from + start, end - start, first, last);
      }
      const float* x = count == 1 ? activations.x + from * linear.inputs + first : scratch;
      for (int64_t panel = first_panel; panel < last_panel;) {
        const bool wide = blocks == 1 && panel + together <= last_panel;
        const uint8_t* weights = linear.data + static_cast<size_t>(panel) * layout.panel_bytes;
        const uint8_t* next = weights + layout.panel_bytes + layout.input_bytes * static_cast<size_t>(first);
        for (int64_t b = 0; b < blocks; ++b) {
          const int64_t start = part_start(count, blocks, b), end = part_start(count, blocks, b + 1);
          const int64_t output = panel * kPanel;
          const Block block{weights, first, last, y + (from + start) * y_stride + output, y_stride,
                            linear.outputs - output};
          if (blocks > 1 && b == blocks - 1) prefetch_start(next);
          kernel_for(linear.format, end - start, wide)(block, layout, linear.scale_type,
                                                       x + start * (last - first));
        }
        panel += wide ? together : 1;
      }
    }
  }
}

}  // namespace mg
