// Checks the products of csrc/linear.hpp against sums in double on small matrices of every format, for processors that
// run no Python here. Prints one line a case with a digest of the result's bits; exits with 1 if a number is off.
//
// Random numbers are whole-number arithmetic, so that every processor sees the same cases.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "linear.hpp"
#include "simd.hpp"

namespace {

uint32_t state = 1;
uint32_t random_bits() {
  state = state * 1664525u + 1013904223u;
  return state >> 8;
}
float random_float() { return static_cast<float>(static_cast<int>(random_bits() & 0xffff) - 0x8000) / 0x4000; }

float fp8_value(uint8_t byte) {
  const int exponent = byte >> 3 & 15, fraction = byte & 7;
  const float size = exponent > 0 ? std::ldexp(8.0f + fraction, exponent - 10) : std::ldexp(1.0f * fraction, -9);
  return byte & 0x80 ? -size : size;
}

// A matrix as a checkpoint holds it, and the numbers that it stands for.
struct Case {
  mg::Linear linear{};
  std::vector<uint8_t> values;
  std::vector<float> scales, mins, numbers;
  float* packed = nullptr;
};

void fill(Case& made) {
  mg::Linear& linear = made.linear;
  const int64_t groups = linear.group > 0 ? linear.inputs / linear.group : 0;
  for (int64_t i = 0; i < linear.outputs * groups; ++i) {
    made.scales.push_back(static_cast<float>(1 + (random_bits() & 127)) / 64);  // exact in every scale type
    if (linear.has_min) made.mins.push_back(-static_cast<float>(random_bits() & 127) / 16);
  }
  for (int64_t i = 0; i < linear.outputs * linear.inputs; ++i) {
    const int64_t row = i / linear.inputs, group = groups > 0 ? row * groups + i % linear.inputs / linear.group : 0;
    const uint32_t bits = random_bits();
    float number = 0;
    if (linear.format == mg::Format::f32 || linear.format == mg::Format::bf16) {
      number = static_cast<float>(static_cast<int>(bits & 255) - 128) / 64;
      uint8_t bytes[4];
      std::memcpy(bytes, &number, 4);
      made.values.insert(made.values.end(), bytes + (linear.format == mg::Format::f32 ? 0 : 2), bytes + 4);
    } else if (linear.format == mg::Format::int4) {
      if (i % 2 == 0) made.values.push_back(0);
      made.values.back() = static_cast<uint8_t>(made.values.back() | (bits & 15) << (i % 2 * 4));
      number = linear.has_min ? (bits & 15) * made.scales[group] + made.mins[group]
                              : (static_cast<int>(bits & 15) - 8) * made.scales[group];
    } else {
      const uint8_t byte = linear.format == mg::Format::fp8 ? bits % 255 == 127 ? 0 : bits % 255
                                                            : static_cast<uint8_t>(static_cast<int>(bits % 255) - 127);
      made.values.push_back(byte);
      number = (linear.format == mg::Format::fp8 ? fp8_value(byte) : static_cast<int8_t>(byte)) * made.scales[group];
    }
    made.numbers.push_back(number);
  }
  const size_t bytes = mg::packed_bytes(linear);
  linear.data = static_cast<uint8_t*>(std::aligned_alloc(64, bytes));
  std::memset(linear.data, 0xa5, bytes);
  const int64_t first = linear.outputs / 3;  // in two parts
  mg::pack_rows(linear, 0, first, made.values.data(), made.scales.data(), made.mins.data());
  const size_t row_bytes = made.values.size() / static_cast<size_t>(linear.outputs);
  mg::pack_rows(linear, first, linear.outputs - first, made.values.data() + static_cast<size_t>(first) * row_bytes,
                made.scales.data() + first * groups, made.mins.data() + (linear.has_min ? first * groups : 0));
}

// How far the product of `rows` rows is off, of its largest number, and the digest of its bits.
double measure(const Case& made, int64_t rows, uint32_t& digest) {
  const mg::Linear& linear = made.linear;
  const bool integer = linear.format >= mg::Format::int8;
  const int64_t groups = integer ? linear.inputs / linear.group : 1;
  std::vector<float> x(static_cast<size_t>(rows * linear.inputs)), scales(static_cast<size_t>(rows * groups));
  std::vector<float> y(static_cast<size_t>(rows * linear.outputs));
  std::vector<int8_t> q(x.size());
  std::vector<int32_t> sums(scales.size());
  for (float& number : x) number = random_float();
  const mg::Activations activations{linear.inputs, integer ? linear.group : 0, x.data(), q.data(), scales.data(),
                                    sums.data()};
  if (integer) mg::quantize_rows(activations, 0, rows);
  mg::multiply(linear, activations, 0, rows, y.data(), linear.outputs, 0, mg::panels(linear));
  double largest = 0, off = 0;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t output = 0; output < linear.outputs; ++output) {
      double wanted = 0;
      for (int64_t k = 0; k < linear.inputs; ++k) {
        const int64_t place = row * linear.inputs + k;
        const double value = integer ? q[place] * static_cast<double>(scales[row * groups + k / linear.group]) : x[place];
        if (std::fabs(value - x[place]) > 0.01) return 1e9;  // a step of int8 at the largest activation is 0.016
        wanted += value * made.numbers[output * linear.inputs + k];
      }
      off = std::max(off, std::fabs(wanted - y[row * linear.outputs + output]));
      largest = std::max(largest, std::fabs(wanted));
    }
  }
  digest = 2166136261u;
  for (float number : y) {
    uint32_t bits;
    std::memcpy(&bits, &number, 4);
    digest = (digest ^ bits) * 16777619u;
  }
  return off / largest;
}

bool check(mg::Format format, int32_t group, bool has_min, mg::ScaleType type, int64_t outputs, int64_t inputs) {
  Case made;
  made.linear = {format, group, has_min, type, outputs, inputs, nullptr};
  fill(made);
  bool right = true;
  for (int64_t rows : {1, 2, 3, 5, 13}) {
    uint32_t digest = 0;
    const double off = measure(made, rows, digest);
    right = right && off < 1e-5;
    std::printf("format %d group %d min %d scale %d, %d x %d, rows %d: %08x%s\n", static_cast<int>(format), group,
                has_min, static_cast<int>(type), static_cast<int>(outputs), static_cast<int>(inputs),
                static_cast<int>(rows), digest, off < 1e-5 ? "" : " IS OFF");
  }
  std::free(made.linear.data);
  return right;
}

}  // namespace

int main() {
  std::fprintf(stderr, "%s\n", mg::simd::kName);
  bool right = true;
  for (mg::Format format : {mg::Format::f32, mg::Format::bf16}) {
    right &= check(format, 0, false, mg::ScaleType::f32, 5, 7);
    right &= check(format, 0, false, mg::ScaleType::f32, 81, 600);
  }
  for (mg::ScaleType type : {mg::ScaleType::f32, mg::ScaleType::f16, mg::ScaleType::bf16}) {
    right &= check(mg::Format::fp8, 24, false, type, 33, 72);
    right &= check(mg::Format::fp8, 600, false, type, 81, 600);
    for (int32_t group : {16, 32, 48, 96, 192}) {
      right &= check(mg::Format::int8, group, false, type, 37, 192);
      right &= check(mg::Format::int4, group, false, type, 37, 192);
      right &= check(mg::Format::int4, group, true, type, 37, 192);
    }
  }
  return right ? 0 : 1;
}
