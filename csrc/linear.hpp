// Matrices in packed memory and their product with rows of activations, for every format and instruction set.
//
// Knows no layers, no threads and no files: whoever calls splits the panels among threads. Every function here gives
// the same bits for a row whatever other rows, panels or threads are computed beside it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mg {

// Numbers are those of the C interface.
enum class Format : int32_t { f32 = 0, bf16 = 1, fp8 = 2, int8 = 3, int4 = 4 };

// How scales and mins are held: the dtype they have in the checkpoint, so that packing rounds nothing.
enum class ScaleType : int32_t { f32 = 0, f16 = 1, bf16 = 2 };

// Outputs that lie interleaved in one stream; the last panel is padded with zeros.
constexpr int64_t kPanel = 16;

struct Linear {
  Format format;
  int32_t group;    // inputs that share a scale, 65,536 at most (whole sums are int32); 0 for f32 and bf16
  bool has_min;     // int4 only: w = q * scale + min, otherwise (q - 8) * scale
  ScaleType scale_type;
  int64_t outputs;
  int64_t inputs;
  uint8_t* data;    // packed_bytes(...) bytes, 64-byte aligned, owned by the caller
};

inline int64_t panels(const Linear& linear) { return (linear.outputs + kPanel - 1) / kPanel; }

size_t packed_bytes(const Linear& linear);

// Packs rows [first, first + count) from row-major memory. `values`: float, uint16 (bf16), uint8 (e4m3fn), int8, or
// nibbles (input 2j in the low half of byte j); `scales` and `mins`: float [count, inputs / group] or null.
void pack_rows(Linear& linear, int64_t first, int64_t count, const void* values, const float* scales,
               const float* mins);

// Rows of activations. f32, bf16 and fp8 matrices read `x`; int8 and int4 ones read `q`, `scales` and `sums`.
struct Activations {
  int64_t inputs;
  int32_t group;         // of q; 0 where only x is there
  const float* x;        // [rows, inputs]
  int8_t* q;             // [rows, inputs]
  float* scales;         // [rows, inputs / group]
  int32_t* sums;         // [rows, inputs / group], of q within each group
};

// Fills q, scales and sums of rows [first, last); definition: magister.kernels.quantized.quantize_activations. A group
// that holds a NaN or an infinity gets the scale NaN.
void quantize_rows(const Activations& activations, int64_t first, int64_t last);

// y[row * y_stride + output] for rows [first_row, last_row) and the outputs of panels [first_panel, last_panel).
// Never writes past `outputs`. int8 and int4 ask for activations.group == linear.group.
void multiply(const Linear& linear, const Activations& activations, int64_t first_row, int64_t last_row, float* y,
              int64_t y_stride, int64_t first_panel, int64_t last_panel);

}  // namespace mg
