// Vectors of float32 as wide as the CPU's registers: load, store, compare, reduce.
//
// They are the vector types of GCC and Clang, so one source serves AVX2, AVX-512 and plain SSE.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int LANES = 16;  // numbers in a register
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef uint32_t uvec __attribute__((vector_size(LANES * 4)));
typedef uint8_t byte_vec __attribute__((vector_size(LANES)));

static inline vec load(const float* from) {
    vec v;
    memcpy(&v, from, sizeof v);
    return v;
}

static inline void store(float* to, vec v) { memcpy(to, &v, sizeof v); }

static inline vec splat(float x) { return vec{} + x; }

// The larger number of each lane; b where either is NaN.
static inline vec max(vec a, vec b) { return a > b ? a : b; }

// The nearest whole numbers of numbers below 2^22, ties to even.
static inline vec round(vec x) {
    constexpr float ROUNDING = 12582912.0f;  // 1.5 * 2^23: adding it leaves no bits for a fraction
    return (x + ROUNDING) - ROUNDING;
}

// The sum over the lanes, in halves: its order depends on LANES only.
static inline float reduce_sum(vec v) {
    float lane[LANES];
    store(lane, v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

static inline float reduce_max(vec v) {
    float lane[LANES];
    store(lane, v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] = std::max(lane[i], lane[i + half]);
    return lane[0];
}
