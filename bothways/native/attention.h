// Attention of a packed batch for training on a CPU, with dropout of its weights: what both directions share.
//
// The work is cut into tasks, one head of one sequence each. A task is one thread's, so results do not depend on how
// many threads there are. Nothing is kept for the backward pass: it computes the weights again, and the dropout mask
// follows from (seed, task, query, key). Sums are in float32 whatever the tensors hold.
//
// Shapes: T tokens, A heads, D = head size, L tokens of the sequence.

#pragma once

#include <algorithm>
#include <atomic>
#include <new>
#include <vector>

#include "bfloat16.h"
#include "gemm.h"
#include "random.h"

// Mirrored by `AttentionCall` of bothways/model/kernels/compiled.py. Tensors are [T, A, D], their heads side by side.
struct AttentionCall {
    const void *q, *k, *v, *dout;
    void *out, *dq, *dk, *dv;
    const int64_t* lengths;  // [sequences]
    int64_t sequences, heads, head_size;
    int64_t qkv_stride, dqkv_stride;  // numbers from one token to the next; in out and dout it is A * D
    int64_t causal;
    int64_t window;  // keys at most so far from the query on either side; -1: any
    int64_t is_bfloat16;  // else float32
    int64_t threads;
    uint64_t seed;
    double dropout;  // probability of a weight to become 0
};

namespace {

template <typename T>
struct HeadTask {
    const AttentionCall& call;
    int64_t first_token, length, head, padded_length, padded_head;
    DropoutMask mask;

    HeadTask(const AttentionCall& call, int64_t first_token, int64_t length, int64_t task)
        : call(call),
          first_token(first_token),
          length(length),
          head(task % call.heads),
          padded_length(padded_to_panels(length)),
          padded_head(padded_to_panels(call.head_size)),
          mask(call.seed, (uint64_t)task, call.dropout) {}

    int64_t out_stride() const { return call.heads * call.head_size; }
    float scale() const { return 1.0f / std::sqrt((float)call.head_size); }

    // The keys that one of these queries sees: all between the first and the last.
    Range keys_of(Range queries) const {
        const int64_t behind = call.causal ? queries.last : length;
        if (call.window < 0) return {0, behind};
        return {std::max<int64_t>(0, queries.first - call.window), std::min(behind, queries.last + call.window)};
    }

    // The same from the beginning of a panel on.
    Range whole_panels(Range keys) const { return {keys.first / PANEL * PANEL, keys.last}; }

    // This head's rows of a tensor: [L, D].
    std::vector<float> read_rows(const void* tensor, int64_t stride) const {
        std::vector<float> rows(length * call.head_size);
        const T* from = (const T*)tensor + first_token * stride + head * call.head_size;
        for (int64_t n = 0; n < length; n++)
            to_float32(from + n * stride, rows.data() + n * call.head_size, call.head_size);
        return rows;
    }

    void write_rows(const float* rows, void* tensor, int64_t stride, Range tokens) const {
        T* to = (T*)tensor + (first_token + tokens.first) * stride + head * call.head_size;
        for (int64_t n = 0; n < tokens.last - tokens.first; n++)
            from_float32(rows + n * call.head_size, to + n * stride, call.head_size);
    }

    // x [count, D] as panels, for a product with x.
    std::vector<float> packed(const float* x, int64_t count) const {
        std::vector<float> panels(padded_head * count);
        pack(x, call.head_size, count, call.head_size, panels.data());
        return panels;
    }

    // x [L, D] as panels, for a product with xT.
    std::vector<float> packed_transposed(const std::vector<float>& x) const {
        std::vector<float> panels(padded_length * call.head_size);
        pack_transposed(x.data(), call.head_size, length, call.head_size, panels.data());
        return panels;
    }

    // The three kinds of product, named as BLAS names them: N as it is, T transposed. Rows of scores and weights are
    // padded_length apart. `keys` begin at a panel: of the rows, only these columns are read or written.

    // out [count, keys] = x [count, D] yT, with y [L, D] as `packed_transposed`
    void gemm_nt(const float* x, int64_t count, const std::vector<float>& y_panels, Range keys, float* out) const {
        gemm({.a = x,
              .a_stride = call.head_size,
              .rows = count,
              .b = {.panels = y_panels.data(), .depth = call.head_size, .columns = padded_length},
              .out = out,
              .out_stride = padded_length,
              .panels = {keys.first / PANEL, panel_count(keys.last)}});
    }

    // out [count, D] = x [count, keys] y, with y [L, D] as `packed`
    void gemm_nn(const float* x, int64_t count, const std::vector<float>& y_panels, Range keys, float* out) const {
        gemm({.a = x + keys.first,
              .a_stride = padded_length,
              .rows = count,
              .b = {.panels = y_panels.data() + keys.first * PANEL, .depth = length, .columns = call.head_size},
              .out = out,
              .out_stride = call.head_size,
              .depth = keys.last - keys.first});
    }

    // out [keys, D] += xT y, with x [count, keys] and y [count, D]
    void gemm_tn(const float* x, int64_t count, const float* y, Range keys, std::vector<float>& out) const {
        std::vector<float> y_panels = packed(y, count);
        float* rows = out.data() + keys.first * call.head_size;
        gemm_transposed({.a = x + keys.first,
                         .a_stride = padded_length,
                         .rows = keys.last - keys.first,
                         .b = {.panels = y_panels.data(), .depth = count, .columns = call.head_size},
                         .out = rows,
                         .out_stride = call.head_size,
                         .epilogue = Epilogue::ADD,
                         .addend = rows});
    }

    // In place: one query's scores → its weights; `keys` are those of the whole block of queries.
    void softmax_row(float* scores, int64_t query, Range keys) const {
        const Range seen = keys_of({query, query + 1});
        std::fill(scores + keys.first, scores + seen.first, -INFINITY);
        softmax(scores + keys.first, seen.last - keys.first, padded_to_panels(keys.last) - keys.first, scale());
        std::fill(scores + keys.first, scores + seen.first, 0.0f);
    }
};

// Runs every task; false where memory ran out.
template <typename T>
bool run_tasks(const AttentionCall& call, void (*run)(const HeadTask<T>&)) {
    std::vector<int64_t> first_tokens(call.sequences + 1);
    for (int64_t n = 0; n < call.sequences; n++) first_tokens[n + 1] = first_tokens[n] + call.lengths[n];
    std::atomic<bool> enough_memory{true};
    // torch's own threads, as both are OpenMP's
#pragma omp parallel for schedule(dynamic) num_threads(call.threads)
    for (int64_t task = 0; task < call.sequences * call.heads; task++) {
        int64_t n = task / call.heads;
        try {  // an exception must not leave the threads
            run(HeadTask<T>(call, first_tokens[n], call.lengths[n], task));
        } catch (const std::bad_alloc&) {
            enough_memory = false;
        }
    }
    return enough_memory;
}

}  // namespace
