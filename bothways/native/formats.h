// What matrices are multiplied in: float32, bfloat16 or int8.
//
// A product takes both of its sides in words of 32 bits: one float32, two bfloat16 or four bytes that follow one
// another along the depth. So all formats have the same panels and the same tile (gemm.h), and differ in how a word's
// products are added to a sum:
//
//   format        | word of a    | word of b     | sum     | where the processor cannot do it in one instruction
//   --------------+--------------+---------------+---------+----------------------------------------------------
//   Float32       | one float32  | one float32   | float32 |
//   Bfloat16Pairs | two bfloat16 | two bfloat16  | float32 | widened to float32
//   Int8Quads     | four uint8   | four int8     | int32   | pairs are added in 16 bits, for which weights have 7
//
// int8: a row of a is scaled by its own largest number, a column of b by its own, so a result depends on one row and
// one column (Dettmers et al. 2022, arXiv 2208.07339, section 3, vector-wise quantisation). The sums are exact.

#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <cmath>

#include "bfloat16.h"
#include "vectors.h"

constexpr int PANEL = 2 * LANES;

// A format: its words, how many numbers each has (GROUP), whether rows have to be made into words (NARROW) and have a
// factor each (SCALED); `add` for one word of a row and a line of a panel, and what its sums are as numbers.
struct Float32 {
    using Word = float;
    using Line = vec;
    using Sums = vec;
    static constexpr int GROUP = 1;  // numbers in a word
    static constexpr bool NARROW = false, SCALED = false;

    static Sums add(Sums sums, Word a, Line b) { return sums + a * b; }
    static vec numbers(Sums sums) { return sums; }
};

struct Bfloat16Pairs {
    using Word = uint32_t;
    using Line = uvec;
    using Sums = vec;
    static constexpr int GROUP = 2;
    static constexpr bool NARROW = true, SCALED = false;

    static Sums add(Sums sums, Word a, Line b) {
#if defined(__AVX512BF16__)
        return _mm512_dpbf16_ps(sums, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)b);
#else
        const uvec pair = uvec{} + a;
        return sums + (vec)(pair << 16) * (vec)(b << 16) + (vec)(pair & 0xffff0000) * (vec)(b & 0xffff0000);
#endif
    }
    static vec numbers(Sums sums) { return sums; }

    // A row as words; its factor is one.
    static float narrow(const float* row, int64_t depth, Word* words) {
        for (int64_t first = 0; first < depth; first += GROUP) {
            Bfloat16 pair[GROUP] = {};
            from_float32(row + first, pair, std::min<int64_t>(GROUP, depth - first));
            memcpy(words++, pair, sizeof pair);
        }
        return 1;
    }
};

struct Int8Quads {
    using Word = uint32_t;
    using Line = uvec;
    using Sums = ivec;
    static constexpr int GROUP = 4;
    static constexpr bool NARROW = true, SCALED = true;

    // A number of a row is stored with ZERO added, since the instructions take bytes without sign from this side.
    static constexpr int ZERO = 128, ROW_LEVELS = 127;
    // By the same conditions as `add` chooses its instructions.
#if defined(__AVX512VNNI__)
    static constexpr int COLUMN_LEVELS = 127;
#elif defined(__AVX512BW__)
    static constexpr int COLUMN_LEVELS = 63;  // two products of at most 255 * 63 go into 16 bits
#elif defined(__AVXVNNI__)
    static constexpr int COLUMN_LEVELS = 127;
#elif defined(__AVX2__)
    static constexpr int COLUMN_LEVELS = 63;
#else
    static constexpr int COLUMN_LEVELS = 127;
#endif

    static Sums add(Sums sums, Word a, Line b) {
#if defined(__AVX512VNNI__)
        return (Sums)_mm512_dpbusd_epi32((__m512i)sums, _mm512_set1_epi32((int)a), (__m512i)b);
#elif defined(__AVX512BW__)
        const __m512i pairs = _mm512_maddubs_epi16(_mm512_set1_epi32((int)a), (__m512i)b);
        return sums + (Sums)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif defined(__AVXVNNI__)
        return (Sums)_mm256_dpbusd_avx_epi32((__m256i)sums, _mm256_set1_epi32((int)a), (__m256i)b);
#elif defined(__AVX2__)
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi32((int)a), (__m256i)b);
        return sums + (Sums)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#else
        for (int i = 0; i < GROUP; i++) sums += (int)(a >> 8 * i & 255) * ((ivec)(b << (24 - 8 * i)) >> 24);
        return sums;
#endif
    }
    static vec numbers(Sums sums) { return __builtin_convertvector(sums, vec); }

    // A row as words; returns the factor that brings its numbers back to size, NaN where one of them is no number.
    static float narrow(const float* row, int64_t depth, Word* words) {
        float largest = 1e-12f, nought = 0;  // x - x is NaN where x is NaN or infinite
        const int64_t whole = depth / LANES * LANES;
        vec maxima = vec{}, noughts = vec{};
        for (int64_t i = 0; i < whole; i += LANES) {
            const vec x = load(row + i);
            maxima = max(maxima, max(x, -x));
            noughts += x - x;
        }
        for (int64_t i = whole; i < depth; i++) {
            largest = std::max(largest, std::abs(row[i]));
            nought += row[i] - row[i];
        }
        largest = std::max(largest, reduce_max(maxima));
        nought += reduce_sum(noughts);
        const float levels = nought == 0 ? ROW_LEVELS / largest : 0;
        uint8_t* bytes = (uint8_t*)words;
        for (int64_t i = 0; i < whole; i += LANES) {
            const ivec level = __builtin_convertvector(round(load(row + i) * levels), ivec) + ZERO;
            const auto narrowed = __builtin_convertvector(level, byte_vec);
            memcpy(bytes + i, &narrowed, LANES);
        }
        for (int64_t i = whole; i < depth; i++) bytes[i] = (uint8_t)((int)std::nearbyint(row[i] * levels) + ZERO);
        for (int64_t i = depth; i % GROUP; i++) bytes[i] = 0;  // b's weights are 0 there
        return largest / ROW_LEVELS + nought;
    }
};

template <class Format>
static int64_t words_of(int64_t depth) {
    return (depth + Format::GROUP - 1) / Format::GROUP;
}
