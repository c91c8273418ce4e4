// Dropout for training on a CPU: each number is 0, or itself over the share that stays. The same call on the gradient
// is the backward pass, as what falls follows from the seed alone.

#include "draws.h"

namespace {

constexpr int64_t ROW = 4096;  // numbers that a thread does at a time

// LANES numbers or fewer
template <typename T>
inline void drop_some(const T* x, T* out, int64_t number, const Mask& mask, uint64_t drawn, int64_t column) {
    float some[LANES] = {};
    read(x, some, number);
    store(some, mask.keep(load(some), drawn, column));
    write(some, out, number);
}

template <typename T>
void drop(const T* x, T* out, int64_t count, const Mask& mask, int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < (count + ROW - 1) / ROW; row++) {
        uint64_t drawn = mask.of(row);
        int64_t first = row * ROW, length = std::min(ROW, count - first), i = 0;
        for (; i + LANES <= length; i += LANES) drop_some(x + first + i, out + first + i, LANES, mask, drawn, i);
        if (i < length) drop_some(x + first + i, out + first + i, length - i, mask, drawn, i);
    }
}

}  // namespace

extern "C" void bothways_drop(const void* x, void* out, int64_t count, int64_t half, uint64_t seed, double dropout,
                              int64_t threads) {
    Mask mask(seed, 0, dropout);
    if (half) drop((const Bfloat16*)x, (Bfloat16*)out, count, mask, threads);
    else drop((const float*)x, (float*)out, count, mask, threads);
}
