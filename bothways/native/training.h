// What the kernels of training share: numbers of a tensor as vectors, whatever the tensor holds, and sums over rows.
//
// Rows have a multiple of LANES numbers. They are cut into blocks of ROW_BLOCK, and a block is one thread's. What is
// summed over rows is summed in each block, and then over the blocks in their order, so that results do not depend on
// how many threads there are.

#pragma once

#include <atomic>
#include <new>
#include <vector>

#include "bfloat16.h"
#include "functions.h"
#include "random.h"

// It decides how sums over rows round: another value would change every run. The sums of a block cost a row more.
constexpr int64_t ROW_BLOCK = 32;

typedef uint16_t half_vec __attribute__((vector_size(LANES * 2)));

static inline vec load_as_float(const float* from) { return load(from); }

static inline vec load_as_float(const Bfloat16* from) {
    half_vec bits;
    memcpy(&bits, from, sizeof bits);
    return (vec)(__builtin_convertvector(bits, uvec) << 16);
}

static inline void store_float(float* to, vec x) { store(to, x); }

// Rounds as `from_float32` does.
static inline void store_float(Bfloat16* to, vec x) {
    const uvec bits = (uvec)x, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const half_vec narrow = __builtin_convertvector(x == x ? rounded : uvec{} + 0x7fc0u, half_vec);
    memcpy(to, &narrow, sizeof narrow);
}

static inline void add_to(float* sums, vec x) { store(sums, load(sums) + x); }

static inline int64_t row_blocks(int64_t rows) { return (rows + ROW_BLOCK - 1) / ROW_BLOCK; }

// Calls run(first row, behind the last row, sums [count]) for every block of rows, and adds the blocks' sums up: out
// [count]. Returns 1, or 0 where memory ran out. count: a multiple of LANES, or 0.
template <typename Run>
int64_t over_row_blocks(int64_t rows, int64_t count, float* out, int64_t threads, Run run) {
    const int64_t blocks = row_blocks(rows);
    std::vector<float> sums;
    try {
        sums.resize(blocks * count);
    } catch (const std::bad_alloc&) {
        return 0;
    }
    std::atomic<bool> enough_memory{true};
#pragma omp parallel for num_threads(threads)
    for (int64_t block = 0; block < blocks; block++) {
        try {  // an exception must not leave the threads
            run(block * ROW_BLOCK, std::min(rows, (block + 1) * ROW_BLOCK), sums.data() + block * count);
        } catch (const std::bad_alloc&) {
            enough_memory = false;
        }
    }
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < count; i += LANES) {
        vec sum = vec{};
        for (int64_t block = 0; block < blocks; block++) sum += load(sums.data() + block * count + i);
        store(out + i, sum);
    }
    return enough_memory;
}
