// The vector operations of the matrix kernels in 64-bit NEON with the dot product (ARMv8.2). Knows no shapes.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace mg::simd {

constexpr const char* kName = "neon";
constexpr int kFloatRows = 6;  // 24 accumulators, 4 weights, 1 activation of 32 registers
constexpr int kIntegerRows = 4;
constexpr int kInt8Offset = 0;

constexpr int bf16_place(int o) { return o; }

inline void prefetch(const void* address) { __builtin_prefetch(address); }

struct Floats {  // 16 float32
  float32x4_t part[4];
};

inline Floats zeros() {
  const float32x4_t zero = vdupq_n_f32(0);
  return {{zero, zero, zero, zero}};
}
inline Floats broadcast(const float* p) {
  const float32x4_t all = vld1q_dup_f32(p);
  return {{all, all, all, all}};
}
inline Floats load_f32(const void* p) {
  const float* f = static_cast<const float*>(p);
  return {{vld1q_f32(f), vld1q_f32(f + 4), vld1q_f32(f + 8), vld1q_f32(f + 12)}};
}
inline void store(float* p, const Floats& a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.part[i]);
}
inline Floats multiply(const Floats& a, const Floats& b) {
  Floats c;
  for (int i = 0; i < 4; ++i) c.part[i] = vmulq_f32(a.part[i], b.part[i]);
  return c;
}
inline Floats fma(const Floats& a, const Floats& b, Floats c) {
  for (int i = 0; i < 4; ++i) c.part[i] = vfmaq_f32(c.part[i], a.part[i], b.part[i]);
  return c;
}

inline Floats load_bf16(const void* p) {
  const uint16_t* halves = static_cast<const uint16_t*>(p);
  Floats a;
  for (int i = 0; i < 4; ++i) a.part[i] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(halves + 4 * i), 16));
  return a;
}
inline Floats load_f16(const void* p) {
  const uint16_t* halves = static_cast<const uint16_t*>(p);
  Floats a;
  for (int i = 0; i < 4; ++i) a.part[i] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(halves + 4 * i)));
  return a;
}
// e4m3 / 256: sign, exponent and fraction moved to where float16 has them; exact, subnormal numbers too.
inline Floats load_fp8(const void* p) {
  const int8x16_t bytes = vld1q_s8(static_cast<const int8_t*>(p));
  const uint16x8_t mask = vdupq_n_u16(0xbfff);
  const int16x8_t wide[2] = {vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)};
  Floats a;
  for (int i = 0; i < 2; ++i) {
    const uint16x8_t halves = vandq_u16(vreinterpretq_u16_s16(vshlq_n_s16(wide[i], 7)), mask);
    a.part[2 * i] = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(halves)));
    a.part[2 * i + 1] = vcvt_high_f32_f16(vreinterpretq_f16_u16(halves));
  }
  return a;
}

struct Integers {  // 16 int32, one an output
  int32x4_t part[4];
};

inline Integers no_integers() {
  const int32x4_t zero = vdupq_n_s32(0);
  return {{zero, zero, zero, zero}};
}
inline Integers add(Integers a, const Integers& b) {
  for (int i = 0; i < 4; ++i) a.part[i] = vaddq_s32(a.part[i], b.part[i]);
  return a;
}
inline Integers subtract(Integers a, int32_t b) {
  for (int i = 0; i < 4; ++i) a.part[i] = vsubq_s32(a.part[i], vdupq_n_s32(b));
  return a;
}
inline Floats to_floats(const Integers& a) {
  Floats b;
  for (int i = 0; i < 4; ++i) b.part[i] = vcvtq_f32_s32(a.part[i]);
  return b;
}

// 64 bytes of int4: four inputs of 16 outputs in the low nibbles, the next four in the high ones.
struct Nibbles {
  int8x16_t part[4];
};
inline Nibbles load_near(const uint8_t* p) {
  Nibbles w;
  for (int i = 0; i < 4; ++i) w.part[i] = vreinterpretq_s8_u8(vandq_u8(vld1q_u8(p + 16 * i), vdupq_n_u8(15)));
  return w;
}
inline Nibbles load_far(const uint8_t* p) {
  Nibbles w;
  for (int i = 0; i < 4; ++i) w.part[i] = vreinterpretq_s8_u8(vshrq_n_u8(vld1q_u8(p + 16 * i), 4));
  return w;
}

using Partial = Integers;
inline Partial start() { return no_integers(); }
inline Partial dot(Partial sum, const Nibbles& w, const int32_t* four) {
  const int8x16_t x = vreinterpretq_s8_s32(vld1q_dup_s32(four));
  for (int i = 0; i < 4; ++i) sum.part[i] = vdotq_s32(sum.part[i], w.part[i], x);
  return sum;
}
inline Integers finish(const Partial& sum) { return sum; }

// 64 bytes of int8: four inputs of 16 outputs.
struct Bytes {
  int8x16_t part[4];
};
inline Bytes load_bytes(const uint8_t* p) {
  Bytes w;
  for (int i = 0; i < 4; ++i) w.part[i] = vreinterpretq_s8_u8(vld1q_u8(p + 16 * i));
  return w;
}
inline Integers dot(Integers sum, const Bytes& w, const int32_t* four) {
  const int8x16_t x = vreinterpretq_s8_s32(vld1q_dup_s32(four));
  for (int i = 0; i < 4; ++i) sum.part[i] = vdotq_s32(sum.part[i], w.part[i], x);
  return sum;
}

}  // namespace mg::simd
