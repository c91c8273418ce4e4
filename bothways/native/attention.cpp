// Attention of a packed batch for training on a CPU: forward and backward, with dropout of its weights.
//
// The work is cut into units, one head of one sequence each, and a unit is done by one thread, so that results do not
// depend on how many there are. Nothing is kept for the backward pass: it computes the weights again, and which of them
// were dropped follows from (seed, unit, query, key). Sums are in float32 whatever the tensors hold.
//
// Shapes: L tokens of a sequence, D numbers of a head. With P = softmax(q kT / sqrt D), M its mask over the share that
// is kept, and G the gradient of the output: the gradients are, of v, (P M)T G; of the scores before the softmax,
// S = P (M (G vT) - sum over keys of P M (G vT)); of q and k, S k / sqrt D and ST q / sqrt D.

#include <atomic>
#include <new>
#include <vector>

#include "draws.h"

extern "C" {

// As `compiled_attention.py` fills it. Tensors are [tokens, heads, D]: q, k and v with `stride` numbers from one token
// to the next, their gradients with `of_stride`, `out` and its gradient with heads * D.
struct Attention {
    const void *q, *k, *v, *of_out;
    void *out, *of_q, *of_k, *of_v;
    const int64_t* lengths;
    int64_t sequences, heads, size, stride, of_stride, causal, half, threads;  // half: bfloat16, else float32
    uint64_t seed;
    double dropout;
};
}

namespace {

constexpr int64_t QUERIES = 8 * ROWS;  // at a time in the backward pass, so that their weights stay in the cache

template <typename T>
struct Unit {
    const Attention& call;
    int64_t start, length, head, padded, wide;
    Mask mask;

    Unit(const Attention& call, int64_t start, int64_t length, int64_t head, int64_t number)
        : call(call), start(start), length(length), head(head), padded(panels_of(length) * PANEL),
          wide(panels_of(call.size) * PANEL), mask(call.seed, (uint64_t)number, call.dropout) {}

    std::vector<float> rows(const void* tensor, int64_t stride) const {  // [L, D]
        std::vector<float> found(length * call.size);
        const T* from = (const T*)tensor + start * stride + head * call.size;
        for (int64_t n = 0; n < length; n++) read(from + n * stride, found.data() + n * call.size, call.size);
        return found;
    }
    void put(const float* rows, void* tensor, int64_t stride, int64_t first, int64_t count) const {
        T* to = (T*)tensor + (start + first) * stride + head * call.size;
        for (int64_t n = 0; n < count; n++) write(rows + n * call.size, to + n * stride, call.size);
    }
    std::vector<float> across(const std::vector<float>& x) const {  // to be multiplied as xT
        std::vector<float> panels(padded * call.size);
        pack_across(x.data(), call.size, length, call.size, panels.data());
        return panels;
    }
    std::vector<float> along(const float* x, int64_t count) const {  // `count` rows, to be multiplied as x
        std::vector<float> panels(wide * count);
        pack_along(x, call.size, count, call.size, panels.data());
        return panels;
    }
    // How many keys the queries before `last` see. Rows of weights end with the panel of that key.
    int64_t seen(int64_t last) const { return call.causal ? last : length; }
    int64_t end(int64_t keys) const { return panels_of(keys) * PANEL; }

    // to (rows x keys) = x (rows x D) times panels of `across`
    void score(const float* x, int64_t count, const std::vector<float>& panels, int64_t keys, float* to) const {
        Matrix matrix{panels.data(), nullptr, padded, call.size};
        product(x, call.size, count, matrix, {to, padded, nullptr, nullptr, NOTHING}, 0, panels_of(keys));
    }
    // to (rows x D) = x (rows x keys) times panels of `along`
    void gather(const float* x, int64_t count, const std::vector<float>& panels, int64_t keys, float* to) const {
        Matrix matrix{panels.data(), nullptr, call.size, length};
        product(x, padded, count, matrix, {to, call.size, nullptr, nullptr, NOTHING}, 0, panels_of(call.size), keys);
    }
    // to (keys x D) += xT (x: `count` rows x keys) times `count` rows of y
    void scatter(const float* x, int64_t count, const float* y, int64_t keys, std::vector<float>& to) const {
        std::vector<float> panels = along(y, count);
        Matrix matrix{panels.data(), nullptr, call.size, count};
        product<true>(x, padded, keys, matrix, {to.data(), call.size, nullptr, to.data(), ADD}, 0,
                      panels_of(call.size));
    }
    void weigh(float* scores, int64_t query, int64_t keys) const {
        softmax(scores, seen(query + 1), end(keys), scale());
    }
    float scale() const { return 1.0f / std::sqrt((float)call.size); }

