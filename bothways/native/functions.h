// The functions between the matrix products: exponential, GELU, softmax, layer norm. All in float32.
//
// Error bounds are measured by tests/native/test_functions.py; the name of the test stands at each.

#pragma once

#include <cmath>

#include "vectors.h"

// e^x for x <= 88, as 2^n e^r with n = round(x / ln 2) and |r| <= ln 2 / 2. Below -87 it gives e^-87; NaN stays NaN.
// Source: expf of the Cephes library (Moshier 1992, single/expf.c): its polynomial of degree 5 and its ln 2 in two
// parts, 0.693359375 - 2.12194440e-4, of which the first times n is exact.
// Relative error at most 1e-7 from -87 to 88: test_the_exponential_is_within_its_error_bound.
static inline vec exponential(vec x) {
    x = max(splat(-87.0f), x);
    vec n = round(x * 1.44269504f);
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ivec power = (__builtin_convertvector(n, ivec) + 127) << 23;  // the bits of 2^n
    return p * (vec)power;
}

// x/2 (1 + erf(x / sqrt 2)).
// Source: Abramowitz and Stegun 1964, formula 7.1.26, whose erf is exact to 1.5e-7.
// Absolute error at most 2.5e-7 max(1, |x|): test_gelu_is_within_its_error_bound.
static inline vec gelu(vec x) {
    vec z = max(x, -x) * 0.70710678f;
    vec t = 1.0f / (z * 0.3275911f + 1.0f);
    vec p = ((((t * 1.061405429f - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
    vec erf = 1.0f - p * exponential(-z * z);
    return x * 0.5f * (1.0f + (x < 0 ? -erf : erf));
}

// The derivative of `gelu`, by the same erf: Φ(x) + x φ(x) with the normal distribution Φ and its density φ.
// Absolute error at most 4e-7: test_the_slope_of_gelu_is_within_its_error_bound.
static inline vec gelu_slope(vec x) {
    vec z = max(x, -x) * 0.70710678f;
    vec t = 1.0f / (z * 0.3275911f + 1.0f);
    vec p = ((((t * 1.061405429f - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
    vec bell = exponential(-z * z);
    vec erf = 1.0f - p * bell;
    return 0.5f * (1.0f + (x < 0 ? -erf : erf)) + x * bell * 0.39894228f;
}

// In place: softmax of scale * row over its first `length` numbers; those behind, up to `padded`, become 0. There must
// be room for whole vectors, and NaN among the first `length` makes the row NaN.
// Source: the largest is subtracted first, so that nothing overflows (Goodfellow et al. 2016, section 4.1).
// Relative error at most 4e-7 + 1.2e-7 scale (maximum - x), most of it from rounding the difference:
// test_softmax_is_within_its_error_bound.
static void softmax(float* row, int64_t length, int64_t padded, float scale) {
    int64_t end = (length + LANES - 1) / LANES * LANES;
    for (int64_t i = length; i < padded; i++) row[i] = -INFINITY;
    vec maxima = load(row), sums = vec{};
    for (int64_t i = LANES; i < end; i += LANES) maxima = max(maxima, load(row + i));
    float maximum = reduce_max(maxima);
    for (int64_t i = 0; i < end; i += LANES) {
        vec e = exponential((load(row + i) - maximum) * scale);
        store(row + i, e);
        sums += e;  // a number behind `length` adds e^-87: nothing beside a sum of at least 1
    }
    for (int64_t i = length; i < padded; i++) row[i] = 0;
    float share = 1.0f / reduce_sum(sums);
    for (int64_t i = 0; i < end; i += LANES) store(row + i, load(row + i) * share);
}

struct LayerNorm {
    const float *weight, *bias;  // [width]
    float epsilon;
};

struct RowMoments {
    float mean, scale;  // 1 / sqrt(variance + epsilon)
};

// In place: (row - mean) / sqrt(variance + epsilon) * weight + bias, with the variance of the whole row (divided by its
// width, not by one less). Returns what the row was brought to size with.
// Source: Ba, Kiros and Hinton 2016, in two passes.
// Absolute error at most 2e-6 for rows, weights and biases of size one: test_layer_norm_is_within_its_error_bound.
static RowMoments layer_norm(float* row, int64_t width, const LayerNorm& norm) {
    constexpr int64_t STEP = 2 * LANES;  // two sums side by side, since an addition takes four cycles
    float total = 0, squares = 0;
    int64_t whole = width / STEP * STEP;
    vec a = vec{}, b = vec{};
    for (int64_t i = 0; i < whole; i += STEP) {
        a += load(row + i);
        b += load(row + i + LANES);
    }
    for (int64_t i = whole; i < width; i++) total += row[i];
    float mean = (total + reduce_sum(a + b)) / width;
    a = b = vec{};
    for (int64_t i = 0; i < whole; i += STEP) {
        vec c = load(row + i) - mean, d = load(row + i + LANES) - mean;
        a += c * c;
        b += d * d;
    }
    for (int64_t i = whole; i < width; i++) squares += (row[i] - mean) * (row[i] - mean);
    float scale = 1.0f / std::sqrt((squares + reduce_sum(a + b)) / width + norm.epsilon);
    const float *weight = norm.weight, *bias = norm.bias;
    for (int64_t i = 0; i < width; i++) row[i] = (row[i] - mean) * scale * weight[i] + bias[i];
    return {mean, scale};
}
