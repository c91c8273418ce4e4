// The matrix product (GEMM): out = epilogue(a b + bias), where b was packed into panels before, in any of the formats
// of formats.h. `k` and `depth` count words.
//
// A tile of TILE_ROWS x PANEL sums stays in registers while k runs down one panel of b:
//
//                               panel: PANEL = 2 LANES columns of b
//                                    LANES          LANES
//                               +--------------+--------------+
//                 k running   | |   b[k][..]   |   b[k][..]   |   one line a step: two vectors,
//                 down        v |              |              |   lines side by side in memory
//                               +--------------+--------------+
//       a: M <= TILE_ROWS rows        out: M x PANEL sums
//       +-------- k -> -------+ +--------------+--------------+
//       |      a[0][k]        | |   left[0]    |   right[0]   |   left[m]  += a[m][k] * first vector of b[k]
//       |        ...          | |     ...      |     ...      |   right[m] += a[m][k] * second vector of b[k]
//       |     a[M-1][k]       | |  left[M-1]   |  right[M-1]  |
//       +---------------------+ +--------------+--------------+
//
// Registers: 2 TILE_ROWS sums, two for b, one for a's number. AVX-512 has 32 of them, AVX2 has 16.
//
// Every sum runs over k in the same order whatever rows stand beside its own. So a result is the same to the last bit
// in any batch and on any number of threads.

#pragma once

#include "formats.h"
#include "functions.h"

#if defined(__AVX512F__)
constexpr int TILE_ROWS = 12;  // 27 of 32 registers
#elif defined(__AVX2__)
constexpr int TILE_ROWS = 6;  // 15 of 16 registers
#else
constexpr int TILE_ROWS = 8;  // in the tests only, which run a third shape of tile with it
#endif

// Bytes of a's rows that go through all panels before the next rows do, so that they stay in the second-level cache. No
// result depends on it. Measured on an AVX-512 EPYC with 1 MiB of that cache (busy with other work), 96, 192 and 384
// KiB: a layer of BERT-base with 400 tokens 96, 82 and 79 ms, of MiniLM 15.9, 16.9 and 16.3 ms. 384 KiB is best there;
// it is half of that since many CPUs have no more than 256 KiB of this cache.
constexpr int64_t BLOCK_BYTES = 192 << 10;

struct Range {
    int64_t first, last;  // first <= i < last
};

static int64_t panel_count(int64_t columns) { return (columns + PANEL - 1) / PANEL; }
static int64_t padded_to_panels(int64_t columns) { return panel_count(columns) * PANEL; }

// A matrix [depth, columns] as its panels, one after another: [panel, depth, PANEL], zeros behind the last column.
template <class Format = Float32>
struct PackedMatrix {
    const typename Format::Word* panels;
    int64_t depth, columns;
    const float* factors = nullptr;  // of a scaled format: [padded columns], and so is the next
    const int32_t* excess = nullptr;  // what the zero point of a's numbers adds to a sum
};

enum class Epilogue { NONE, GELU, ADD };

template <class Format = Float32>
struct Gemm {
    const typename Format::Word* a;  // [rows, depth], or [depth, rows] for gemm_transposed
    int64_t a_stride;  // words from one line of a to the next
    int64_t rows;
    PackedMatrix<Format> b;
    float* out;  // [rows, columns]
    int64_t out_stride;
    const float* bias = nullptr;  // [columns]
    Epilogue epilogue = Epilogue::NONE;
    const float* addend = nullptr;  // of Epilogue::ADD: [rows, columns] with out's stride; may be `out` itself
    Range panels = {0, panel_count(b.columns)};  // which panels of b to multiply
    int64_t depth = b.depth;  // smaller: as if a held zeros from there on
    const float* a_factors = nullptr;  // of a scaled format: [rows]
};

// What a tile's sums are, with the bias and the epilogue, in `out`.
template <class Format, int M>
static void write_tile(const Gemm<Format>& g, int64_t row, int64_t column, const typename Format::Sums (*sums)[2]) {
    const int columns = (int)std::min<int64_t>(PANEL, g.b.columns - column);
    vec bias[2] = {vec{}, vec{}};
    if (g.bias) memcpy(bias, g.bias + column, 4 * columns);
    for (int m = 0; m < M; m++) {
        vec line[2];
        if constexpr (Format::SCALED) {
            const float factor = g.a_factors[row + m];
            ivec excess[2];
            memcpy(excess, g.b.excess + column, sizeof excess);
            const float* factors = g.b.factors + column;
            line[0] = Format::numbers(sums[m][0] - excess[0]) * (load(factors) * factor) + bias[0];
            line[1] = Format::numbers(sums[m][1] - excess[1]) * (load(factors + LANES) * factor) + bias[1];
        } else {
            line[0] = Format::numbers(sums[m][0]) + bias[0];
            line[1] = Format::numbers(sums[m][1]) + bias[1];
        }
        const int64_t offset = (row + m) * g.out_stride + column;
        if (g.epilogue == Epilogue::GELU) {
            line[0] = gelu(line[0]);
            line[1] = gelu(line[1]);
        }
        if (g.epilogue == Epilogue::ADD) {
            vec addend[2] = {vec{}, vec{}};
            memcpy(addend, g.addend + offset, 4 * columns);
            line[0] += addend[0];
            line[1] += addend[1];
        }
        if (columns == PANEL) {
            store(g.out + offset, line[0]);
            store(g.out + offset + LANES, line[1]);
        } else {
            memcpy(g.out + offset, line, 4 * columns);
        }
    }
}

