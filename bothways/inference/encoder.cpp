// The encoder's layers in float32 for a CPU: what `model/encoder.py` computes for a packed batch, in one call.
//
// Everything is one matrix product, `product`: a matrix is kept in panels of PANEL columns, and a tile of ROWS x PANEL
// results stays in registers while it runs down the panel. Attention is two such products for each sequence and head,
// with keys and values put into panels first. The sum of a row's products runs in the same order whatever rows are
// beside it, so a text's result does not depend on its company, to the last bit.
//
// Written with the vector types of GCC and Clang, so that one source serves AVX2, AVX-512 and NEON.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 12;
#elif defined(__AVX2__)
constexpr int LANES = 8, ROWS = 6;
#else
constexpr int LANES = 4, ROWS = 8;
#endif
constexpr int PANEL = 2 * LANES;
constexpr int64_t BLOCK_BYTES = 192 << 10;  // of rows that stay in the second-level cache while panels go by
constexpr int64_t BLOCK_ROWS = 96;          // of a layer's second half, whose intermediate states stay there too

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));

static inline vec load(const float* from) { vec v; memcpy(&v, from, sizeof v); return v; }
static inline void store(float* to, vec v) { memcpy(to, &v, sizeof v); }
static inline vec splat(float x) { return vec{} + x; }
static inline vec larger(vec a, vec b) { return a > b ? a : b; }
static inline float sum(vec v) {
    float lane[LANES];
    store(lane, v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}
static inline float largest(vec v) {
    float lane[LANES];
    store(lane, v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] = std::max(lane[i], lane[i + half]);
    return lane[0];
}

// e^x by 2^n times a polynomial of degree 6 on the rest; the rounding constant is 1.5 * 2^23.
static inline vec exponential(vec x) {
    x = larger(x, splat(-87.0f));
    vec n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ivec power = (__builtin_convertvector(n, ivec) + 127) << 23;
    return p * (vec)power;
}

// x/2 (1 + erf(x/sqrt 2)), with erf to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26).
static inline vec gelu(vec x) {
    vec z = larger(x, -x) * 0.70710678f;
    vec t = 1.0f / (z * 0.3275911f + 1.0f);
    vec p = ((((t * 1.061405429f - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
    vec erf = 1.0f - p * exponential(-z * z);
    return x * 0.5f * (1.0f + (x < 0 ? -erf : erf));
}

enum After { NOTHING, GELU, ADD };

struct Output { float* to; int64_t stride; const float* bias; const float* added; After after; };

// M x PANEL results, of which the first `columns` are written.
template <int M>
static void tile(const float* a, int64_t stride, const float* panel, int64_t depth, int64_t column, int columns,
                 const Output& out) {
    vec left[M], right[M];  // loops over these are unrolled, or they would not be registers
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) left[m] = right[m] = vec{};
    for (int64_t k = 0; k < depth; k++, panel += PANEL) {
        __builtin_prefetch(panel + PANEL * depth, 0, 2);  // the next panel, which comes from memory
        vec b = load(panel), c = load(panel + LANES);
#pragma GCC unroll 16
        for (int m = 0; m < M; m++) {
            float x = a[m * stride + k];
            left[m] += x * b;
            right[m] += x * c;
        }
    }
    vec sums[M][2];
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) sums[m][0] = left[m], sums[m][1] = right[m];
    vec bias[2] = {vec{}, vec{}};
    if (out.bias) memcpy(bias, out.bias + column, 4 * columns);
    for (int m = 0; m < M; m++) {
        vec pair[2] = {sums[m][0] + bias[0], sums[m][1] + bias[1]};
        float* to = out.to + m * out.stride + column;
        if (out.after == GELU) { pair[0] = gelu(pair[0]); pair[1] = gelu(pair[1]); }
        if (out.after == ADD) {
            vec more[2] = {vec{}, vec{}};
            memcpy(more, out.added + m * out.stride + column, 4 * columns);
            pair[0] += more[0];
            pair[1] += more[1];
        }
        if (columns == PANEL) { store(to, pair[0]); store(to + LANES, pair[1]); }
        else memcpy(to, pair, 4 * columns);
    }
}

template <int M>
static void tiles(int rows, const float* a, int64_t stride, const float* panel, int64_t depth, int64_t column,
                  int columns, const Output& out) {
    if (rows == M) tile<M>(a, stride, panel, depth, column, columns, out);
    else if constexpr (M > 1) tiles<M - 1>(rows, a, stride, panel, depth, column, columns, out);
}

struct Matrix { const float* panels; const float* bias; int64_t columns, depth; };

static int64_t panels_of(int64_t columns) { return (columns + PANEL - 1) / PANEL; }

// rows x columns = a (rows x depth) times the matrix, of which the panels `first` to `last` are done.
static void product(const float* a, int64_t stride, int64_t rows, const Matrix& w, Output out, int64_t first,
                    int64_t last) {
    int64_t block = std::max<int64_t>(ROWS, BLOCK_BYTES / (4 * w.depth) / ROWS * ROWS);
    out.bias = w.bias;
    for (int64_t top = 0; top < rows; top += block)
        for (int64_t p = first; p < last; p++) {
            int64_t column = p * PANEL, end = std::min(rows, top + block);
            int columns = (int)std::min<int64_t>(PANEL, w.columns - column);
            for (int64_t m = top; m < end; m += ROWS) {
                Output here = out;
                here.to += m * out.stride;
                if (out.added) here.added += m * out.stride;
                tiles<ROWS>((int)std::min<int64_t>(ROWS, end - m), a + m * stride, stride,
                            w.panels + p * PANEL * w.depth, w.depth, column, columns, here);
            }
        }
}

static void layer_norm(float* row, int64_t width, const float* weight, const float* bias, float epsilon) {
    float total = 0, squares = 0;
    int64_t whole = width / PANEL * PANEL;
    vec a = vec{}, b = vec{};
    for (int64_t i = 0; i < whole; i += PANEL) { a += load(row + i); b += load(row + i + LANES); }
    for (int64_t i = whole; i < width; i++) total += row[i];
    float mean = (total + sum(a + b)) / width;
    a = b = vec{};
    for (int64_t i = 0; i < whole; i += PANEL) {
        vec c = load(row + i) - mean, d = load(row + i + LANES) - mean;
        a += c * c;
        b += d * d;
    }
    for (int64_t i = whole; i < width; i++) squares += (row[i] - mean) * (row[i] - mean);
    float scale = 1.0f / std::sqrt((squares + sum(a + b)) / width + epsilon);
    for (int64_t i = 0; i < width; i++) row[i] = (row[i] - mean) * scale * weight[i] + bias[i];
}

// Softmax of the first `length` scores; those behind, up to `padded`, become 0.
static void softmax(float* row, int64_t length, int64_t padded, float scale) {
    int64_t end = (length + LANES - 1) / LANES * LANES;
    for (int64_t i = length; i < padded; i++) row[i] = -INFINITY;
    vec most = load(row), sums = vec{};
    for (int64_t i = LANES; i < end; i += LANES) most = larger(most, load(row + i));
    float top = largest(most);
    for (int64_t i = 0; i < end; i += LANES) {
        vec e = exponential((load(row + i) - top) * scale);
        store(row + i, e);
        sums += e;  // what is behind `length` adds e^-87
    }
    for (int64_t i = length; i < padded; i++) row[i] = 0;
    float share = 1.0f / sum(sums);
    for (int64_t i = 0; i < end; i += LANES) store(row + i, load(row + i) * share);
}

struct Scratch { std::vector<float> keys, values, scores; };

// One head of one sequence: qkv of its first token → attended, rows of `width` numbers.
static void attend(const float* qkv, float* attended, int64_t length, int64_t width, int64_t head, int64_t size,
                   bool causal, Scratch& scratch) {
    int64_t stride = 3 * width, padded = panels_of(length) * PANEL;
    const float *q = qkv + head * size, *k = q + width, *v = q + 2 * width;
    scratch.keys.assign(padded * size, 0);
    scratch.values.assign(panels_of(size) * PANEL * padded, 0);
    scratch.scores.resize(ROWS * padded);
    for (int64_t n = 0; n < length; n++) {
        float* panel = scratch.keys.data() + n / PANEL * PANEL * size + n % PANEL;
        for (int64_t d = 0; d < size; d++) panel[d * PANEL] = k[n * stride + d];
        for (int64_t d = 0; d < size; d += PANEL)
            memcpy(scratch.values.data() + d * padded + n * PANEL, v + n * stride + d,
                   4 * std::min<int64_t>(PANEL, size - d));
    }
    Matrix keys{scratch.keys.data(), nullptr, padded, size}, values{scratch.values.data(), nullptr, size, padded};
    float* scores = scratch.scores.data();
    for (int64_t m = 0; m < length; m += ROWS) {
        int64_t rows = std::min<int64_t>(ROWS, length - m);
        product(q + m * stride, stride, rows, keys, {scores, padded, nullptr, nullptr, NOTHING}, 0, padded / PANEL);
        for (int64_t r = 0; r < rows; r++)
            softmax(scores + r * padded, causal ? m + r + 1 : length, padded, 1.0f / std::sqrt((float)size));
        product(scores, padded, rows, values, {attended + m * width + head * size, width, nullptr, nullptr, NOTHING},
                0, panels_of(size));
    }
}

// Threads that wait for each other; they are few and the wait is short, so they spin before they yield.
struct Team {
    const int number;
    std::atomic<int> arrived{0}, turn{0};
    explicit Team(int number) : number(number) {}
    void wait() {
        if (number == 1) return;
        int before = turn.load();
        if (arrived.fetch_add(1) + 1 == number) { arrived.store(0); turn.store(before + 1); return; }
        for (int spins = 0; turn.load(std::memory_order_acquire) == before; spins++)
            if (spins > 4000) std::this_thread::yield();
    }
};

extern "C" {

// As `compiled.py` fills it: panels from `bothways_pack`, and vectors.
struct Layer {
    const float *qkv, *qkv_bias, *output, *output_bias, *norm, *norm_bias;
    const float *up, *up_bias, *down, *down_bias, *last_norm, *last_norm_bias;
};

// Tables of tokens, segments and positions, and the norm behind their sum.
struct Tables { const float *token, *type, *position, *norm, *norm_bias; };

struct Call {
    Tables tables;
    const int64_t *input_ids, *token_type_ids, *position_ids;
    const Layer* layers;
    int64_t num_layers, width, heads, intermediate, causal;
    double epsilon;
    const int64_t* lengths;
    int64_t sequences, tokens, threads;
    float* hidden;         // [tokens, width]
    const int64_t* rows;   // which tokens the last layer finishes
    int64_t num_rows;      // how many; -1 for all of them
    float *qkv, *attended, *inner;  // 3 width, width, intermediate; of as many rows as tokens, or num_rows if more
    float* out;            // [num_rows, width], or [tokens, width]
};

int64_t bothways_panel() { return PANEL; }

// What this was compiled from: a library of another version must not be called.
int64_t bothways_source() { return BOTHWAYS_SOURCE; }

// A matrix [columns, depth] into panels; `panels` has room for whole ones.
void bothways_pack(const float* weight, int64_t columns, int64_t depth, float* panels) {
    for (int64_t p = 0; p < panels_of(columns); p++)
        for (int64_t k = 0; k < depth; k++)
            for (int64_t n = 0; n < PANEL; n++) {
                int64_t column = p * PANEL + n;
                *panels++ = column < columns ? weight[column * depth + k] : 0;
            }
}

static void part(int64_t whole, int id, int number, int64_t& first, int64_t& last) {
    first = whole * id / number;
    last = whole * (id + 1) / number;
}

// What follows attention, for `rows` rows: the layer's output is left in `hidden`.
static void finish(const Call& c, const Layer& l, float* hidden, float* attended, float* inner, int64_t rows, int id,
                   Team& team) {
    Matrix output{l.output, l.output_bias, c.width, c.width}, up{l.up, l.up_bias, c.intermediate, c.width},
        down{l.down, l.down_bias, c.width, c.intermediate};
    int64_t first, last, top, end;
    part(rows, id, team.number, top, end);
    part(panels_of(c.width), id, team.number, first, last);
    product(attended, c.width, rows, output, {hidden, c.width, nullptr, hidden, ADD}, first, last);
    team.wait();
    for (int64_t m = top; m < end; m++)
        layer_norm(hidden + m * c.width, c.width, l.norm, l.norm_bias, (float)c.epsilon);
    team.wait();
    int64_t first_up, last_up;
    part(panels_of(c.intermediate), id, team.number, first_up, last_up);
    product(hidden, c.width, rows, up, {inner, c.intermediate, nullptr, nullptr, GELU}, first_up, last_up);
    team.wait();
    product(inner, c.intermediate, rows, down, {hidden, c.width, nullptr, hidden, ADD}, first, last);
    team.wait();
    for (int64_t m = top; m < end; m++)
        layer_norm(hidden + m * c.width, c.width, l.last_norm, l.last_norm_bias, (float)c.epsilon);
    team.wait();
}

static void embed(const Call& c, int id, Team& team) {
    int64_t first, last;
    part(c.tokens, id, team.number, first, last);
    for (int64_t t = first; t < last; t++) {
        const float* token = c.tables.token + c.input_ids[t] * c.width;
        const float* type = c.tables.type + c.token_type_ids[t] * c.width;
        const float* position = c.tables.position + c.position_ids[t] * c.width;
        float* row = c.hidden + t * c.width;
        for (int64_t i = 0; i < c.width; i++) row[i] = token[i] + type[i] + position[i];
        layer_norm(row, c.width, c.tables.norm, c.tables.norm_bias, (float)c.epsilon);
    }
    team.wait();
}

static void work(const Call& c, int id, Team& team) {
    Scratch scratch;
    int64_t first, last, size = c.width / c.heads;
    embed(c, id, team);
    for (int64_t n = 0; n < c.num_layers; n++) {
        const Layer& l = c.layers[n];
        Matrix qkv{l.qkv, l.qkv_bias, 3 * c.width, c.width};
        part(panels_of(qkv.columns), id, team.number, first, last);
        product(c.hidden, c.width, c.tokens, qkv, {c.qkv, qkv.columns, nullptr, nullptr, NOTHING}, first, last);
        team.wait();
        for (int64_t s = 0, start = 0, unit = 0; s < c.sequences; start += c.lengths[s++])
            for (int64_t h = 0; h < c.heads; h++, unit++)
                if (unit % team.number == id)
                    attend(c.qkv + start * 3 * c.width, c.attended + start * c.width, c.lengths[s], c.width, h, size,
                           c.causal != 0, scratch);
        team.wait();
        float *hidden = c.hidden, *attended = c.attended;
        int64_t rows = c.tokens;
        if (n + 1 == c.num_layers && c.num_rows >= 0) {
            hidden = c.out, attended = c.qkv, rows = c.num_rows;
            for (int64_t r = 0; id == 0 && r < rows; r++) {
                memcpy(hidden + r * c.width, c.hidden + c.rows[r] * c.width, 4 * c.width);
                memcpy(attended + r * c.width, c.attended + c.rows[r] * c.width, 4 * c.width);
            }
            team.wait();
        }
        int64_t block = team.number == 1 ? BLOCK_ROWS : std::max<int64_t>(rows, 1);
        for (int64_t m = 0; m < rows; m += block)
            finish(c, l, hidden + m * c.width, attended + m * c.width, c.inner, std::min(block, rows - m), id, team);
    }
}

void bothways_encode(const Call* call) {
    Team team((int)call->threads);
    std::vector<std::thread> threads;
    for (int id = 1; id < team.number; id++) threads.emplace_back([&, id] { work(*call, id, team); });
    work(*call, 0, team);
    for (auto& thread : threads) thread.join();
    if (call->num_rows < 0) memcpy(call->out, call->hidden, 4 * call->tokens * call->width);
}
}
