// The vector operations of the matrix kernels in AVX-512 with VNNI. Knows no shapes.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace mg::simd {

constexpr const char* kName = "avx512";
constexpr int kFloatRows = 12;
constexpr int kIntegerRows = 8;
constexpr int kInt8Offset = 128;  // vpdpbusd asks for one unsigned side: w + 128

constexpr int bf16_place(int o) { return o; }

inline void prefetch(const void* address) { _mm_prefetch(static_cast<const char*>(address), _MM_HINT_T0); }

struct Floats {  // 16 float32
  __m512 all;
};

inline Floats zeros() { return {_mm512_setzero_ps()}; }
inline Floats broadcast(const float* p) { return {_mm512_set1_ps(*p)}; }
inline Floats load_f32(const void* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Floats a) { _mm512_storeu_ps(p, a.all); }
inline Floats multiply(Floats a, Floats b) { return {_mm512_mul_ps(a.all, b.all)}; }
inline Floats fma(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.all, b.all, c.all)}; }

inline Floats load_bf16(const void* p) {
  const __m256i halves = _mm256_loadu_si256(static_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))};
}
inline Floats load_f16(const void* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
}
// e4m3 / 256: sign, exponent and fraction moved to where float16 has them; exact, subnormal numbers too.
inline Floats load_fp8(const void* p) {
  const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  const __m256i mask = _mm256_set1_epi16(static_cast<short>(0xbfff));
  return {_mm512_cvtph_ps(_mm256_and_si256(_mm256_slli_epi16(wide, 7), mask))};
}

struct Integers {  // 16 int32, one an output
  __m512i all;
};

inline Integers add(Integers a, Integers b) { return {_mm512_add_epi32(a.all, b.all)}; }
inline Integers subtract(Integers a, int32_t b) { return {_mm512_sub_epi32(a.all, _mm512_set1_epi32(b))}; }
inline Floats to_floats(Integers a) { return {_mm512_cvtepi32_ps(a.all)}; }

// 64 bytes of int4: four inputs of 16 outputs in the low nibbles, the next four in the high ones.
struct Nibbles {
  __m512i all;
};
inline Nibbles load_near(const uint8_t* p) {
  return {_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(15))};
}
inline Nibbles load_far(const uint8_t* p) {
  return {_mm512_and_si512(_mm512_srli_epi16(_mm512_loadu_si512(p), 4), _mm512_set1_epi8(15))};
}

using Partial = Integers;
inline Partial start() { return {_mm512_setzero_si512()}; }
inline Partial dot(Partial sum, Nibbles w, const int32_t* four) {
  return {_mm512_dpbusd_epi32(sum.all, w.all, _mm512_set1_epi32(*four))};
}
inline Integers finish(Partial sum) { return sum; }

// 64 bytes of int8: four inputs of 16 outputs, 128 added to each.
struct Bytes {
  __m512i all;
};
inline Bytes load_bytes(const uint8_t* p) {
  return {_mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(static_cast<char>(0x80)))};
}
inline Integers no_integers() { return {_mm512_setzero_si512()}; }
inline Integers dot(Integers sum, const Bytes& w, const int32_t* four) {
  return {_mm512_dpbusd_epi32(sum.all, w.all, _mm512_set1_epi32(*four))};
}

}  // namespace mg::simd
