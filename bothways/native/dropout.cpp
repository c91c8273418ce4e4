// Dropout for training on a CPU: each number becomes 0, or itself times 1 / (1 - dropout). The same call on the
// gradient is the backward pass, since the mask follows from the seed alone.

#include "bfloat16.h"
#include "random.h"

namespace {

// `count` numbers, LANES at most, from `column` of a row on.
template <typename T>
inline void drop_vector(const T* x, T* out, int64_t count, const DropoutMask& mask, uint64_t row_key, int64_t column) {
    float numbers[LANES] = {};
    to_float32(x, numbers, count);
    store(numbers, mask.apply(load(numbers), row_key, column));
    from_float32(numbers, out, count);
}

template <typename T>
void drop(const T* x, T* out, int64_t count, const DropoutMask& mask, int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < (count + ROW_NUMBERS - 1) / ROW_NUMBERS; row++) {
        uint64_t key = mask.row_key(row);
        int64_t first = row * ROW_NUMBERS, length = std::min(ROW_NUMBERS, count - first), i = 0;
        for (; i + LANES <= length; i += LANES) drop_vector(x + first + i, out + first + i, LANES, mask, key, i);
        if (i < length) drop_vector(x + first + i, out + first + i, length - i, mask, key, i);
    }
}

}  // namespace

extern "C" {

// x, out: `count` numbers. dropout: the probability of a number to become 0.
void bothways_drop_float32(const float* x, float* out, int64_t count, uint64_t seed, double dropout, int64_t threads) {
    drop(x, out, count, DropoutMask(seed, 0, dropout), threads);
}

void bothways_drop_bfloat16(const Bfloat16* x, Bfloat16* out, int64_t count, uint64_t seed, double dropout,
                            int64_t threads) {
    drop(x, out, count, DropoutMask(seed, 0, dropout), threads);
}
}