    void forward() const {
        std::vector<float> q = rows(call.q, call.stride), keys = across(rows(call.k, call.stride));
        std::vector<float> values = along(rows(call.v, call.stride).data(), length);
        std::vector<float> weights(ROWS * padded), out(ROWS * call.size);
        for (int64_t first = 0; first < length; first += ROWS) {
            int64_t count = std::min<int64_t>(ROWS, length - first), reach = seen(first + count);
            score(q.data() + first * call.size, count, keys, reach, weights.data());
            for (int64_t r = 0; r < count; r++) {
                float* row = weights.data() + r * padded;
                weigh(row, first + r, reach);
                if (call.dropout == 0) continue;
                uint64_t drawn = mask.of(first + r);
                for (int64_t j = 0; j < end(reach); j += LANES)
                    store(row + j, mask.keep(load(row + j), drawn, j));
            }
            gather(weights.data(), count, values, reach, out.data());
            put(out.data(), call.out, call.heads * call.size, first, count);
        }
    }

    // weights P → P M; of_dropped, the gradient of P M → that of the scores
    void differentiate(float* weights, float* of_dropped, int64_t query, int64_t keys) const {
        uint64_t drawn = mask.of(query);
        vec total = vec{};
        for (int64_t j = 0; j < end(keys); j += LANES) total += load(weights + j) * masked(of_dropped + j, drawn, j);
        float mean = sum(total);
        for (int64_t j = 0; j < end(keys); j += LANES) {
            vec p = load(weights + j);
            store(weights + j, masked(weights + j, drawn, j));
            store(of_dropped + j, p * (load(of_dropped + j) - mean) * scale());
        }
    }
    // what stays of LANES numbers, over the share; written back
    vec masked(float* at, uint64_t drawn, int64_t j) const {
        vec x = load(at);
        if (call.dropout != 0) store(at, x = mask.keep(x, drawn, j));
        return x;
    }

    void backward() const {
        int64_t size = call.size;
        std::vector<float> q = rows(call.q, call.stride), k = rows(call.k, call.stride);
        std::vector<float> of_out = rows(call.of_out, call.heads * size);
        std::vector<float> keys = across(k), values = across(rows(call.v, call.stride)), back = along(k.data(), length);
        std::vector<float> weights(QUERIES * padded), of_scores(QUERIES * padded), of_q(QUERIES * size);
        std::vector<float> of_k(length * size), of_v(length * size);
        for (int64_t first = 0; first < length; first += QUERIES) {
            int64_t count = std::min(QUERIES, length - first), reach = seen(first + count);
            const float *asked = q.data() + first * size, *wanted = of_out.data() + first * size;
            score(asked, count, keys, reach, weights.data());
            score(wanted, count, values, reach, of_scores.data());
            for (int64_t r = 0; r < count; r++) {
                weigh(weights.data() + r * padded, first + r, reach);
                differentiate(weights.data() + r * padded, of_scores.data() + r * padded, first + r, reach);
            }
            scatter(weights.data(), count, wanted, reach, of_v);
            scatter(of_scores.data(), count, asked, reach, of_k);
            gather(of_scores.data(), count, back, reach, of_q.data());
            put(of_q.data(), call.of_q, call.of_stride, first, count);
        }
        put(of_k.data(), call.of_k, call.of_stride, 0, length);
        put(of_v.data(), call.of_v, call.of_stride, 0, length);
    }
};

// Whether there was memory enough.
template <typename T>
bool every_unit(const Attention& call, void (Unit<T>::*work)() const) {
    std::vector<int64_t> starts(call.sequences + 1);
    for (int64_t n = 0; n < call.sequences; n++) starts[n + 1] = starts[n] + call.lengths[n];
    std::atomic<bool> enough{true};
    // torch's own threads, as both are OpenMP's
#pragma omp parallel for schedule(dynamic) num_threads(call.threads)
    for (int64_t number = 0; number < call.sequences * call.heads; number++) {
        int64_t n = number / call.heads;
        try {  // an exception must not leave the threads
            (Unit<T>(call, starts[n], call.lengths[n], number % call.heads, number).*work)();
        } catch (const std::bad_alloc&) {
            enough = false;
        }
    }
    return enough;
}

}  // namespace

extern "C" {

// Both: 1, or 0 where memory ran out.
int64_t bothways_attend(const Attention* call) {
    return call->half ? every_unit<Bfloat16>(*call, &Unit<Bfloat16>::forward)
                      : every_unit<float>(*call, &Unit<float>::forward);
}

int64_t bothways_attend_backward(const Attention* call) {
    return call->half ? every_unit<Bfloat16>(*call, &Unit<Bfloat16>::backward)
                      : every_unit<float>(*call, &Unit<float>::backward);
}
}
