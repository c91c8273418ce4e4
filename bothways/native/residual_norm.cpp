// What follows a product in BERT's layer, for training on a CPU: out = norm(residual + M ∘ (x + bias)), with the norm
// of functions.h. M is the dropout mask: 0, or 1 / (1 - dropout); it is that of dropout.cpp for the same seed.
//
// The backward pass has x and the residual at hand, and computes the rest again from them and each row's moments.

#include "training.h"

// Mirrored by `ResidualNormCall` of bothways/model/kernels/fused.py. Tensors of rows are [rows, width].
struct ResidualNormCall {
    const void *x, *residual, *dout;
    void *out, *dx,
        *dresidual;  // where x is of the residual's type and nothing is dropped, dx may be null: it is dresidual
    const float *bias, *weight, *norm_bias;  // [width], and so are the next
    float* sums;  // [3, width]: the gradients of bias, weight and norm_bias
    RowMoments* moments;  // [rows]
    int64_t rows, width;
    int64_t x_is_bfloat16, is_bfloat16;  // x and dx; residual, dresidual, out and dout. Else float32
    int64_t threads;
    uint64_t seed;
    double epsilon, dropout;
};

namespace {

template <typename X, typename T>
struct Rows {
    const ResidualNormCall& call;
    const DropoutMask mask;

    explicit Rows(const ResidualNormCall& call) : call(call), mask(call.seed, 0, call.dropout) {}

    // LANES numbers of a row, dropped as dropout.cpp drops them.
    vec drop(vec x, int64_t row, int64_t column) const {
        if (call.dropout == 0) return x;
        const int64_t number = row * call.width + column;
        return mask.apply(x, mask.row_key(number / ROW_NUMBERS), number % ROW_NUMBERS);
    }

    // residual + M ∘ (x + bias) of one row, as float32.
    void add(int64_t row, float* sum) const {
        const X* x = (const X*)call.x + row * call.width;
        const T* residual = (const T*)call.residual + row * call.width;
        for (int64_t i = 0; i < call.width; i += LANES) {
            const vec dropped = drop(load_as_float(x + i) + load(call.bias + i), row, i);
            store(sum + i, load_as_float(residual + i) + dropped);
        }
    }

    int64_t forward() const {
        return over_row_blocks(call.rows, 0, nullptr, call.threads, [&](int64_t first, int64_t last, float*) {
            std::vector<float> sum(call.width);
            for (int64_t n = first; n < last; n++) {
                T* out = (T*)call.out + n * call.width;
                add(n, sum.data());
                call.moments[n] =
                    layer_norm(sum.data(), call.width, {call.weight, call.norm_bias, (float)call.epsilon});
                for (int64_t i = 0; i < call.width; i += LANES) store_float(out + i, load(sum.data() + i));
            }
        });
    }

    int64_t backward() const {
        auto run = [&](int64_t first, int64_t last, float* sums) {
            std::vector<float> normed(call.width);
            for (int64_t n = first; n < last; n++) backward_row(n, normed.data(), sums);
        };
        return over_row_blocks(call.rows, 3 * call.width, call.sums, call.threads, run);
    }

    // normed: [width], room for this row's.
    void backward_row(int64_t row, float* normed, float* sums) const {
        const int64_t width = call.width;
        float *dbias = sums, *dweight = sums + width, *dnorm_bias = sums + 2 * width;
        const T* dout = (const T*)call.dout + row * width;
        T* dresidual = (T*)call.dresidual + row * width;
        X* dx = call.dx ? (X*)call.dx + row * width : nullptr;
        const auto [mean, scale] = call.moments[row];
        // x̂, the norm's gradients, and the sums of g = weight ∘ dout and of g ∘ x̂
        add(row, normed);
        vec sum = vec{}, product = vec{};
        for (int64_t i = 0; i < width; i += LANES) {
            const vec d = load_as_float(dout + i), hat = (load(normed + i) - mean) * scale;
            store(normed + i, hat);
            add_to(dweight + i, d * hat);
            add_to(dnorm_bias + i, d);
            const vec g = d * load(call.weight + i);
            sum += g;
            product += g * hat;
        }
        const float mean_g = reduce_sum(sum) / width, mean_product = reduce_sum(product) / width;
        // of the sum: scale (g − mean(g) − x̂ mean(g ∘ x̂)); of x: the same where it was not dropped
        for (int64_t i = 0; i < width; i += LANES) {
            const vec g = load_as_float(dout + i) * load(call.weight + i);
            const vec d = (g - mean_g - load(normed + i) * mean_product) * scale;
            store_float(dresidual + i, d);
            const vec dropped = drop(d, row, i);
            if (dx) store_float(dx + i, dropped);
            add_to(dbias + i, dropped);
        }
    }
};

}  // namespace

extern "C" {

// 1, or 0 where memory ran out; and so does the other. x may be bfloat16 where the residual is float32, not the
// reverse.
int64_t bothways_residual_norm(const ResidualNormCall* call) {
    if (call->is_bfloat16) return Rows<Bfloat16, Bfloat16>(*call).forward();
    return call->x_is_bfloat16 ? Rows<Bfloat16, float>(*call).forward() : Rows<float, float>(*call).forward();
}

int64_t bothways_residual_norm_backward(const ResidualNormCall* call) {
    if (call->is_bfloat16) return Rows<Bfloat16, Bfloat16>(*call).backward();
    return call->x_is_bfloat16 ? Rows<Bfloat16, float>(*call).backward() : Rows<float, float>(*call).backward();
}

// What a mirror of the structure must have, too.
int64_t bothways_sizeof_ResidualNormCall() { return sizeof(ResidualNormCall); }
}
