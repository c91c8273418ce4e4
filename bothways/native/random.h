// Random numbers by key, and the dropout mask made of them: which numbers fall follows from keys alone, so the backward
// pass makes the mask of the forward pass again instead of keeping it.

#pragma once

#include <algorithm>

#include "vectors.h"

// 64 random bits of a key: SplitMix64 (Steele, Lea and Flood 2014, figure 17).
// The same function as `mix` of bothways/counter_random.py for one word: mix(x) = splitmix64(x), and for two
// mix(x, y) = splitmix64(splitmix64(x) ^ y). Test: test_splitmix64_is_the_mix_of_counter_random.
static inline uint64_t splitmix64(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

// 32 random bits of a key in each lane: lowbias32 (Wellons 2018, "Prospecting for hash functions"). Python has no twin.
static inline uvec lowbias32(uvec x) {
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

// Numbers of a tensor with one row key, and a thread's share of them at a time. It decides which numbers fall: another
// value would change every run. 4096 of them take 16 KiB, half a first-level cache.
constexpr int64_t ROW_NUMBERS = 4096;

// Which numbers of a tensor, or of a head's weights, are kept. They lie in rows, and whether a number is kept follows
// from (seed, tensor, row, column).
struct DropoutMask {
    uint64_t key;
    uint32_t threshold;  // a number is kept whose 32 random bits are at least this
    float scale;  // 1 / (1 - dropout), for the mean to stay

    DropoutMask(uint64_t seed, uint64_t tensor, double dropout)
        : key(splitmix64(seed ^ splitmix64(tensor))),
          threshold((uint32_t)std::min(dropout * 4294967296.0, 4294967295.0)),
          scale((float)(1 / (1 - dropout))) {}

    uint64_t row_key(int64_t row) const { return splitmix64(key + (uint64_t)row); }

    // LANES numbers from `column` on, scaled, or 0 where they are dropped.
    vec apply(vec x, uint64_t row_key, int64_t column) const {
        uvec columns = uvec{} + (uint32_t)column;
        for (int i = 0; i < LANES; i++) columns[i] += i;
        uvec bits = lowbias32(lowbias32(columns + (uint32_t)row_key) ^ (uint32_t)(row_key >> 32));
        return (vec)((ivec)(x * scale) & (ivec)(bits >= threshold));
    }
};
