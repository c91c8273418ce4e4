// What the headers define, as functions that the tests can call.

#include "functions.h"
#include "packing.h"
#include "random.h"

#include <vector>

template <class Format>
static void multiply(const float* x, int64_t rows, int64_t depth, const PackedMatrix<Format>& b, float* out) {
    std::vector<typename Format::Word> words(rows * b.depth);
    std::vector<float> factors(rows);
    for (int64_t m = 0; m < rows; m++) factors[m] = Format::narrow(x + m * depth, depth, words.data() + m * b.depth);
    gemm<Format>({.a = words.data(),
                  .a_stride = b.depth,
                  .rows = rows,
                  .b = b,
                  .out = out,
                  .out_stride = b.columns,
                  .a_factors = factors.data()});
}

extern "C" {

// out [rows, columns] = x [rows, depth] times the transpose of weight [columns, depth].
void probe_multiply_bfloat16(const float* x, const float* weight, int64_t rows, int64_t depth, int64_t columns,
                             float* out) {
    std::vector<uint32_t> panels(padded_to_panels(columns) * words_of<Bfloat16Pairs>(depth));
    pack_bfloat16(weight, columns, depth, panels.data());
    multiply<Bfloat16Pairs>(x, rows, depth, {panels.data(), words_of<Bfloat16Pairs>(depth), columns}, out);
}

void probe_multiply_int8(const float* x, const float* weight, int64_t rows, int64_t depth, int64_t columns,
                         float* out) {
    const int64_t padded = padded_to_panels(columns), words = words_of<Int8Quads>(depth);
    std::vector<uint32_t> panels(padded * words);
    std::vector<float> factors(padded);
    std::vector<int32_t> excess(padded);
    pack_int8(weight, columns, depth, panels.data(), factors.data(), excess.data());
    multiply<Int8Quads>(x, rows, depth, {panels.data(), words, columns, factors.data(), excess.data()}, out);
}

int64_t probe_column_levels() { return Int8Quads::COLUMN_LEVELS; }

// count: a multiple of LANES.
void probe_exponential(const float* x, float* out, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) store(out + i, exponential(load(x + i)));
}

void probe_gelu(const float* x, float* out, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) store(out + i, gelu(load(x + i)));
}

void probe_gelu_slope(const float* x, float* out, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) store(out + i, gelu_slope(load(x + i)));
}

void probe_softmax(float* row, int64_t length, int64_t padded, double scale) {
    softmax(row, length, padded, (float)scale);
}

void probe_layer_norm(float* row, int64_t width, const float* weight, const float* bias, double epsilon) {
    layer_norm(row, width, {weight, bias, (float)epsilon});
}

uint64_t probe_splitmix64(uint64_t x) { return splitmix64(x); }

// The key of a row of a mask.
uint64_t probe_row_key(uint64_t seed, uint64_t tensor, int64_t row) {
    return DropoutMask(seed, tensor, 0.5).row_key(row);
}
}
