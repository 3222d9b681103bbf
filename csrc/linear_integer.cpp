// Products of int8 and int4 matrices: int8 activations, exact whole sums within a group, float32 sums over groups.
//
// Groups are added in their order, one fused multiply-add each, whatever the rows beside it.
#include <algorithm>

#include "linear_layout.hpp"

namespace mg {

namespace {

using simd::Floats;
using simd::Integers;

constexpr int64_t kGroups = 8192;  // of all rows in one pass, at most

// Activations of the rows that one kernel call takes; of each only those inputs that the call multiplies.
struct Rows {
  const int32_t* q;      // [inputs / 4][rows], four int8 in each
  const float* scales;   // [groups][rows]
  const void* shifts;    // [groups][rows]: int32 to take from the whole sums, or float to multiply the mins by
};

using Kernel = void (*)(const Block& block, const Layout& layout, ScaleType scale_type, const Rows& rows);

// Whole sums of 64 * kLines bytes of int4.
template <int kRows, int kLines, size_t kAhead>
inline void add_int4(Integers (&sums)[kRows], bool fresh, const uint8_t* weights, const int32_t* q) {
  simd::Partial partial[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) partial[r] = simd::start();
#pragma GCC unroll 1
  for (int line = 0; line < kLines; ++line) {
    simd::prefetch(weights + 64 * line + kAhead);
    const simd::Nibbles near = simd::load_near(weights + 64 * line);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) partial[r] = simd::dot(partial[r], near, q + 2 * line * kRows + r);
    const simd::Nibbles far = simd::load_far(weights + 64 * line);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) partial[r] = simd::dot(partial[r], far, q + (2 * line + 1) * kRows + r);
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
    sums[r] = fresh ? simd::finish(partial[r]) : simd::add(sums[r], simd::finish(partial[r]));
}

// Whole sums of one group of one panel. kGroup is its size, or 0 for any.
template <Format kFormat, int kGroup, int kRows, size_t kAhead>
inline void sum_group(Integers (&sums)[kRows], const uint8_t* weights, const int32_t* q, int64_t group) {
  if constexpr (kFormat == Format::int4 && kGroup == 32) {
    add_int4<kRows, 4, kAhead>(sums, true, weights, q);
  } else if constexpr (kFormat == Format::int4) {
    for (Integers& sum : sums) sum = simd::no_integers();
    int64_t k = 0;
    for (; k + 32 <= group; k += 32) add_int4<kRows, 4, kAhead>(sums, false, weights + 8 * k, q + k / 4 * kRows);
    if (k < group) add_int4<kRows, 2, kAhead>(sums, false, weights + 8 * k, q + k / 4 * kRows);
  } else {
    for (Integers& sum : sums) sum = simd::no_integers();
    for (int64_t k = 0; k < group; k += 4, weights += 64, q += kRows) {
      simd::prefetch(weights + kAhead);
      const simd::Bytes w = simd::load_bytes(weights);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) sums[r] = simd::dot(sums[r], w, q + r);
    }
  }
}

template <Format kFormat, bool kMins, int kGroup, int kRows, int kPanels>
void multiply_block(const Block& block, const Layout& layout, ScaleType scale_type, const Rows& rows) {
  constexpr bool kShifted = kFormat == Format::int4 ? !kMins : simd::kInt8Offset != 0;
  const int32_t* q = rows.q;
  const float* scales = rows.scales;
  const int32_t* shifts = static_cast<const int32_t*>(rows.shifts);
  const float* min_factors = static_cast<const float*>(rows.shifts);
  const uint8_t* weights = block.panel + static_cast<size_t>(block.first / layout.group) * layout.group_bytes;
  Floats totals[kRows][kPanels];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) totals[r][p] = load_outputs(block, r, p);
  for (int64_t k = block.first; k < block.last; k += layout.group) {
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const uint8_t* place = weights + static_cast<size_t>(p) * layout.panel_bytes;
      Integers sums[kRows];
      sum_group<kFormat, kGroup, kRows, ahead(kPanels)>(sums, place + layout.head, q, layout.group);
      const Floats scale = load_scales(scale_type, place);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const Integers whole = kShifted ? simd::subtract(sums[r], shifts[r]) : sums[r];
        const Floats factor = simd::multiply(scale, simd::broadcast(scales + r));
        totals[r][p] = simd::fma(simd::to_floats(whole), factor, totals[r][p]);
      }
      if constexpr (kMins) {
        const Floats min = load_scales(scale_type, place + layout.scale_line);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r)
          totals[r][p] = simd::fma(min, simd::broadcast(min_factors + r), totals[r][p]);
      }
    }
    weights += layout.group_bytes;
    q += layout.group / 4 * kRows;
    scales += kRows;
    shifts += kRows;
    min_factors += kRows;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) store_outputs(block, r, p, totals[r][p]);
}

template <Format kFormat, bool kMins, int kGroup, int kRows>
Kernel find_kernel(int64_t rows, bool wide) {
  if (rows == kRows) {
    constexpr int kWide = panels_together(kRows);
    return wide ? multiply_block<kFormat, kMins, kGroup, kRows, kWide>
                : multiply_block<kFormat, kMins, kGroup, kRows, 1>;
  }
  if constexpr (kRows > 1) return find_kernel<kFormat, kMins, kGroup, kRows - 1>(rows, wide);
  return nullptr;
}

