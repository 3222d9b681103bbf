// What the network does to one row at a time between its matrices: norm, rotation, gate. All in float.
#pragma once

#include <cstdint>

namespace mg {

// out = x / sqrt(mean(x^2) + eps) * weight
void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* out);

// x += y
void add(float* x, const float* y, int64_t n);

// gate = silu(gate) * up
void swiglu(float* gate, const float* up, int64_t n);

// The table of one position: cosines [head_dim], each written twice, then sines, the first of a pair negated.
void rotation(int64_t position, const float* frequencies, int head_dim, float* table);

// Turns each interleaved pair of `heads` heads by the table, and multiplies by `scale`.
void rotate(float* x, const float* table, int heads, int head_dim, float scale);

}  // namespace mg
