// Tensors of training hold float32 or bfloat16; all arithmetic is in float32.

#pragma once

#include <cstdint>
#include <cstring>

struct Bfloat16 {
    uint16_t bits;  // the upper half of a float32
};

static inline void to_float32(const float* from, float* to, int64_t count) { memcpy(to, from, 4 * count); }

static inline void to_float32(const Bfloat16* from, float* to, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)from[i].bits << 16;
        memcpy(to + i, &bits, 4);
    }
}

static inline void from_float32(const float* from, float* to, int64_t count) { memcpy(to, from, 4 * count); }

// Rounds to the nearest, ties to even, as torch does; every NaN becomes 0x7fc0.
static inline void from_float32(const float* from, Bfloat16* to, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, from + i, 4);
        to[i].bits = from[i] != from[i] ? 0x7fc0 : (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
}
