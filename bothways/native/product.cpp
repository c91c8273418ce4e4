// One matrix product in any format of formats.h, for layers that the compiled encoder does not know and for generation,
// whose steps read every weight for a few rows; and what packs the weights.

#include "packing.h"

// Mirrored by a structure of bothways/inference/compiled.py.
struct ProductCall {
    const float* x;  // [rows, depth]
    Matrix matrix;  // [depth, columns]; its bias may be null
    int64_t format;  // a FormatNumber
    int64_t rows, depth, columns, gelu, threads;
    void* words;  // of narrow formats: [rows, bothways_words]
    float* factors;  // of narrow formats: [rows]
    float* out;  // [rows, columns]
};

namespace {

template <class Format>
void multiply(const ProductCall& call) {
    using Word = typename Format::Word;
    const int64_t words = words_of<Format>(call.depth), panels = panel_count(call.columns);
    const Word* a = (const Word*)call.words;
    if constexpr (Format::NARROW) {
#pragma omp parallel for num_threads(call.threads)
        for (int64_t m = 0; m < call.rows; m++)
            call.factors[m] = Format::narrow(call.x + m * call.depth, call.depth, (Word*)call.words + m * words);
    } else {
        a = call.x;
    }
#pragma omp parallel for num_threads(call.threads)
    for (int64_t id = 0; id < call.threads; id++)
        gemm<Format>({.a = a,
                      .a_stride = words,
                      .rows = call.rows,
                      .b = packed<Format>(call.matrix, call.depth, call.columns),
                      .out = call.out,
                      .out_stride = call.columns,
                      .bias = call.matrix.bias,
                      .epilogue = call.gelu ? Epilogue::GELU : Epilogue::NONE,
                      .panels = {panels * id / call.threads, panels * (id + 1) / call.threads},
                      .a_factors = call.factors});
}

}  // namespace

extern "C" {

// out = x matrix + bias, and GELU of it where `gelu` says so.
void bothways_multiply(const ProductCall* call) {
    if (call->format == FLOAT32) multiply<Float32>(*call);
    else if (call->format == BFLOAT16) multiply<Bfloat16Pairs>(*call);
    else multiply<Int8Quads>(*call);
}

// Columns of a panel: a packed matrix has room for whole ones.
int64_t bothways_panel() { return PANEL; }

// Words of 32 bits that a row of `depth` numbers takes.
int64_t bothways_words(int64_t format, int64_t depth) {
    if (format == FLOAT32) return words_of<Float32>(depth);
    return format == BFLOAT16 ? words_of<Bfloat16Pairs>(depth) : words_of<Int8Quads>(depth);
}

// Packs a layer's weight [columns, depth], to be multiplied as its transpose. factors, excess: [padded columns], in
// int8.
void bothways_pack(const float* weight, int64_t columns, int64_t depth, int64_t format, void* panels, float* factors,
                   int32_t* excess) {
    if (format == FLOAT32) pack_transposed(weight, depth, columns, depth, (float*)panels);
    else if (format == BFLOAT16) pack_bfloat16(weight, columns, depth, (uint32_t*)panels);
    else pack_int8(weight, columns, depth, (uint32_t*)panels, factors, excess);
}

int64_t bothways_sizeof_Matrix() { return sizeof(Matrix); }
int64_t bothways_sizeof_ProductCall() { return sizeof(ProductCall); }
}
