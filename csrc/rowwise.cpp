#include "rowwise.hpp"

#include <cmath>

#include "vector.hpp"

namespace mg {

namespace {

// Calls vectors(i) for whole vectors of [0, n) and one(i) for the numbers that are left.
template <typename Vectors, typename One>
inline void walk(int64_t n, Vectors&& vectors, One&& one) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) vectors(i);
  for (; i < n; ++i) one(i);
}

Vec swapped(Vec x) {
  VecInt order;
  for (int i = 0; i < kWidth; ++i) order[i] = i ^ 1;
#if defined(__clang__)
  Vec y;
  for (int i = 0; i < kWidth; ++i) y[i] = x[order[i]];
  return y;
#else
  return __builtin_shuffle(x, order);
#endif
}

}  // namespace

void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* out) {
  // Four sums, since one would wait for itself.
  Vec sums[4] = {};
  float rest = 0.0f;
  int64_t i = 0;
  for (; i + 4 * kWidth <= n; i += 4 * kWidth)
    for (int j = 0; j < 4; ++j) {
      Vec part = load(x + i + j * kWidth);
      sums[j] = fma(part, part, sums[j]);
    }
  for (; i < n; ++i) rest += x[i] * x[i];
  float mean = (sum((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest) / static_cast<float>(n);
  float inverse = 1.0f / std::sqrt(mean + eps);
  walk(
      n, [&](int64_t j) { store(out + j, load(x + j) * inverse * load(weight + j)); },
      [&](int64_t j) { out[j] = x[j] * inverse * weight[j]; });
}

void add(float* x, const float* y, int64_t n) {
  walk(
      n, [&](int64_t i) { store(x + i, load(x + i) + load(y + i)); }, [&](int64_t i) { x[i] += y[i]; });
}

void swiglu(float* gate, const float* up, int64_t n) {
  auto gated = [](Vec g, Vec u) { return g / (1.0f + exp(-g)) * u; };
  walk(
      n, [&](int64_t i) { store(gate + i, gated(load(gate + i), load(up + i))); },
      [&](int64_t i) { gate[i] = gated(splat(gate[i]), splat(up[i]))[0]; });
}

void rotation(int64_t position, const float* frequencies, int head_dim, float* table) {
  for (int pair = 0; pair < head_dim / 2; ++pair) {
    float angle = static_cast<float>(position) * frequencies[pair];
    float cosine = std::cos(angle), sine = std::sin(angle);
    table[2 * pair] = table[2 * pair + 1] = cosine;
    table[head_dim + 2 * pair] = -sine;
    table[head_dim + 2 * pair + 1] = sine;
  }
}

void rotate(float* x, const float* table, int heads, int head_dim, float scale) {
  for (int head = 0; head < heads; ++head, x += head_dim) {
    int i = 0;
    for (; i + kWidth <= head_dim; i += kWidth) {
      Vec here = load(x + i);
      Vec turned = fma(swapped(here), load(table + head_dim + i), here * load(table + i));
      store(x + i, turned * scale);
    }
    for (; i < head_dim; i += 2) {
      float first = x[i], second = x[i + 1];
      x[i] = (first * table[i] + second * table[head_dim + i]) * scale;
      x[i + 1] = (second * table[i + 1] + first * table[head_dim + i + 1]) * scale;
    }
  }
}

}  // namespace mg
