// Runs a small random network through csrc/magister.h for processors that run no Python here: one sequence as one
// prefill, token by token, and on two threads, with every format of keys and values. Prints some logits of each format
// and exits with 1 where their bits differ. Random numbers are whole-number arithmetic: every processor sees the same.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <vector>

#include "magister.h"

namespace {

constexpr int kTokens = 530, kBlockSize = 16, kBlocks = (kTokens + kBlockSize - 1) / kBlockSize;
const mg_config kConfig = {48, 2, 6, 2, 16, 80, 50, 0, 1e-5f};

uint32_t state = 1;
uint32_t random_bits() {
  state = state * 1664525u + 1013904223u;
  return state >> 8;
}
std::vector<float> random_floats(int64_t count, float size) {
  std::vector<float> made(static_cast<size_t>(count));
  for (float& x : made) x = size * static_cast<float>(static_cast<int>(random_bits() & 0xffff) - 0x8000) / 0x8000;
  return made;
}

bool good = true;
void check(int code) {
  if (code == MG_OK) return;
  std::printf("error %d: %s\n", code, mg_error());
  good = false;
}

// Float matrices, and int8 ones where the inputs make groups of 16.
void put_matrix(mg_decoder* decoder, int layer, int part, int outputs, int inputs) {
  if (part == MG_W1 || part == MG_WO) {
    std::vector<int8_t> values(static_cast<size_t>(outputs * inputs));
    for (int8_t& value : values) value = static_cast<int8_t>(static_cast<int>(random_bits() % 255) - 127);
    std::vector<float> scales(static_cast<size_t>(outputs * inputs / 16), 1.0f / 256);
    check(mg_decoder_put_matrix(decoder, layer, part, MG_INT8, 16, MG_SCALE_F32, values.data(), scales.data(),
                                nullptr));
    return;
  }
  std::vector<float> values = random_floats(int64_t{outputs} * inputs, 0.5f);
  check(mg_decoder_put_matrix(decoder, layer, part, MG_F32, 0, 0, values.data(), nullptr, nullptr));
}

mg_decoder* make_decoder(int threads) {
  const mg_config& c = kConfig;
  std::vector<float> frequencies;
  for (int pair = 0; pair < c.head_dim / 2; ++pair) frequencies.push_back(1.0f / static_cast<float>(1 << pair));
  mg_decoder* decoder = mg_decoder_new(&c, frequencies.data(), threads);
  state = 1;
  const int q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  const int shapes[][2] = {{q, c.dim}, {kv, c.dim}, {kv, c.dim}, {c.dim, q}, {c.hidden, c.dim}, {c.dim, c.hidden},
                           {c.hidden, c.dim}};
  std::vector<float> norm(static_cast<size_t>(c.dim), 1.0f);
  for (int layer = 0; layer < c.layers; ++layer) {
    for (int part = MG_WQ; part <= MG_W3; ++part) put_matrix(decoder, layer, part, shapes[part][0], shapes[part][1]);
    check(mg_decoder_put_norm(decoder, layer, MG_ATTENTION_NORM, norm.data()));
    check(mg_decoder_put_norm(decoder, layer, MG_FFN_NORM, norm.data()));
  }
  check(mg_decoder_put_norm(decoder, 0, MG_NORM, norm.data()));
  put_matrix(decoder, 0, MG_OUTPUT, c.vocab, c.dim);
  std::vector<float> embeddings = random_floats(int64_t{c.vocab} * c.dim, 1.0f);
  check(mg_decoder_put_embedding(decoder, MG_F32, embeddings.data()));
  return decoder;
}

// The logits of all tokens, in steps of `chunk`.
std::vector<float> run(int threads, int kv, int chunk) {
  mg_decoder* decoder = make_decoder(threads);
  mg_cache* cache = mg_cache_new(&kConfig, kBlocks, kBlockSize, kv);
  std::vector<float> logits(static_cast<size_t>(kTokens * kConfig.vocab));
  for (int start = 0; start < kTokens; start += chunk) {
    const int stop = start + chunk < kTokens ? start + chunk : kTokens, n = stop - start;
    std::vector<int32_t> step = {n, 1, n, 0};
    for (int i = start; i < stop; ++i) step.push_back(i * 7 % kConfig.vocab);
    step.insert(step.end(), {start, stop, kBlocks});
    for (int block = kBlocks; block-- > 0;) step.push_back(block);
    for (int i = 0; i < n; ++i) step.push_back(i);
    check(mg_forward(decoder, cache, step.data(), static_cast<int64_t>(step.size()), nullptr,
                     logits.data() + start * kConfig.vocab));
  }
  mg_cache_free(cache);
  mg_decoder_free(decoder);
  return logits;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

int main() {
  for (int kv = MG_KV_F32; kv <= MG_KV_INT8; ++kv) {
    const std::vector<float> whole = run(1, kv, kTokens);
    if (!same(whole, run(1, kv, 1)) || !same(whole, run(2, kv, 37)) || !same(whole, run(2, kv, 1))) {
      std::printf("the bits of format %d differ\n", kv);
      good = false;
    }
    for (size_t i = 0; i < whole.size(); i += 997) std::printf("%.9g\n", whole[i]);
  }
  std::fprintf(stderr, "%s\n", mg_isa());
  return good ? 0 : 1;
}
