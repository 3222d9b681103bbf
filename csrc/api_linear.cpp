// The part of the C interface about one matrix, and what all of the interface shares.
#include <cstring>

#include "error.hpp"
#include "linear.hpp"
#include "magister.h"
#include "matrix.hpp"
#include "memory.hpp"

#ifndef MG_ISA
#error "MG_ISA names the instruction set that this library is built for"
#endif

namespace mg {

namespace {
thread_local char words[256] = "";
}

int fail(int code, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(words, sizeof(words), format, arguments);
  va_end(arguments);
  return code;
}

Matrix::Matrix(int32_t format, int32_t group, bool has_min, int32_t scale_type, int64_t outputs, int64_t inputs) {
  MG_REQUIRE(format >= MG_F32 && format <= MG_INT4, MG_VALUE, "format is %d, must be 0 to %d", format, MG_INT4);
  MG_REQUIRE(outputs > 0 && inputs > 0, MG_VALUE, "a matrix of %lld by %lld is none", static_cast<long long>(outputs),
             static_cast<long long>(inputs));
  bool scaled = format >= MG_FP8;
  MG_REQUIRE(scaled ? group > 0 && inputs % group == 0 : group == 0, MG_VALUE, "group is %d, must divide %lld inputs",
             group, static_cast<long long>(inputs));
  MG_REQUIRE(format < MG_INT8 || group % 16 == 0, MG_VALUE, "group is %d, must be a multiple of 16", group);
  MG_REQUIRE(format < MG_INT8 || group <= 65536, MG_VALUE, "group is %d, must be at most 65536", group);
  MG_REQUIRE(!has_min || format == MG_INT4, MG_VALUE, "mins are given, only int4 has them");
  MG_REQUIRE(scale_type >= MG_SCALE_F32 && scale_type <= MG_SCALE_BF16, MG_VALUE, "scale_type is %d, must be 0 to %d",
             scale_type, MG_SCALE_BF16);
  linear = {static_cast<Format>(format), group, has_min, static_cast<ScaleType>(scale_type), outputs, inputs, nullptr};
  memory = Memory(packed_bytes(linear));
  linear.data = memory.data();
}

}  // namespace mg

struct mg_linear {
  mg::Matrix matrix;
  mg::Memory x, q, scales, sums;
  int64_t rows = 0;

  mg::Activations activations() const {
    const mg::Linear& linear = matrix.linear;
    return {linear.inputs,       matrix.integer() ? linear.group : 0, x.as<float>(), q.as<int8_t>(), scales.as<float>(),
            sums.as<int32_t>()};
  }

  void prepare(const float* given, int64_t count) {
    const mg::Linear& linear = matrix.linear;
    size_t elements = static_cast<size_t>(count * linear.inputs);
    x.ensure(elements * sizeof(float));
    memcpy(x.data(), given, elements * sizeof(float));
    rows = count;
    if (!matrix.integer()) return;
    q.ensure(elements);
    scales.ensure(elements / static_cast<size_t>(linear.group) * sizeof(float));
    sums.ensure(elements / static_cast<size_t>(linear.group) * sizeof(int32_t));
    mg::quantize_rows(activations(), 0, count);
  }
};

int32_t mg_abi(void) { return MG_ABI; }
const char* mg_isa(void) { return MG_ISA; }
const char* mg_error(void) { return mg::words; }

mg_linear* mg_linear_new(int32_t format, int32_t group, int32_t has_min, int32_t scale_type, int64_t outputs,
                         int64_t inputs) {
  return mg::guarded_new([&] {
    return new mg_linear{mg::Matrix(format, group, has_min != 0, scale_type, outputs, inputs), {}, {}, {}, {}};
  });
}

void mg_linear_free(mg_linear* linear) { delete linear; }

int64_t mg_linear_bytes(const mg_linear* linear) { return static_cast<int64_t>(linear->matrix.memory.bytes()); }

int mg_linear_pack(mg_linear* linear, int64_t first, int64_t count, const void* values, const float* scales,
                   const float* mins) {
  return mg::guarded([&] {
    int64_t outputs = linear->matrix.linear.outputs;
    MG_REQUIRE(first >= 0 && count >= 0 && first + count <= outputs, MG_VALUE, "rows %lld to %lld of %lld",
               static_cast<long long>(first), static_cast<long long>(first + count), static_cast<long long>(outputs));
    mg::pack_rows(linear->matrix.linear, first, count, values, scales, mins);
  });
}

int mg_linear_prepare(mg_linear* linear, const float* x, int64_t rows) {
  return mg::guarded([&] { linear->prepare(x, rows); });
}

int mg_linear_part(mg_linear* linear, int64_t first_row, int64_t last_row, float* y, int64_t y_stride,
                   int64_t first_panel, int64_t last_panel) {
  return mg::guarded([&] {
    const mg::Linear& matrix = linear->matrix.linear;
    MG_REQUIRE(0 <= first_row && first_row <= last_row && last_row <= linear->rows, MG_VALUE,
               "rows %lld to %lld of %lld", static_cast<long long>(first_row), static_cast<long long>(last_row),
               static_cast<long long>(linear->rows));
    MG_REQUIRE(0 <= first_panel && first_panel <= last_panel && last_panel <= mg::panels(matrix), MG_VALUE,
               "panels %lld to %lld of %lld", static_cast<long long>(first_panel), static_cast<long long>(last_panel),
               static_cast<long long>(mg::panels(matrix)));
    mg::multiply(matrix, linear->activations(), first_row, last_row, y, y_stride, first_panel, last_panel);
  });
}

int mg_linear_multiply(mg_linear* linear, const float* x, int64_t rows, float* y) {
  return mg::guarded([&] {
    const mg::Linear& matrix = linear->matrix.linear;
    linear->prepare(x, rows);
    mg::multiply(matrix, linear->activations(), 0, rows, y, matrix.outputs, 0, mg::panels(matrix));
  });
}

int mg_quantize_rows(const float* x, int64_t rows, int64_t inputs, int32_t group, int8_t* q, float* scales,
                     int32_t* sums) {
  return mg::guarded([&] {
    MG_REQUIRE(group > 0 && group % 16 == 0 && inputs % group == 0, MG_VALUE,
               "group is %d, must be a multiple of 16 and divide %lld inputs", group, static_cast<long long>(inputs));
    mg::quantize_rows({inputs, group, x, q, scales, sums}, 0, rows);
  });
}
