// What the compiled parts are made of: vectors, the exponential, the matrix product, the softmax.
//
// A matrix is kept in panels of PANEL columns, and a tile of ROWS x PANEL results stays in registers while it runs down
// the panel. The sum of a row's products runs in the same order whatever rows are beside it, so a result does not
// depend on its company, to the last bit.
//
// Written with the vector types of GCC and Clang, so that one source serves AVX2, AVX-512 and NEON.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 12;
#elif defined(__AVX2__)
constexpr int LANES = 8, ROWS = 6;
#else
constexpr int LANES = 4, ROWS = 8;
#endif
constexpr int PANEL = 2 * LANES;
constexpr int64_t BLOCK_BYTES = 192 << 10;  // of rows that stay in the second-level cache while panels go by

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));

static inline vec load(const float* from) { vec v; memcpy(&v, from, sizeof v); return v; }
static inline void store(float* to, vec v) { memcpy(to, &v, sizeof v); }
static inline vec splat(float x) { return vec{} + x; }
static inline vec larger(vec a, vec b) { return a > b ? a : b; }  // b where one is no number
static inline float sum(vec v) {
    float lane[LANES];
    store(lane, v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}
static inline float largest(vec v) {
    float lane[LANES];
    store(lane, v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] = std::max(lane[i], lane[i + half]);
    return lane[0];
}

// e^x by 2^n times a polynomial of degree 6 on the rest; the rounding constant is 1.5 * 2^23. What is no number stays
// so.
static inline vec exponential(vec x) {
    x = larger(splat(-87.0f), x);
    vec n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ivec power = (__builtin_convertvector(n, ivec) + 127) << 23;
    return p * (vec)power;
}

// x/2 (1 + erf(x/sqrt 2)), with erf to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26).
static inline vec gelu(vec x) {
    vec z = larger(x, -x) * 0.70710678f;
    vec t = 1.0f / (z * 0.3275911f + 1.0f);
    vec p = ((((t * 1.061405429f - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
    vec erf = 1.0f - p * exponential(-z * z);
    return x * 0.5f * (1.0f + (x < 0 ? -erf : erf));
}

enum After { NOTHING, GELU, ADD };

struct Output { float* to; int64_t stride; const float* bias; const float* added; After after; };

// M x PANEL results, of which the first `columns` are written. ACROSS: the matrix on the left lies transposed.
template <int M, bool ACROSS>
static void tile(const float* a, int64_t stride, const float* panel, int64_t depth, int64_t column, int columns,
                 const Output& out) {
    vec left[M], right[M];  // loops over these are unrolled, or they would not be registers
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) left[m] = right[m] = vec{};
    for (int64_t k = 0; k < depth; k++, panel += PANEL) {
        __builtin_prefetch(panel + PANEL * depth, 0, 2);  // the next panel, which comes from memory
        vec b = load(panel), c = load(panel + LANES);
#pragma GCC unroll 16
        for (int m = 0; m < M; m++) {
            float x = ACROSS ? a[k * stride + m] : a[m * stride + k];
            left[m] += x * b;
            right[m] += x * c;
        }
    }
    vec sums[M][2];
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) sums[m][0] = left[m], sums[m][1] = right[m];
    vec bias[2] = {vec{}, vec{}};
    if (out.bias) memcpy(bias, out.bias + column, 4 * columns);
    for (int m = 0; m < M; m++) {
        vec pair[2] = {sums[m][0] + bias[0], sums[m][1] + bias[1]};
        float* to = out.to + m * out.stride + column;
        if (out.after == GELU) { pair[0] = gelu(pair[0]); pair[1] = gelu(pair[1]); }
        if (out.after == ADD) {
            vec more[2] = {vec{}, vec{}};
            memcpy(more, out.added + m * out.stride + column, 4 * columns);
            pair[0] += more[0];
            pair[1] += more[1];
        }
        if (columns == PANEL) { store(to, pair[0]); store(to + LANES, pair[1]); }
        else memcpy(to, pair, 4 * columns);
    }
}

template <int M, bool ACROSS>
static void tiles(int rows, const float* a, int64_t stride, const float* panel, int64_t depth, int64_t column,
                  int columns, const Output& out) {
    if (rows == M) tile<M, ACROSS>(a, stride, panel, depth, column, columns, out);
    else if constexpr (M > 1) tiles<M - 1, ACROSS>(rows, a, stride, panel, depth, column, columns, out);
}

struct Matrix { const float* panels; const float* bias; int64_t columns, depth; };

static int64_t panels_of(int64_t columns) { return (columns + PANEL - 1) / PANEL; }

// rows x columns = a (rows x depth) times the matrix, of which the panels `first` to `last` are done. With `depth` a's
// rows end there, as if zeros came behind.
template <bool ACROSS = false>
static void product(const float* a, int64_t stride, int64_t rows, const Matrix& w, Output out, int64_t first,
                    int64_t last, int64_t depth = -1) {
    if (depth < 0) depth = w.depth;
    int64_t block = std::max<int64_t>(ROWS, BLOCK_BYTES / (4 * w.depth) / ROWS * ROWS);
    out.bias = w.bias;
    for (int64_t top = 0; top < rows; top += block)
        for (int64_t p = first; p < last; p++) {
            int64_t column = p * PANEL, end = std::min(rows, top + block);
            int columns = (int)std::min<int64_t>(PANEL, w.columns - column);
            for (int64_t m = top; m < end; m += ROWS) {
                Output here = out;
                here.to += m * out.stride;
                if (out.added) here.added += m * out.stride;
                tiles<ROWS, ACROSS>((int)std::min<int64_t>(ROWS, end - m), ACROSS ? a + m : a + m * stride, stride,
                            w.panels + p * PANEL * w.depth, depth, column, columns, here);
            }
        }
}

// A matrix [columns, depth] into panels, columns behind the last one as zeros.
static void pack_across(const float* x, int64_t stride, int64_t columns, int64_t depth, float* panels) {
    for (int64_t first = 0; first < columns; first += PANEL, panels += PANEL * depth)
        for (int64_t n = 0; n < PANEL; n++)
            for (int64_t k = 0; k < depth; k++)
                panels[k * PANEL + n] = first + n < columns ? x[(first + n) * stride + k] : 0;
}

// A matrix [depth, columns] into panels.
static void pack_along(const float* x, int64_t stride, int64_t depth, int64_t columns, float* panels) {
    for (int64_t first = 0; first < columns; first += PANEL)
        for (int64_t k = 0; k < depth; k++, panels += PANEL) {
            int64_t some = std::min<int64_t>(PANEL, columns - first);
            memcpy(panels, x + k * stride + first, 4 * some);
            memset(panels + some, 0, 4 * (PANEL - some));
        }
}

// Softmax of the first `length` scores; those behind, up to `padded`, become 0.
static void softmax(float* row, int64_t length, int64_t padded, float scale) {
    int64_t end = (length + LANES - 1) / LANES * LANES;
    for (int64_t i = length; i < padded; i++) row[i] = -INFINITY;
    vec most = load(row), sums = vec{};
    for (int64_t i = LANES; i < end; i += LANES) most = larger(most, load(row + i));
    float top = largest(most);
    for (int64_t i = 0; i < end; i += LANES) {
        vec e = exponential((load(row + i) - top) * scale);
        store(row + i, e);
        sums += e;  // what is behind `length` adds e^-87
    }
    for (int64_t i = length; i < padded; i++) row[i] = 0;
    float share = 1.0f / sum(sums);
    for (int64_t i = 0; i < end; i += LANES) store(row + i, load(row + i) * share);
}
