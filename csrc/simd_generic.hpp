// The vector operations of the matrix kernels for every other little-endian processor, and to compare the others with:
// no intrinsics, only the compiler's own vectors of 16 bytes. Knows no shapes.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace mg::simd {

constexpr const char* kName = "generic";
constexpr int kFloatRows = 2;
constexpr int kIntegerRows = 2;
constexpr int kInt8Offset = 0;

constexpr int bf16_place(int o) { return o; }

inline void prefetch(const void*) {}

typedef float FourFloats __attribute__((vector_size(16)));
typedef int32_t FourIntegers __attribute__((vector_size(16)));

struct Floats {  // 16 float32
  FourFloats part[4];
};

inline float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline Floats zeros() { return {}; }
inline Floats broadcast(const float* p) {
  const FourFloats all = {*p, *p, *p, *p};
  return {{all, all, all, all}};
}
inline Floats load_f32(const void* p) {
  Floats a;
  std::memcpy(&a, p, sizeof a);
  return a;
}
inline void store(float* p, const Floats& a) { std::memcpy(p, &a, sizeof a); }
inline Floats multiply(Floats a, const Floats& b) {
  for (int i = 0; i < 4; ++i) a.part[i] *= b.part[i];
  return a;
}
// Rounded once where the processor can do that quickly, else twice: the library's fma would be ten times slower.
inline Floats fma(const Floats& a, const Floats& b, Floats c) {
  for (int i = 0; i < 4; ++i) {
#if defined(__FP_FAST_FMAF)
    for (int j = 0; j < 4; ++j) c.part[i][j] = std::fma(a.part[i][j], b.part[i][j], c.part[i][j]);
#else
    c.part[i] += a.part[i] * b.part[i];
#endif
  }
  return c;
}

inline Floats load_bf16(const void* p) {
  uint16_t halves[16];
  std::memcpy(halves, p, sizeof halves);
  Floats a;
  for (int i = 0; i < 16; ++i) a.part[i / 4][i % 4] = from_bits(static_cast<uint32_t>(halves[i]) << 16);
  return a;
}
inline Floats load_f16(const void* p) {
  uint16_t halves[16];
  std::memcpy(halves, p, sizeof halves);
  Floats a;
  for (int i = 0; i < 16; ++i) {
    const uint32_t size = halves[i] & 0x7fff;  // exponent and fraction; 2^112 moves the exponent's origin
    const float value = size >= 0x7c00 ? from_bits(size << 13 | 0x7f800000) : from_bits(size << 13) * 0x1p112f;
    a.part[i / 4][i % 4] = halves[i] & 0x8000 ? -value : value;
  }
  return a;
}
// e4m3 / 256, as the other instruction sets give it.
inline Floats load_fp8(const void* p) {
  uint8_t bytes[16];
  std::memcpy(bytes, p, sizeof bytes);
  Floats a;
  for (int i = 0; i < 16; ++i) {
    const uint32_t bits = static_cast<uint32_t>(bytes[i] & 0x80) << 24 | static_cast<uint32_t>(bytes[i] & 0x7f) << 20;
    a.part[i / 4][i % 4] = from_bits(bits) * 0x1p112f;
  }
  return a;
}

struct Integers {  // 16 int32, one an output
  FourIntegers part[4];
};

inline Integers no_integers() { return {}; }
inline Integers add(Integers a, const Integers& b) {
  for (int i = 0; i < 4; ++i) a.part[i] += b.part[i];
  return a;
}
inline Integers subtract(Integers a, int32_t b) {
  for (int i = 0; i < 4; ++i) a.part[i] -= b;
  return a;
}
inline Floats to_floats(const Integers& a) {
  Floats b;
  for (int i = 0; i < 4; ++i) b.part[i] = __builtin_convertvector(a.part[i], FourFloats);
  return b;
}

// Byte `i` of four, as a signed number.
inline int32_t signed_byte(const int32_t* four, int i) { return static_cast<int8_t>(*four >> 8 * i); }

// 64 bytes of int4: four inputs of 16 outputs in the low nibbles, the next four in the high ones.
struct Nibbles {
  FourIntegers part[4];  // a byte for each of four inputs
};
inline Nibbles load_near(const uint8_t* p) {
  Nibbles w;
  std::memcpy(&w, p, sizeof w);
  for (FourIntegers& part : w.part) part &= 0x0f0f0f0f;
  return w;
}
inline Nibbles load_far(const uint8_t* p) {
  Nibbles w;
  std::memcpy(&w, p, sizeof w);
  for (FourIntegers& part : w.part) part = part >> 4 & 0x0f0f0f0f;
  return w;
}

using Partial = Integers;
inline Partial start() { return {}; }
inline Partial dot(Partial sum, const Nibbles& w, const int32_t* four) {
  for (int i = 0; i < 4; ++i) {
    const int32_t x = signed_byte(four, i);
    for (int j = 0; j < 4; ++j) sum.part[j] += (w.part[j] >> 8 * i & 15) * x;
  }
  return sum;
}
inline Integers finish(const Partial& sum) { return sum; }

// 64 bytes of int8: four inputs of 16 outputs.
struct Bytes {
  FourIntegers part[4];
};
inline Bytes load_bytes(const uint8_t* p) {
  Bytes w;
  std::memcpy(&w, p, sizeof w);
  return w;
}
inline Integers dot(Integers sum, const Bytes& w, const int32_t* four) {
  for (int i = 0; i < 4; ++i) {
    const int32_t x = signed_byte(four, i);
    for (int j = 0; j < 4; ++j) sum.part[j] += (w.part[j] << (24 - 8 * i) >> 24) * x;
  }
  return sum;
}

}  // namespace mg::simd
