// What the headers define, as functions that the tests can call.

#include "functions.h"
#include "random.h"

extern "C" {

// count: a multiple of LANES.
void probe_exponential(const float* x, float* out, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) store(out + i, exponential(load(x + i)));
}

void probe_gelu(const float* x, float* out, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) store(out + i, gelu(load(x + i)));
}

void probe_softmax(float* row, int64_t length, int64_t padded, double scale) {
    softmax(row, length, padded, (float)scale);
}

void probe_layer_norm(float* row, int64_t width, const float* weight, const float* bias, double epsilon) {
    layer_norm(row, width, {weight, bias, (float)epsilon});
}

uint64_t probe_splitmix64(uint64_t x) { return splitmix64(x); }

// The key of a row of a mask.
uint64_t probe_row_key(uint64_t seed, uint64_t tensor, int64_t row) {
    return DropoutMask(seed, tensor, 0.5).row_key(row);
}
}
