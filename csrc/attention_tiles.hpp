// The two inner products of attention over one unit of keys or values, in tiles that fill the registers.
//
// Tiles only say how much is computed side by side; each number is one chain of fused multiply-adds in a fixed order.
#pragma once

#include "cache.hpp"
#include "vector.hpp"

namespace mg {

constexpr int kVecs = kUnit / kWidth;
#if defined(__ARM_NEON)
constexpr int kTile = 16;
#else
constexpr int kTile = 8;
#endif

// Scores of R query rows (`q`, row after row) with U units of keys: s[r * s_stride + u * kUnit + token]. Meanwhile the
// keys that are next, `ahead[u]`, are asked for: units lie far apart, so that no CPU guesses where they are.
template <typename T, int R, int U>
inline void score_tile(const float* q, int head_dim, const T* const* keys, const T* const* ahead, float* s,
                       int64_t s_stride) {
  Vec acc[R][U][kVecs];
  for (int r = 0; r < R; ++r)
    for (int u = 0; u < U; ++u)
      for (int j = 0; j < kVecs; ++j) acc[r][u][j] = Vec{};
  for (int d = 0; d < head_dim; ++d) {
    for (int u = 0; u < U; ++u) {
      prefetch(ahead[u] + d * kUnit);
      for (int j = 0; j < kVecs; ++j) {
        Vec k = widen(keys[u] + d * kUnit + j * kWidth);
        for (int r = 0; r < R; ++r) acc[r][u][j] = fma(splat(q[r * head_dim + d]), k, acc[r][u][j]);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int u = 0; u < U; ++u)
      for (int j = 0; j < kVecs; ++j) store(s + r * s_stride + u * kUnit + j * kWidth, acc[r][u][j]);
}

template <typename T, int R>
inline void score_rows(const float* q, int head_dim, const T* const* keys, bool ask, int units, float* s,
                       int64_t s_stride) {
  constexpr int U = kTile / (R * kVecs) > 0 ? kTile / (R * kVecs) : 1;
  int u = 0;
  // There are kTile more keys than units.
  for (; u + U <= units; u += U)
    score_tile<T, R, U>(q, head_dim, keys + u, keys + u + (ask ? U : 0), s + u * kUnit, s_stride);
  for (; u < units; ++u)
    score_tile<T, R, 1>(q, head_dim, keys + u, keys + u + (ask ? 1 : 0), s + u * kUnit, s_stride);
}

// out[r][d] += sum over tokens [first, last) of p[r][token] * values[token][d].
template <typename T, int R, int D>
inline void value_tile(const float* p, int64_t p_stride, int first, int last, const T* values, const T* ahead, int row,
                       float* out) {
  Vec acc[R][D];
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < D; ++j) acc[r][j] = load(out + r * row + j * kWidth);
  for (int t = first; t < last; ++t) {
    prefetch(ahead + t * row);
    Vec v[D];
    for (int j = 0; j < D; ++j) v[j] = widen(values + t * row + j * kWidth);
    for (int r = 0; r < R; ++r) {
      Vec weight = splat(p[r * p_stride + t]);
      for (int j = 0; j < D; ++j) acc[r][j] = fma(weight, v[j], acc[r][j]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int j = 0; j < D; ++j) store(out + r * row + j * kWidth, acc[r][j]);
}

template <typename T, int R>
inline void value_rows(const float* p, int64_t p_stride, int first, int last, const T* values, const T* ahead, int row,
                       float* out) {
  constexpr int D = kTile / R > kVecs ? kTile / R : kVecs;
  int d = 0;
  for (; d + D * kWidth <= row; d += D * kWidth)
    value_tile<T, R, D>(p, p_stride, first, last, values + d, ahead + d, row, out + d);
  for (; d < row; d += kUnit) value_tile<T, R, kVecs>(p, p_stride, first, last, values + d, ahead + d, row, out + d);
}

}  // namespace mg
