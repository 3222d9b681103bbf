// The vector operations of the matrix kernels in AVX2, FMA and F16C. Knows no shapes.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace mg::simd {

constexpr const char* kName = "avx2";
constexpr int kFloatRows = 6;    // 12 accumulators, 2 weights, 1 activation: 15 of 16 registers
constexpr int kIntegerRows = 5;  // 10 accumulators of 16 bits, 2 weights, 1 activation, 1 mask, 1 product
constexpr int kInt8Offset = 0;   // what is added to int8 weights before multiplying

// Where output `o` lies among a line's 16 bfloat16: even places become the low vector by a shift, odd ones the high.
constexpr int bf16_place(int o) { return o < 8 ? 2 * o : 2 * (o - 8) + 1; }

inline void prefetch(const void* address) { _mm_prefetch(static_cast<const char*>(address), _MM_HINT_T0); }

struct Floats {  // 16 float32
  __m256 low, high;
};

inline Floats zeros() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Floats broadcast(const float* p) { return {_mm256_broadcast_ss(p), _mm256_broadcast_ss(p)}; }
inline Floats load_f32(const void* p) {
  const float* f = static_cast<const float*>(p);
  return {_mm256_loadu_ps(f), _mm256_loadu_ps(f + 8)};
}
inline void store(float* p, Floats a) {
  _mm256_storeu_ps(p, a.low);
  _mm256_storeu_ps(p + 8, a.high);
}
inline Floats multiply(Floats a, Floats b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
inline Floats fma(Floats a, Floats b, Floats c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}

inline Floats load_bf16(const void* p) {
  const __m256i pairs = _mm256_loadu_si256(static_cast<const __m256i*>(p));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)),
          _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u))))};
}
inline Floats load_f16(const void* p) {
  const __m128i* halves = static_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
}
// e4m3 / 256: sign, exponent and fraction moved to where float16 has them; exact, subnormal numbers too.
inline Floats load_fp8(const void* p) {
  const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  const __m256i halves = _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16(static_cast<short>(0xbfff)));
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
}

struct Integers {  // 16 int32, one an output
  __m256i low, high;
};

inline Integers add(Integers a, Integers b) {
  return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}
inline Integers subtract(Integers a, int32_t b) {
  const __m256i all = _mm256_set1_epi32(b);
  return {_mm256_sub_epi32(a.low, all), _mm256_sub_epi32(a.high, all)};
}
inline Floats to_floats(Integers a) { return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)}; }

// 64 bytes of int4: four inputs of 16 outputs in the low nibbles, the next four in the high ones.
struct Nibbles {
  __m256i low, high;
};
inline Nibbles load_near(const uint8_t* p) {
  const __m256i mask = _mm256_set1_epi8(15);
  const __m256i* both = reinterpret_cast<const __m256i*>(p);
  return {_mm256_and_si256(_mm256_loadu_si256(both), mask), _mm256_and_si256(_mm256_loadu_si256(both + 1), mask)};
}
inline Nibbles load_far(const uint8_t* p) {
  const __m256i mask = _mm256_set1_epi8(15);
  const __m256i* both = reinterpret_cast<const __m256i*>(p);
  return {_mm256_and_si256(_mm256_srli_epi16(_mm256_loadu_si256(both), 4), mask),
          _mm256_and_si256(_mm256_srli_epi16(_mm256_loadu_si256(both + 1), 4), mask)};
}

// Sums of products in 16 bits, two an output: at most 8 times 2 * 15 * 127 = 30,480, so 32 inputs fit.
struct Partial {
  __m256i low, high;
};
inline Partial start() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline Partial dot(Partial sum, Nibbles w, const int32_t* four) {
  const __m256i x = _mm256_set1_epi32(*four);
  sum.low = _mm256_add_epi16(sum.low, _mm256_maddubs_epi16(w.low, x));
  sum.high = _mm256_add_epi16(sum.high, _mm256_maddubs_epi16(w.high, x));
  // Or GCC makes trees of these sums, whose branches do not fit the registers.
  asm("" : "+x"(sum.low), "+x"(sum.high));
  return sum;
}
inline Integers finish(Partial sum) {
  const __m256i ones = _mm256_set1_epi16(1);
  return {_mm256_madd_epi16(sum.low, ones), _mm256_madd_epi16(sum.high, ones)};
}

// 64 bytes of int8: four inputs of 16 outputs. maddubs asks for one unsigned side: |w| * (x with the sign of w).
struct Bytes {
  __m256i low, high, low_size, high_size;
};
inline Bytes load_bytes(const uint8_t* p) {
  const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32));
  return {a, b, _mm256_abs_epi8(a), _mm256_abs_epi8(b)};
}
inline Integers no_integers() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline Integers dot(Integers sum, const Bytes& w, const int32_t* four) {
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i x = _mm256_set1_epi32(*four);
  const __m256i low = _mm256_maddubs_epi16(w.low_size, _mm256_sign_epi8(x, w.low));
  const __m256i high = _mm256_maddubs_epi16(w.high_size, _mm256_sign_epi8(x, w.high));
  return {_mm256_add_epi32(sum.low, _mm256_madd_epi16(low, ones)),
          _mm256_add_epi32(sum.high, _mm256_madd_epi16(high, ones))};
}

}  // namespace mg::simd
