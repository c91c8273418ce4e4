// The encoder's layers in float32 for a CPU: what `model/encoder.py` computes for a packed batch, in one call.
//
// Everything is matrix products. Attention is two for each sequence and head, with keys and values in panels.

#include <atomic>
#include <thread>
#include <vector>

#include "vectors.h"

constexpr int64_t BLOCK_ROWS = 96;  // of a layer's second half: what lies between stays in the second-level cache

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

struct Scratch { std::vector<float> keys, values, scores; };

// One head of one sequence: qkv of its first token → attended, rows of `width` numbers.
static void attend(const float* qkv, float* attended, int64_t length, int64_t width, int64_t head, int64_t size,
                   bool causal, Scratch& scratch) {
    int64_t stride = 3 * width, padded = panels_of(length) * PANEL;
    const float *q = qkv + head * size, *k = q + width, *v = q + 2 * width;
    scratch.keys.resize(padded * size);
    scratch.values.resize(panels_of(size) * PANEL * length);
    scratch.scores.resize(ROWS * padded);
    pack_across(k, stride, length, size, scratch.keys.data());
    pack_along(v, stride, length, size, scratch.values.data());
    Matrix keys{scratch.keys.data(), nullptr, padded, size}, values{scratch.values.data(), nullptr, size, length};
    float* scores = scratch.scores.data();
    for (int64_t m = 0; m < length; m += ROWS) {
        int64_t rows = std::min<int64_t>(ROWS, length - m), seen = causal ? m + rows : length, last = panels_of(seen);
        product(q + m * stride, stride, rows, keys, {scores, padded, nullptr, nullptr, NOTHING}, 0, last);
        for (int64_t r = 0; r < rows; r++)
            softmax(scores + r * padded, causal ? m + r + 1 : length, last * PANEL, 1.0f / std::sqrt((float)size));
        product(scores, padded, rows, values, {attended + m * width + head * size, width, nullptr, nullptr, NOTHING},
                0, panels_of(size), seen);
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
    pack_across(weight, depth, columns, depth, panels);
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
