// Attention, backward: the gradients of Q, K and V for one head of one sequence at a time, given that of the output,
// dO. Only Q, K, V are at hand; P and the dropout mask M (0, or 1 / (1 - dropout)) are made again.

#include "attention.h"

namespace {

// Queries at a time, so that their rows of weights and of dscores stay in the second-level cache: 2 x 96 x 512 floats,
// 384 KiB, for the longest sequences of BERT on AVX-512. dK and dV are sums over such blocks: another number rounds
// otherwise. Measured on AVX-512 (busy with other work) for 4, 8 and 16 times TILE_ROWS, one head of 64 with dropout,
// forward and backward: 128 tokens 0.42, 0.41 and 0.41 ms, 512 tokens 4.0, 4.1 and 3.9 ms.
constexpr int64_t QUERIES = 8 * TILE_ROWS;

// LANES numbers, dropped as the forward pass dropped them; written back.
template <typename T>
vec drop(const HeadTask<T>& task, float* at, uint64_t row_key, int64_t column) {
    vec x = load(at);
    if (task.call.dropout != 0) store(at, x = task.mask.apply(x, row_key, column));
    return x;
}

// In place, one query's row: weights P → M ∘ P; dscores, which holds the gradient of M ∘ P → dS.
template <typename T>
void softmax_backward_row(const HeadTask<T>& task, float* weights, float* dscores, int64_t query, Range keys) {
    const int64_t end = padded_to_panels(keys.last);
    const uint64_t row_key = task.mask.row_key(query);
    // dP = M ∘ d(M ∘ P), and rowsum(P ∘ dP)
    vec sums = vec{};
    for (int64_t j = keys.first; j < end; j += LANES) sums += load(weights + j) * drop(task, dscores + j, row_key, j);
    const float sum = reduce_sum(sums);
    // dS = P ∘ (dP − rowsum(P ∘ dP)) / √D
    for (int64_t j = keys.first; j < end; j += LANES) {
        vec p = load(weights + j);
        drop(task, weights + j, row_key, j);
        store(dscores + j, p * (load(dscores + j) - sum) * task.scale());
    }
}

template <typename T>
void attention_backward(const HeadTask<T>& task) {
    const AttentionCall& call = task.call;
    const int64_t head_size = call.head_size, length = task.length, padded_length = task.padded_length;
    std::vector<float> q = task.read_rows(call.q, call.qkv_stride), k = task.read_rows(call.k, call.qkv_stride);
    std::vector<float> dout = task.read_rows(call.dout, task.out_stride());
    std::vector<float> kt_panels = task.packed_transposed(k);
    std::vector<float> vt_panels = task.packed_transposed(task.read_rows(call.v, call.qkv_stride));
    std::vector<float> k_panels = task.packed(k.data(), length);
    std::vector<float> weights(QUERIES * padded_length), dscores(QUERIES * padded_length), dq(QUERIES * head_size);
    std::vector<float> dk(length * head_size), dv(length * head_size);
    for (int64_t first = 0; first < length; first += QUERIES) {
        int64_t count = std::min(QUERIES, length - first);
        const Range keys = task.whole_panels(task.keys_of({first, first + count}));
        const float *q_rows = q.data() + first * head_size, *dout_rows = dout.data() + first * head_size;
        // S = Q Kᵀ
        task.gemm_nt(q_rows, count, kt_panels, keys, weights.data());
        // d(M ∘ P) = dO Vᵀ
        task.gemm_nt(dout_rows, count, vt_panels, keys, dscores.data());
        for (int64_t r = 0; r < count; r++) {
            float *weights_row = weights.data() + r * padded_length, *dscores_row = dscores.data() + r * padded_length;
            // P = softmax(S / √D)
            task.softmax_row(weights_row, first + r, keys);
            // dS = P ∘ (dP − rowsum(P ∘ dP)) / √D
            softmax_backward_row(task, weights_row, dscores_row, first + r, keys);
        }
        // dV += (M ∘ P)ᵀ dO
        task.gemm_tn(weights.data(), count, dout_rows, keys, dv);
        // dK += dSᵀ Q
        task.gemm_tn(dscores.data(), count, q_rows, keys, dk);
        // dQ = dS K
        task.gemm_nn(dscores.data(), count, k_panels, keys, dq.data());
        task.write_rows(dq.data(), call.dq, call.dqkv_stride, {first, first + count});
    }
    task.write_rows(dk.data(), call.dk, call.dqkv_stride, {0, length});
    task.write_rows(dv.data(), call.dv, call.dqkv_stride, {0, length});
}

}  // namespace

extern "C" {

// 1, or 0 where memory ran out.
int64_t bothways_attend_backward(const AttentionCall* call) {
    return call->is_bfloat16 ? run_tasks<Bfloat16>(*call, attention_backward)
                             : run_tasks<float>(*call, attention_backward);
}
}
