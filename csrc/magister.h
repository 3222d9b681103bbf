/* The C interface of Magister's compiled kernels: one shared library per instruction set, no torch, no files.
 *
 * Functions that answer `int` give MG_OK or an error; mg_error() then says in words what was wrong. Words belong to the
 * calling thread. Pointers are to row-major memory and are only read during the call unless said otherwise. A handle
 * may be used by one thread at a time.
 */
#ifndef MAGISTER_H
#define MAGISTER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MG_ABI 1
#define MG_API __attribute__((visibility("default")))

enum {
  MG_OK = 0,
  MG_VALUE = 1,  /* an argument that a user may have chosen is out of range */
  MG_MEMORY = 2, /* the system gave no memory or no thread */
  MG_STATE = 3,  /* a caller's mistake: weights missing, a fork in between */
};

/* Formats of matrices; the numbers of mg::Format. */
enum { MG_F32 = 0, MG_BF16 = 1, MG_FP8 = 2, MG_INT8 = 3, MG_INT4 = 4 };

/* Dtypes in which scales and mins are held; they are handed over as float. The numbers of mg::ScaleType. */
enum { MG_SCALE_F32 = 0, MG_SCALE_F16 = 1, MG_SCALE_BF16 = 2 };

/* Formats of keys and values. */
enum { MG_KV_F32 = 0, MG_KV_BF16 = 1, MG_KV_INT8 = 2 };

MG_API int32_t mg_abi(void);
MG_API const char* mg_isa(void);
MG_API const char* mg_error(void);

/* ---- One matrix by itself, for tests and measurements. ---- */

typedef struct mg_linear mg_linear;

/* A matrix of zeros, or NULL. */
MG_API mg_linear* mg_linear_new(int32_t format, int32_t group, int32_t has_min, int32_t scale_type, int64_t outputs,
                                int64_t inputs);
MG_API void mg_linear_free(mg_linear* linear);
MG_API int64_t mg_linear_bytes(const mg_linear* linear);
MG_API int mg_linear_pack(mg_linear* linear, int64_t first, int64_t count, const void* values, const float* scales,
                          const float* mins);
/* x [rows, inputs] -> y [rows, outputs], on the calling thread. int8 and int4 quantise x first. */
MG_API int mg_linear_multiply(mg_linear* linear, const float* x, int64_t rows, float* y);
/* The product alone, of rows and panels in [first, last), over what mg_linear_prepare made of x. */
MG_API int mg_linear_prepare(mg_linear* linear, const float* x, int64_t rows);
MG_API int mg_linear_part(mg_linear* linear, int64_t first_row, int64_t last_row, float* y, int64_t y_stride,
                          int64_t first_panel, int64_t last_panel);
/* x [rows, inputs] -> q [rows, inputs], scales and sums [rows, inputs / group]. */
MG_API int mg_quantize_rows(const float* x, int64_t rows, int64_t inputs, int32_t group, int8_t* q, float* scales,
                            int32_t* sums);

/* ---- A whole text network. ---- */

typedef struct {
  int32_t dim, layers, heads, kv_heads, head_dim, hidden, vocab, tied;
  float eps;
} mg_config;

typedef struct mg_decoder mg_decoder;
typedef struct mg_cache mg_cache;

/* Parts of a layer; MG_NORM, MG_OUTPUT stand outside of layers (layer 0 is asked for there). */
enum {
  MG_WQ = 0,
  MG_WK = 1,
  MG_WV = 2,
  MG_WO = 3,
  MG_W1 = 4,
  MG_W2 = 5,
  MG_W3 = 6,
  MG_ATTENTION_NORM = 7,
  MG_FFN_NORM = 8,
  MG_NORM = 9,
  MG_OUTPUT = 10,
};

/* `threads` counts the caller's. `frequencies` [head_dim / 2]: radians per position of each pair. Handle or NULL. */
MG_API mg_decoder* mg_decoder_new(const mg_config* config, const float* frequencies, int32_t threads);
MG_API void mg_decoder_free(mg_decoder* decoder);
/* A vector of float [dim]. */
MG_API int mg_decoder_put_norm(mg_decoder* decoder, int32_t layer, int32_t part, const float* values);
/* Rows of MG_F32 or MG_BF16, [vocab, dim], for looking ids up. Copied. */
MG_API int mg_decoder_put_embedding(mg_decoder* decoder, int32_t format, const void* values);
/* A matrix, as mg::pack_rows takes it; packed in this call. A second one takes the place of the first. */
MG_API int mg_decoder_put_matrix(mg_decoder* decoder, int32_t layer, int32_t part, int32_t format, int32_t group,
                                 int32_t scale_type, const void* values, const float* scales, const float* mins);
/* Bytes of weights that a step of one token reads. */
MG_API int64_t mg_decoder_bytes(const mg_decoder* decoder);

/* Room for blocks * block_size tokens, or NULL. Zeros at first; memory is taken when first written. */
MG_API mg_cache* mg_cache_new(const mg_config* config, int64_t blocks, int32_t block_size, int32_t format);
MG_API void mg_cache_free(mg_cache* cache);
MG_API int64_t mg_cache_bytes(const mg_cache* cache);

/* One step: keys and values of all new tokens into the cache, logits [rows, vocab] of those that are wanted.
 *
 * `step` is one message of int32, `length` numbers long: ids, spans, rows, places (how many of each), then
 *   the ids of all spans end to end;
 *   per span: start, stop (positions), blocks (how many), the blocks;
 *   the rows: indices into ids whose logits are wanted, ascending;
 *   the places: indices into ids, ascending, whose embeddings are replaced by the rows of `features` [places, dim].
 * Token i of a span's sequence lives in blocks[i / block_size]. Nothing is written unless the whole message is good.
 *
 * The logits of a row have the same bits whatever else is in the step, however its past was cut into spans, and
 * however many threads there are.
 */
MG_API int mg_forward(mg_decoder* decoder, mg_cache* cache, const int32_t* step, int64_t length, const float* features,
                      float* logits);

#ifdef __cplusplus
}
#endif

#endif
