// Weights [columns, depth] as panels of their transpose, in the narrow formats.

#pragma once

#include "gemm.h"

enum FormatNumber : int64_t { FLOAT32, BFLOAT16, INT8 };

// Mirrored by a structure of bothways/inference/compiled.py. Made by `bothways_pack`; factors and excess are null where
// the format has none.
struct Matrix {
    const void* panels;
    const float* factors;
    const int32_t* excess;
    const float* bias;
};

template <class Format>
static PackedMatrix<Format> packed(const Matrix& matrix, int64_t depth, int64_t columns) {
    return {.panels = (const typename Format::Word*)matrix.panels,
            .depth = words_of<Format>(depth),
            .columns = columns,
            .factors = matrix.factors,
            .excess = matrix.excess};
}

// The GROUP numbers of a row of weights that share a word, zeros behind its end.
template <class Format>
static void read_group(const float* weight, int64_t column, int64_t columns, int64_t depth, int64_t word,
                       float* group) {
    for (int i = 0; i < Format::GROUP; i++) {
        const int64_t k = word * Format::GROUP + i;
        group[i] = column < columns && k < depth ? weight[column * depth + k] : 0;
    }
}

static void pack_bfloat16(const float* weight, int64_t columns, int64_t depth, uint32_t* panels) {
    constexpr int GROUP = Bfloat16Pairs::GROUP;
    const int64_t words = words_of<Bfloat16Pairs>(depth), padded = padded_to_panels(columns);
    for (int64_t column = 0; column < padded; column++)
        for (int64_t k = 0; k < words; k++) {
            float group[GROUP];
            Bfloat16 pair[GROUP];
            read_group<Bfloat16Pairs>(weight, column, columns, depth, k, group);
            from_float32(group, pair, GROUP);
            memcpy(panels + (column / PANEL * words + k) * PANEL + column % PANEL, pair, 4);
        }
}

// factors, excess: [padded columns]. A column that holds what is no number has NaN as its factor.
static void pack_int8(const float* weight, int64_t columns, int64_t depth, uint32_t* panels, float* factors,
                      int32_t* excess) {
    constexpr int GROUP = Int8Quads::GROUP;
    const int64_t words = words_of<Int8Quads>(depth), padded = padded_to_panels(columns);
    for (int64_t column = 0; column < padded; column++) {
        float largest = 1e-12f, nought = 0;
        for (int64_t k = 0; column < columns && k < depth; k++) {
            const float x = weight[column * depth + k];
            largest = std::max(largest, std::abs(x));
            nought += x - x;
        }
        factors[column] = largest / Int8Quads::COLUMN_LEVELS + nought;
        excess[column] = 0;
        for (int64_t k = 0; k < words; k++) {
            float group[GROUP];
            int8_t quad[GROUP];
            read_group<Int8Quads>(weight, column, columns, depth, k, group);
            for (int i = 0; i < GROUP; i++) {
                quad[i] = nought == 0 ? (int8_t)std::nearbyint(group[i] / largest * Int8Quads::COLUMN_LEVELS) : 0;
                excess[column] += Int8Quads::ZERO * quad[i];
            }
            memcpy(panels + (column / PANEL * words + k) * PANEL + column % PANEL, quad, 4);
        }
    }
}
