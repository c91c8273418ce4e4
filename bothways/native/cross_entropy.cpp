// Cross-entropy of scores over a vocabulary, and its gradient in their place, for training on a CPU.

#include "training.h"

// Mirrored by `CrossEntropyCall` of bothways/model/kernels/cross_entropy.py.
struct CrossEntropyCall {
    void* scores;  // [rows, columns] without the bias; where `dbias` is not null they become the gradients
    const float* bias;  // [columns]
    const int64_t* labels;  // [rows]
    float* losses;  // [rows]
    uint8_t* right;  // [rows]: 1 where the true column is the first of the highest
    float* dbias;  // [columns up to a multiple of LANES], or null
    int64_t rows, columns;
    int64_t is_bfloat16;  // of scores, else float32
    int64_t threads;
};

namespace {

int64_t padded_columns(const CrossEntropyCall& call) { return (call.columns + LANES - 1) / LANES * LANES; }

// Reads a row of scores, with the bias, as float32; behind the last column -infinity.
template <typename T>
void read_row(const CrossEntropyCall& call, const T* scores, float* row) {
    const int64_t columns = call.columns, whole = columns / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES) store(row + i, load_as_float(scores + i) + load(call.bias + i));
    to_float32(scores + whole, row + whole, columns - whole);
    for (int64_t i = whole; i < columns; i++) row[i] += call.bias[i];
    for (int64_t i = columns; i < padded_columns(call); i++) row[i] = -INFINITY;
}

// One row: its loss, log Σ exp(score) − score of the truth, and whether that is the first guess. row: room for it.
template <typename T>
void run_row(const CrossEntropyCall& call, int64_t n, float* row, float* dbias) {
    const int64_t padded = padded_columns(call), label = call.labels[n], columns = call.columns;
    T* scores = (T*)call.scores + n * columns;
    read_row(call, scores, row);
    vec maxima = load(row), sums = vec{};
    for (int64_t i = LANES; i < padded; i += LANES) maxima = max(maxima, load(row + i));
    const float highest = reduce_max(maxima), truth = row[label];
    call.right[n] = truth == highest && std::find(row, row + label, highest) == row + label;
    for (int64_t i = 0; i < padded; i += LANES) {
        const vec e = exponential(load(row + i) - highest);
        store(row + i, e);
        sums += e;  // behind the last column e^-87: nothing beside a sum of at least 1
    }
    const float sum = reduce_sum(sums), share = 1.0f / sum;
    call.losses[n] = std::log(sum) + highest - truth;
    if (!call.dbias) return;
    // the gradient of a score is its probability, less one for the truth
    row[label] -= sum;
    for (int64_t i = 0; i < padded; i += LANES) {
        const vec d = load(row + i) * share;
        store(row + i, d);
        add_to(dbias + i, d);
    }
    from_float32(row, scores, columns);
}

template <typename T>
int64_t run(const CrossEntropyCall& call) {
    const int64_t padded = padded_columns(call), count = call.dbias ? padded : 0;
    return over_row_blocks(call.rows, count, call.dbias, call.threads, [&](int64_t first, int64_t last, float* dbias) {
        std::vector<float> row(padded);
        for (int64_t n = first; n < last; n++) run_row<T>(call, n, row.data(), dbias);
    });
}

}  // namespace

extern "C" {

// 1, or 0 where memory ran out.
int64_t bothways_cross_entropy(const CrossEntropyCall* call) {
    return call->is_bfloat16 ? run<Bfloat16>(*call) : run<float>(*call);
}

// What a mirror of the structure must have, too.
int64_t bothways_sizeof_CrossEntropyCall() { return sizeof(CrossEntropyCall); }
}
