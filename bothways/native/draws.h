// What training on a CPU shares: which numbers dropout leaves, by counter, so that any part can be drawn
// again; and tensors of float32 or bfloat16.

#pragma once

#include "vectors.h"

typedef uint32_t uvec __attribute__((vector_size(LANES * 4)));

namespace {

struct Bfloat16 { uint16_t bits; };

void read(const float* from, float* to, int64_t count) { memcpy(to, from, 4 * count); }
void read(const Bfloat16* from, float* to, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)from[i].bits << 16;
        memcpy(to + i, &bits, 4);
    }
}
void write(const float* from, float* to, int64_t count) { memcpy(to, from, 4 * count); }
void write(const float* from, Bfloat16* to, int64_t count) {  // to the nearest, of two the even one
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, from + i, 4);
        to[i].bits = from[i] != from[i] ? 0x7fc0 : (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
}

// 64 bits that look drawn (Steele et al. 2014, SplitMix), and 32 (Wellons 2018, lowbias32).
uint64_t mixed(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}
inline uvec mixed(uvec x) {
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

// Which numbers of a unit stay: they lie in rows, and a number's draw follows from (seed, unit, row, column).
struct Mask {
    uint64_t key;
    uint32_t lowest;  // draws from here on stay
    float share;      // 1 / the probability to stay

    Mask(uint64_t seed, uint64_t unit, double dropout)
        : key(mixed(seed ^ mixed(unit))), lowest((uint32_t)std::min(dropout * 4294967296.0, 4294967295.0)),
          share((float)(1 / (1 - dropout))) {}

    uint64_t of(int64_t row) const { return mixed(key + (uint64_t)row); }
    // What stays of LANES numbers from a column on, over the share; drawn: `of` their row.
    vec keep(vec x, uint64_t drawn, int64_t column) const {
        uvec number = uvec{} + (uint32_t)column;
        for (int i = 0; i < LANES; i++) number[i] += i;
        uvec draw = mixed(mixed(number + (uint32_t)drawn) ^ (uint32_t)(drawn >> 32));
        return (vec)((ivec)(x * share) & (ivec)(draw >= lowest));
    }
};

}  // namespace