// The tile of rows [row, row + M) and one panel.
template <class Format, int M, bool TRANSPOSED>
static void gemm_tile(const Gemm<Format>& g, int64_t row, int64_t panel) {
    const typename Format::Word* a = TRANSPOSED ? g.a + row : g.a + row * g.a_stride;
    const typename Format::Word* b = g.b.panels + panel * PANEL * g.b.depth;
    const int64_t stride = g.a_stride, depth = g.depth;
    typename Format::Sums left[M], right[M];  // loops over these are unrolled, or they would not be registers
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) left[m] = right[m] = typename Format::Sums{};
    for (int64_t k = 0; k < depth; k++, b += PANEL) {
        __builtin_prefetch(b + PANEL * depth, 0, 2);  // the next panel, which comes from memory
        typename Format::Line first, second;
        memcpy(&first, b, sizeof first);
        memcpy(&second, b + LANES, sizeof second);
#pragma GCC unroll 16
        for (int m = 0; m < M; m++) {
            const typename Format::Word x = TRANSPOSED ? a[k * stride + m] : a[m * stride + k];
            left[m] = Format::add(left[m], x, first);
            right[m] = Format::add(right[m], x, second);
        }
    }
    typename Format::Sums sums[M][2];
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) sums[m][0] = left[m], sums[m][1] = right[m];
    write_tile<Format, M>(g, row, panel * PANEL, sums);
}

// The number of rows is a constant of each tile's code; this finds the code for `rows`, 1 to M.
template <class Format, int M, bool TRANSPOSED>
static void gemm_tile_of(int rows, const Gemm<Format>& g, int64_t row, int64_t panel) {
    if (rows == M) gemm_tile<Format, M, TRANSPOSED>(g, row, panel);
    else if constexpr (M > 1) gemm_tile_of<Format, M - 1, TRANSPOSED>(rows, g, row, panel);
}

template <class Format, bool TRANSPOSED>
static void gemm_blocks(const Gemm<Format>& g) {
    const int64_t block = std::max<int64_t>(TILE_ROWS, BLOCK_BYTES / (4 * g.b.depth) / TILE_ROWS * TILE_ROWS);
    for (int64_t top = 0; top < g.rows; top += block)
        for (int64_t panel = g.panels.first; panel < g.panels.last; panel++) {
            const int64_t end = std::min(g.rows, top + block);
            for (int64_t row = top; row < end; row += TILE_ROWS) {
                const int rows = (int)std::min<int64_t>(TILE_ROWS, end - row);
                gemm_tile_of<Format, TILE_ROWS, TRANSPOSED>(rows, g, row, panel);
            }
        }
}

// out = epilogue(a b + bias)
template <class Format = Float32>
static void gemm(const Gemm<Format>& g) {
    gemm_blocks<Format, false>(g);
}

// out = epilogue(aT b + bias)
static void gemm_transposed(const Gemm<>& g) { gemm_blocks<Float32, true>(g); }

// Packs a matrix [depth, columns].
static void pack(const float* x, int64_t stride, int64_t depth, int64_t columns, float* panels) {
    for (int64_t first = 0; first < columns; first += PANEL)
        for (int64_t k = 0; k < depth; k++, panels += PANEL) {
            int64_t width = std::min<int64_t>(PANEL, columns - first);
            memcpy(panels, x + k * stride + first, 4 * width);
            memset(panels + width, 0, 4 * (PANEL - width));
        }
}

// Packs the transpose of a matrix [columns, depth].
static void pack_transposed(const float* x, int64_t stride, int64_t columns, int64_t depth, float* panels) {
    for (int64_t first = 0; first < columns; first += PANEL, panels += PANEL * depth)
        for (int64_t n = 0; n < PANEL; n++)
            for (int64_t k = 0; k < depth; k++)
                panels[k * PANEL + n] = first + n < columns ? x[(first + n) * stride + k] : 0;
}
