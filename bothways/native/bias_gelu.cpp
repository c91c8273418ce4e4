// GELU of a matrix product and its bias, for training on a CPU: out = gelu(x + bias).

#include "training.h"

// Mirrored by `BiasGeluCall` of bothways/model/kernels/fused.py. Tensors of rows are [rows, width].
struct BiasGeluCall {
    const void *x, *dout;
    void *out, *dx;
    const float* bias;  // [width], and so is the next
    float* dbias;
    int64_t rows, width;
    int64_t is_bfloat16;  // of tensors of rows, else float32
    int64_t threads;
};

namespace {

template <typename T>
int64_t forward(const BiasGeluCall& call) {
    return over_row_blocks(call.rows, 0, nullptr, call.threads, [&](int64_t first, int64_t last, float*) {
        for (int64_t n = first; n < last; n++) {
            const T* x = (const T*)call.x + n * call.width;
            T* out = (T*)call.out + n * call.width;
            for (int64_t i = 0; i < call.width; i += LANES)
                store_float(out + i, gelu(load_as_float(x + i) + load(call.bias + i)));
        }
    });
}

template <typename T>
void backward_row(const BiasGeluCall& call, int64_t row, float* dbias) {
    const T *x = (const T*)call.x + row * call.width, *dout = (const T*)call.dout + row * call.width;
    T* dx = (T*)call.dx + row * call.width;
    for (int64_t i = 0; i < call.width; i += LANES) {
        const vec d = load_as_float(dout + i) * gelu_slope(load_as_float(x + i) + load(call.bias + i));
        store_float(dx + i, d);
        add_to(dbias + i, d);
    }
}

template <typename T>
int64_t backward(const BiasGeluCall& call) {
    auto run = [&](int64_t first, int64_t last, float* dbias) {
        for (int64_t n = first; n < last; n++) backward_row<T>(call, n, dbias);
    };
    return over_row_blocks(call.rows, call.width, call.dbias, call.threads, run);
}

}  // namespace

extern "C" {

// 1, or 0 where memory ran out; and so do the others.
int64_t bothways_bias_gelu(const BiasGeluCall* call) {
    return call->is_bfloat16 ? forward<Bfloat16>(*call) : forward<float>(*call);
}

int64_t bothways_bias_gelu_backward(const BiasGeluCall* call) {
    return call->is_bfloat16 ? backward<Bfloat16>(*call) : backward<float>(*call);
}

// What a mirror of the structure must have, too.
int64_t bothways_sizeof_BiasGeluCall() { return sizeof(BiasGeluCall); }
}
