// Attention, forward: O = (M ∘ softmax(Q Kᵀ / √D)) V, for one head of one sequence at a time. M is the dropout mask:
// 0, or 1 / (1 - dropout).

#include "attention.h"

namespace {

template <typename T>
void attention_forward(const HeadTask<T>& task) {
    const AttentionCall& call = task.call;
    std::vector<float> q = task.read_rows(call.q, call.qkv_stride);
    std::vector<float> k_panels = task.packed_transposed(task.read_rows(call.k, call.qkv_stride));
    std::vector<float> v_panels = task.packed(task.read_rows(call.v, call.qkv_stride).data(), task.length);
    std::vector<float> weights(TILE_ROWS * task.padded_length), out(TILE_ROWS * call.head_size);
    for (int64_t first = 0; first < task.length; first += TILE_ROWS) {
        int64_t count = std::min<int64_t>(TILE_ROWS, task.length - first);
        const Range keys = task.whole_panels(task.keys_of({first, first + count}));
        // S = Q Kᵀ
        task.gemm_nt(q.data() + first * call.head_size, count, k_panels, keys, weights.data());
        for (int64_t r = 0; r < count; r++) {
            float* row = weights.data() + r * task.padded_length;
            // P = softmax(S / √D)
            task.softmax_row(row, first + r, keys);
            if (call.dropout == 0) continue;
            // P ← M ∘ P
            uint64_t row_key = task.mask.row_key(first + r);
            for (int64_t j = keys.first; j < padded_to_panels(keys.last); j += LANES)
                store(row + j, task.mask.apply(load(row + j), row_key, j));
        }
        // O = P V
        task.gemm_nn(weights.data(), count, v_panels, keys, out.data());
        task.write_rows(out.data(), call.out, task.out_stride(), {first, first + count});
    }
}

}  // namespace

extern "C" {

// 1, or 0 where memory ran out.
int64_t bothways_attend(const AttentionCall* call) {
    return call->is_bfloat16 ? run_tasks<Bfloat16>(*call, attention_forward)
                             : run_tasks<float>(*call, attention_forward);
}

// What a mirror of the structure must have, too.
int64_t bothways_sizeof_AttentionCall() { return sizeof(AttentionCall); }
}
