// A packed matrix together with the memory it lies in.
#pragma once

#include "linear.hpp"
#include "memory.hpp"

namespace mg {

struct Matrix {
  Linear linear{};
  Memory memory;

  Matrix() = default;
  // Zeros. Throws Failure for shapes and groups that make no matrix.
  Matrix(int32_t format, int32_t group, bool has_min, int32_t scale_type, int64_t outputs, int64_t inputs);

  bool present() const { return linear.data != nullptr; }
  // Whether it asks for activations in int8.
  bool integer() const { return linear.format == Format::int8 || linear.format == Format::int4; }
};

}  // namespace mg
