// Packing of matrices, rounding of activations, and which kernels a format goes to.
#include "linear.hpp"

#include <cassert>
#include <cmath>
#include <limits>

#include "linear_layout.hpp"

namespace mg {

namespace {

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Rounds to the nearest, halves to even. NaN stays NaN.
uint16_t to_bf16(float value) {
  const uint32_t bits = bits_of(value);
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

uint16_t to_f16(float value) {
  const uint16_t sign = static_cast<uint16_t>(bits_of(value) >> 16 & 0x8000);
  const float size = std::fabs(value);
  if (value != value) return static_cast<uint16_t>(sign | 0x7e00);
  if (size >= 65520.0f) return static_cast<uint16_t>(sign | 0x7c00);
  // Adding a number whose last bit is float16's last bit at this size rounds, as addition does: halves to even.
  if (size < 0x1p-14f) return static_cast<uint16_t>(sign | (bits_of(size + 0.5f) & 0x7ff));
  const uint32_t bits = bits_of(size);
  return static_cast<uint16_t>(sign | (bits + 0xfff + (bits >> 13 & 1) - (112u << 23)) >> 13);
}

void put_scale(ScaleType type, uint8_t* line, int64_t slot, float value) {
  if (type == ScaleType::f32) {
    std::memcpy(line + 4 * slot, &value, 4);
    return;
  }
  const bool half = type == ScaleType::f16;
  const uint16_t number = half ? to_f16(value) : to_bf16(value);
  std::memcpy(line + 2 * (half ? slot : simd::bf16_place(static_cast<int>(slot))), &number, 2);
}

// One row of f32 (4 bytes), bf16 (2) or fp8 (1) values of a group into its place among 16.
template <typename Number>
void put_numbers(uint8_t* to, int64_t slot, const uint8_t* from, int64_t inputs) {
  for (int64_t k = 0; k < inputs; ++k)
    std::memcpy(to + (k * kPanel + slot) * sizeof(Number), from + k * sizeof(Number), sizeof(Number));
}

void put_int8(uint8_t* to, int64_t slot, const uint8_t* from, int64_t inputs) {
  for (int64_t k = 0; k < inputs; k += 4) std::memcpy(to + k * kPanel + slot * 4, from + k, 4);
}

// Nibbles 0..3 of `packed` to the low halves of four bytes.
uint32_t spread(uint32_t packed) {
  packed = (packed | packed << 8) & 0x00ff00ff;
  return (packed | packed << 4) & 0x0f0f0f0f;
}

void put_int4(uint8_t* to, int64_t slot, const uint8_t* from, int64_t inputs) {
  for (int64_t k = 0; k < inputs; k += 8) {
    const uint8_t* four = from + k / 2;
    const uint32_t near = spread(static_cast<uint32_t>(four[0] | four[1] << 8));
    const uint32_t far = spread(static_cast<uint32_t>(four[2] | four[3] << 8));
    const uint32_t both = near | far << 4;
    std::memcpy(to + k * 8 + slot * 4, &both, 4);
  }
}

bool has_nan(const uint8_t* fp8, int64_t inputs) {
  bool found = false;
  for (int64_t k = 0; k < inputs; ++k) found |= (fp8[k] & 0x7f) == 0x7f;
  return found;
}

size_t row_bytes(const Linear& linear, int64_t inputs) {
  constexpr int kHalfBytes[] = {8, 4, 2, 2, 1};  // by Format
  return static_cast<size_t>(inputs * kHalfBytes[static_cast<int>(linear.format)] / 2);
}

// One group of one row. The decoders of fp8 know no NaN, so a scale of NaN stands for one: it has the same result.
void pack_group(const Linear& linear, const Layout& layout, uint8_t* to, int64_t slot, const uint8_t* from, float scale,
                float min) {
  if (linear.format == Format::fp8 && has_nan(from, layout.group)) scale = std::numeric_limits<float>::quiet_NaN();
  if (layout.scale_line > 0) put_scale(linear.scale_type, to, slot, scale);
  if (linear.has_min) put_scale(linear.scale_type, to + layout.scale_line, slot, min);
  uint8_t* values = to + layout.head;
  switch (linear.format) {
    case Format::f32: return put_numbers<float>(values, slot, from, layout.group);
    case Format::bf16:
      return put_numbers<uint16_t>(values, simd::bf16_place(static_cast<int>(slot)), from, layout.group);
    case Format::fp8: return put_numbers<uint8_t>(values, slot, from, layout.group);
    case Format::int8: return put_int8(values, slot, from, layout.group);
    case Format::int4: return put_int4(values, slot, from, layout.group);
  }
}

}  // namespace

size_t packed_bytes(const Linear& linear) {
  return static_cast<size_t>(panels(linear)) * layout_of(linear).panel_bytes;
}

void pack_rows(Linear& linear, int64_t first, int64_t count, const void* values, const float* scales,
               const float* mins) {
  assert(first >= 0 && first + count <= linear.outputs);
  const Layout layout = layout_of(linear);
  const int64_t groups = linear.inputs / layout.group, last = first + count;
  const size_t stride = row_bytes(linear, linear.inputs), step = row_bytes(linear, layout.group);
  const uint8_t* from = static_cast<const uint8_t*>(values);
  for (int64_t row = first; row < last;) {  // panel by panel, and in it group by group, to write what lies together
    const int64_t panel = row / kPanel, end = panel * kPanel + kPanel < last ? panel * kPanel + kPanel : last;
    uint8_t* to = linear.data + static_cast<size_t>(panel) * layout.panel_bytes;
    if (row == panel * kPanel && end == linear.outputs) std::memset(to, 0, layout.panel_bytes);
    for (int64_t group = 0; group < groups; ++group, to += layout.group_bytes) {
      for (int64_t r = row; r < end; ++r) {
        const int64_t number = (r - first) * groups + group;
        pack_group(linear, layout, to, r % kPanel, from + static_cast<size_t>(r - first) * stride + group * step,
                   scales == nullptr ? 0.0f : scales[number], mins == nullptr ? 0.0f : mins[number]);
      }
    }
    row = end;
  }
}

void quantize_rows(const Activations& activations, int64_t first, int64_t last) {
  const int64_t group = activations.group, groups = activations.inputs / group;
  for (int64_t number = first * groups; number < last * groups; ++number) {
    const float* x = activations.x + number * group;
    int8_t* q = activations.q + number * group;
    // As whole numbers the sizes of floats keep their order, with NaN the largest: no branch, and NaN is not lost.
    int32_t largest_bits = 0;
    for (int64_t k = 0; k < group; ++k) {
      const int32_t size = static_cast<int32_t>(bits_of(x[k]) & 0x7fffffff);
      largest_bits = size > largest_bits ? size : largest_bits;
    }
    float largest;
    std::memcpy(&largest, &largest_bits, sizeof largest);
    const float inverse = 127.0f / largest;
    int32_t sum = 0;
    if (largest_bits < 0x7f800000 && inverse <= std::numeric_limits<float>::max()) {
      constexpr float kRound = 0x1.8p23f;  // a float of this size has no fraction, so adding it rounds half to even
      for (int64_t k = 0; k < group; ++k) {
        const int32_t whole = static_cast<int32_t>(bits_of(x[k] * inverse + kRound) - bits_of(kRound));
        const int32_t kept = whole > 127 ? 127 : whole < -127 ? -127 : whole;
        q[k] = static_cast<int8_t>(kept);
        sum += kept;
      }
    } else {
      std::memset(q, 0, static_cast<size_t>(group));
    }
    const bool finite = largest_bits < 0x7f800000;
    activations.scales[number] = finite ? largest / 127.0f : std::numeric_limits<float>::quiet_NaN();
    activations.sums[number] = sum;
  }
}

void multiply(const Linear& linear, const Activations& activations, int64_t first_row, int64_t last_row, float* y,
              int64_t y_stride, int64_t first_panel, int64_t last_panel) {
  assert(activations.inputs == linear.inputs);
  const bool integer = linear.format == Format::int8 || linear.format == Format::int4;
  assert(!integer || activations.group == linear.group);
  const auto kernels = integer ? multiply_integers : multiply_floats;
  kernels(linear, activations, first_row, last_row, y, y_stride, first_panel, last_panel);
}

}  // namespace mg
