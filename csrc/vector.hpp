// Short vectors of float for the row-wise parts of the network and for attention: one type, as wide as the instruction
// set, and the few functions that the language does not give.
//
// Every function treats a lane alone, so that a number's bits never depend on its lane.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace mg {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

typedef float Vec __attribute__((vector_size(kWidth * sizeof(float))));
typedef int32_t VecInt __attribute__((vector_size(kWidth * sizeof(int32_t))));

inline Vec load(const float* from) {
  Vec x;
  memcpy(&x, from, sizeof(x));
  return x;
}
inline void store(float* to, Vec x) { memcpy(to, &x, sizeof(x)); }
inline Vec splat(float x) {
#if defined(__AVX512F__)
  return _mm512_set1_ps(x);
#elif defined(__AVX2__)
  return _mm256_set1_ps(x);
#elif defined(__ARM_NEON)
  return vdupq_n_f32(x);
#else
  return Vec{x, x, x, x};
#endif
}

// Asks for the 64 bytes at `from`, which need not be anyone's: a hint touches nothing.
inline void prefetch(const void* from) { __builtin_prefetch(from, 0, 2); }

// a * b + c. One rounding where the CPU has it (all but the generic libraries); the same everywhere in one library.
inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__ARM_NEON)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}

// kWidth numbers that are held as float, bf16 or int8, exactly.
inline Vec widen(const float* from) { return load(from); }
inline Vec widen(const uint16_t* from) {
#if defined(__AVX512F__)
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
#elif defined(__AVX2__)
  __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
#elif defined(__ARM_NEON)
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(from), 16));
#else
  VecInt bits;
  for (int i = 0; i < kWidth; ++i) bits[i] = static_cast<int32_t>(static_cast<uint32_t>(from[i]) << 16);
  return reinterpret_cast<Vec>(bits);
#endif
}
inline Vec widen(const int8_t* from) {
#if defined(__AVX512F__)
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#elif defined(__AVX2__)
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
  Vec x;
  for (int i = 0; i < kWidth; ++i) x[i] = static_cast<float>(from[i]);
  return x;
#endif
}

// Lanes of `yes` where `where` is all ones, of `no` where it is zero.
inline Vec select(VecInt where, Vec yes, Vec no) {
  return reinterpret_cast<Vec>((where & reinterpret_cast<VecInt>(yes)) | (~where & reinterpret_cast<VecInt>(no)));
}

// The first keeps what is not a number, so that a broken sequence shows.
inline Vec larger(Vec a, Vec b) { return select(a < b, b, a); }

// Lanes added in a fixed order: halves, quarters, ...
inline float sum(Vec x) {
  float lanes[kWidth];
  store(lanes, x);
  for (int half = kWidth / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}
inline float largest(Vec x) {
  float lanes[kWidth];
  store(lanes, x);
  for (int i = 1; i < kWidth; ++i) lanes[0] = lanes[0] < lanes[i] ? lanes[i] : lanes[0];
  return lanes[0];
}

inline Vec round_to_even(Vec x) {
  // Adding 1.5 * 2^23 leaves no room for a fraction. For |x| < 2^22.
  Vec big = splat(12582912.0f);
  return (x + big) - big;
}

// e^x, to 2 units in the last place; 0 below -87.3, and at most e^88. What is not a number stays so.
inline Vec exp(Vec x) {
  Vec top = splat(88.0f), bottom = splat(-87.3f);
  Vec inside = select(x > top, top, select(x < bottom, bottom, x));
  Vec n = round_to_even(inside * 1.44269504088896341f);
  // ln 2 in two parts, the first short enough that n times it is exact.
  Vec r = fma(n, splat(-0.693359375f), inside);
  r = fma(n, splat(2.12194440e-4f), r);
  Vec p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r + 1.0f);
  Vec power = reinterpret_cast<Vec>((__builtin_convertvector(n, VecInt) + 127) << 23);
  return select(x < bottom, Vec{}, p * power);
}

inline uint16_t to_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  // Not a number stays so: rounding could carry its fraction away.
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
inline float from_bf16(uint16_t x) {
  uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace mg