Kernel kernel_for(const Linear& linear, int64_t rows, bool wide) {
  constexpr int kMost = simd::kIntegerRows;
  if (linear.format == Format::int8) return find_kernel<Format::int8, false, 0, kMost>(rows, wide);
  if (linear.group == 32 && linear.has_min) return find_kernel<Format::int4, true, 32, kMost>(rows, wide);
  if (linear.group == 32) return find_kernel<Format::int4, false, 32, kMost>(rows, wide);
  if (linear.has_min) return find_kernel<Format::int4, true, 0, kMost>(rows, wide);
  return find_kernel<Format::int4, false, 0, kMost>(rows, wide);
}

// Room for the activations of all rows of one pass.
struct Scratch {
  alignas(64) int32_t q[kScratch / sizeof(int32_t)];
  float scales[kGroups];
  union {
    int32_t shifts[kGroups];
    float min_factors[kGroups];
  };
};

// Lays `count` rows side by side for one kernel call, in `scratch` from what earlier calls have left of it.
Rows interleave(Scratch& scratch, const Linear& linear, const Activations& activations, int64_t row, int64_t count,
                int64_t first, int64_t last, int64_t before) {
  const int64_t words = (last - first) / 4, groups = (last - first) / linear.group;
  const int64_t all_groups = linear.inputs / linear.group, first_group = first / linear.group;
  int32_t* q = scratch.q + before * words;
  const int8_t* source = activations.q + row * linear.inputs + first;
  for (int64_t r = 0; r < count && count > 1; ++r) {
    const int8_t* from = source + r * linear.inputs;
    for (int64_t word = 0; word < words; ++word) std::memcpy(q + word * count + r, from + 4 * word, 4);
  }
  const int32_t offset = linear.format == Format::int4 ? 8 : simd::kInt8Offset;
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t from = (row + r) * all_groups + first_group + g, to = (before * groups) + g * count + r;
      scratch.scales[to] = activations.scales[from];
      if (linear.has_min) {
        scratch.min_factors[to] = activations.scales[from] * static_cast<float>(activations.sums[from]);
      } else {
        scratch.shifts[to] = offset * activations.sums[from];
      }
    }
  }
  // One row lies as the kernel wants it already. Rows begin at multiples of 16 bytes.
  const void* packed = count == 1 ? static_cast<const void*>(source) : q;
  return {static_cast<const int32_t*>(packed), scratch.scales + before * groups, scratch.shifts + before * groups};
}

// How many rows take part in a pass, and how many inputs of each: what the scratch memory has room for.
struct Pass {
  int64_t rows, inputs;
};
Pass plan(const Linear& linear, int64_t rows) {
  const int64_t together = std::min(rows, kRowsTogether), group = linear.group;
  const int64_t most = together == 1 ? linear.inputs : static_cast<int64_t>(kScratch) / together;
  const int64_t groups = std::max<int64_t>(1, std::min(most / group, kGroups / together));
  const int64_t fit = std::max<int64_t>(1, static_cast<int64_t>(kScratch) / (groups * group));
  return {std::min(together, fit), groups * group};
}

}  // namespace

void multiply_integers(const Linear& linear, const Activations& activations, int64_t first_row, int64_t last_row,
                       float* y, int64_t y_stride, int64_t first_panel, int64_t last_panel) {
  const Layout layout = layout_of(linear);
  const int64_t rows = last_row - first_row;
  if (rows <= 0 || first_panel >= last_panel) return;
  Scratch scratch;
  const Pass pass = plan(linear, rows);
  const int64_t parts = (rows + pass.rows - 1) / pass.rows;
  Rows blocks_of[kRowsTogether];
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t from = first_row + part_start(rows, parts, part), to = first_row + part_start(rows, parts, part + 1);
    const int64_t count = to - from, blocks = (count + simd::kIntegerRows - 1) / simd::kIntegerRows;
    const int64_t together = panels_together(count);
    for (int64_t first = 0, last; first < linear.inputs; first = last) {
      last = std::min(first + pass.inputs, linear.inputs);
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t start = part_start(count, blocks, b), end = part_start(count, blocks, b + 1);
        blocks_of[b] = interleave(scratch, linear, activations, from + start, end - start, first, last, start);
      }
      for (int64_t panel = first_panel; panel < last_panel;) {
        const bool wide = blocks == 1 && panel + together <= last_panel;
        const uint8_t* weights = linear.data + static_cast<size_t>(panel) * layout.panel_bytes;
        const uint8_t* next =
            weights + layout.panel_bytes + static_cast<size_t>(first / layout.group) * layout.group_bytes;
        for (int64_t b = 0; b < blocks; ++b) {
          const int64_t start = part_start(count, blocks, b), end = part_start(count, blocks, b + 1);
          const int64_t output = panel * kPanel;
          const Block block{weights, first, last, y + (from + start) * y_stride + output, y_stride,
                            linear.outputs - output};
          if (blocks > 1 && b == blocks - 1) prefetch_start(next);
          kernel_for(linear, end - start, wide)(block, layout, linear.scale_type, blocks_of[b]);
        }
        panel += wide ? together : 1;
      }
    }
  }
}

}  // namespace mg
