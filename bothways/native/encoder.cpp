// The layers of an encoder with BERT's layer in float32 for a CPU: what bothways/model/encoder.py computes for a packed
// batch in inference, in one call.
//
// Every thread runs `Worker::run`. A phase is shared out, and a barrier ends it, so that what all threads wrote may be
// read by any:
//
//   phase             | reads             | writes           | split by         | its barrier protects
//   ------------------+-------------------+------------------+------------------+----------------------------------
//   embed             | ids, tables       | hidden           | tokens           | hidden: the next product reads all
//   project           | hidden            | qkv              | panels           | qkv: a head reads all its tokens
//   attend            | qkv               | attended         | sequence, head   | attended: the next product reads all;
//                     |                   |                  |                  | qkv: no longer read, may be overwritten
//   select (*)        | hidden, attended  | out, qkv         | thread 0 alone   | out and qkv: the next product reads all
//   attention output  | attended, hidden  | hidden           | panels           | hidden: a norm reads whole rows
//   attention norm    | hidden            | hidden           | rows             | hidden: the next product reads all
//   intermediate      | hidden            | intermediate     | panels           | intermediate: the next product reads all;
//                     |                   |                  |                  | hidden: no longer read, may be overwritten
//   output            | intermediate,     | hidden           | panels           | hidden: a norm reads whole rows
//                     | hidden            |                  |                  |
//   output norm       | hidden            | hidden           | rows             | hidden: the next layer reads all
//
// (*) In the last layer only, where not all tokens are wanted: it copies the wanted rows of hidden to `out` and those
// of attended to `qkv`, which is free by then. In that layer "hidden" is `out` from there on, and "attended" is `qkv`.
//
// The products that read hidden as a residual add it where they write: each thread its own panels.

#include <atomic>
#include <thread>
#include <vector>

#include "gemm.h"

// Rows that go through a layer's second half at a time where there is one thread, so that their intermediate (of MiniLM
// 96 x 1536 floats, 576 KiB) stays in the second-level cache. No result depends on it. Measured as BLOCK_BYTES was, for
// 48, 96 and 192 rows: a layer of BERT-base with 400 tokens 89, 82 and 89 ms, of MiniLM with 200 tokens 8.2, 8.4 and
// 8.4 ms, which is as near as the measurement.
constexpr int64_t BLOCK_ROWS = 96;

// Turns of the waiting loop before a thread offers its core to others: some microseconds, as long as the slower thread
// of a phase may need. Measured on two cores that were busy with other work, 400, 4000 and 40000 turns: a layer of
// MiniLM with 16 tokens on two threads 0.68, 0.69 and 0.80 ms.
constexpr int SPINS_BEFORE_YIELD = 4000;

// Mirrored, as the next two are, by structures of bothways/inference/compiled.py. Matrices are panels from
// `bothways_pack`.
struct LayerWeights {
    const float *qkv, *qkv_bias, *attention_output, *attention_output_bias, *attention_norm, *attention_norm_bias;
    const float *intermediate, *intermediate_bias, *output, *output_bias, *output_norm, *output_norm_bias;
};

// Rows of hidden_size numbers, and the norm behind their sum. Null: a table that the model does not have; of the
// tokens, that `hidden` holds the embeddings already.
struct EmbeddingTables {
    const float *token, *token_type, *position, *norm, *norm_bias;
};

// Buffers have as many rows as there are tokens, qkv and intermediate num_only if that is more.
struct EncoderCall {
    EmbeddingTables tables;
    const LayerWeights* layers;
    int64_t num_layers, hidden_size, heads, intermediate_size, causal;
    double epsilon;  // of all norms
    const float* bias;  // [heads, 2 * longest - 1], added to the scores by distance; null for none
    int64_t longest;  // tokens of the longest sequence
    const int64_t *input_ids, *token_type_ids, *position_ids;  // [tokens]
    const int64_t* lengths;  // [sequences]
    int64_t sequences, tokens, threads;
    const int64_t* only;  // [num_only] tokens that the last layer finishes
    int64_t num_only;  // -1: all tokens
    float *hidden, *attended;  // [tokens, hidden_size]
    float* qkv;  // [rows, 3 * hidden_size]
    float* intermediate;  // [rows, intermediate_size]
    float* out;  // [num_only or tokens, hidden_size]
};

namespace {

// A point that all threads reach before any goes on. The waits are short, so threads spin before they yield.
class SpinBarrier {
public:
    const int threads;
    explicit SpinBarrier(int threads) : threads(threads) {}

    void wait() {
        if (threads == 1) return;
        int before = passes.load();
        if (arrived.fetch_add(1) + 1 == threads) {
            arrived.store(0);
            passes.store(before + 1);
            return;
        }
        for (int spins = 0; passes.load(std::memory_order_acquire) == before; spins++)
            if (spins > SPINS_BEFORE_YIELD) std::this_thread::yield();
    }

private:
    std::atomic<int> arrived{0}, passes{0};
};

// What a layer's second half works on: `count` rows of hidden and attended.
struct RowBlock {
    float *hidden, *attended;
    int64_t count;
};

struct Worker {
    const EncoderCall& call;
    SpinBarrier& barrier;
    const int id;
    std::vector<float> k_panels{}, v_panels{}, scores{};  // of the head that it attends to

    // This thread's share of `count` things.
    Range share(int64_t count) const { return {count * id / barrier.threads, count * (id + 1) / barrier.threads}; }

    LayerNorm norm(const float* weight, const float* bias) const { return {weight, bias, (float)call.epsilon}; }

    void run() {
        embed();
        for (int64_t n = 0; n < call.num_layers; n++) {
            const LayerWeights& layer = call.layers[n];
            project(layer);
            attend();
            bool selects = n + 1 == call.num_layers && call.num_only >= 0;
            RowBlock rows = selects ? select() : RowBlock{call.hidden, call.attended, call.tokens};
            int64_t block = barrier.threads == 1 ? BLOCK_ROWS : std::max<int64_t>(rows.count, 1), H = call.hidden_size;
            for (int64_t m = 0; m < rows.count; m += block)
                finish(layer, {rows.hidden + m * H, rows.attended + m * H, std::min(block, rows.count - m)});
        }
    }

    void embed() {
        if (!call.tables.token) return;
        const int64_t H = call.hidden_size;
        const Range tokens = share(call.tokens);
        for (int64_t t = tokens.first; t < tokens.last; t++) {
            const float* token = call.tables.token + call.input_ids[t] * H;
            float* row = call.hidden + t * H;
            memcpy(row, token, 4 * H);
            if (call.tables.token_type) add_row(row, call.tables.token_type + call.token_type_ids[t] * H);
            if (call.tables.position) add_row(row, call.tables.position + call.position_ids[t] * H);
            layer_norm(row, H, norm(call.tables.norm, call.tables.norm_bias));
        }
        barrier.wait();  // hidden
    }

    void add_row(float* row, const float* addend) const {
        for (int64_t i = 0; i < call.hidden_size; i++) row[i] += addend[i];
    }

    void project(const LayerWeights& layer) {
        const int64_t H = call.hidden_size;
        gemm({.a = call.hidden,
              .a_stride = H,
              .rows = call.tokens,
              .b = {.panels = layer.qkv, .depth = H, .columns = 3 * H},
              .out = call.qkv,
              .out_stride = 3 * H,
              .bias = layer.qkv_bias,
              .panels = share(panel_count(3 * H))});
        barrier.wait();  // qkv
    }

    void attend() {
        for (int64_t n = 0, first_token = 0, task = 0; n < call.sequences; first_token += call.lengths[n++])
            for (int64_t head = 0; head < call.heads; head++, task++)
                if (task % barrier.threads == id) attend_head(first_token, call.lengths[n], head);
        barrier.wait();  // attended, and qkv for `select`
    }

    // One head of one sequence, TILE_ROWS queries at a time.
    void attend_head(int64_t first_token, int64_t length, int64_t head) {
        const int64_t H = call.hidden_size, head_size = H / call.heads, stride = 3 * H;
        const int64_t padded_length = padded_to_panels(length);
        const float *q = call.qkv + first_token * stride + head * head_size, *k = q + H, *v = q + 2 * H;
        float* attended = call.attended + first_token * H + head * head_size;
        k_panels.resize(padded_length * head_size);
        v_panels.resize(padded_to_panels(head_size) * length);
        scores.resize(TILE_ROWS * padded_length);
        pack_transposed(k, stride, length, head_size, k_panels.data());
        pack(v, stride, length, head_size, v_panels.data());
        for (int64_t m = 0; m < length; m += TILE_ROWS) {
            int64_t rows = std::min<int64_t>(TILE_ROWS, length - m), n_keys = call.causal ? m + rows : length;
            // S = Q Kᵀ
            gemm({.a = q + m * stride,
                  .a_stride = stride,
                  .rows = rows,
                  .b = {.panels = k_panels.data(), .depth = head_size, .columns = padded_length},
                  .out = scores.data(),
                  .out_stride = padded_length,
                  .panels = {0, panel_count(n_keys)}});
            // P = softmax(S / √D + bias), where causal of the keys up to the query
            const float scale = 1.0f / std::sqrt((float)head_size);
            for (int64_t r = 0; r < rows; r++) {
                float* row = scores.data() + r * padded_length;
                if (call.bias) {
                    const float* by_distance = call.bias + head * (2 * call.longest - 1) + call.longest - 1 - (m + r);
                    for (int64_t j = 0; j < n_keys; j++) row[j] += by_distance[j] / scale;
                }
                softmax(row, call.causal ? m + r + 1 : length, padded_to_panels(n_keys), scale);
            }
            // O = P V
            gemm({.a = scores.data(),
                  .a_stride = padded_length,
                  .rows = rows,
                  .b = {.panels = v_panels.data(), .depth = length, .columns = head_size},
                  .out = attended + m * H,
                  .out_stride = H,
                  .depth = n_keys});
        }
    }

    // The rows of `only`: hidden → out, attended → qkv.
    RowBlock select() {
        const int64_t H = call.hidden_size;
        for (int64_t r = 0; id == 0 && r < call.num_only; r++) {
            memcpy(call.out + r * H, call.hidden + call.only[r] * H, 4 * H);
            memcpy(call.qkv + r * H, call.attended + call.only[r] * H, 4 * H);
        }
        barrier.wait();  // out, qkv
        return {call.out, call.qkv, call.num_only};
    }

    // What follows attention; the layer's output is left in rows.hidden.
    void finish(const LayerWeights& layer, const RowBlock& rows) {
        const int64_t H = call.hidden_size, I = call.intermediate_size;
        const Range hidden_panels = share(panel_count(H));
        gemm({.a = rows.attended,
              .a_stride = H,
              .rows = rows.count,
              .b = {.panels = layer.attention_output, .depth = H, .columns = H},
              .out = rows.hidden,
              .out_stride = H,
              .bias = layer.attention_output_bias,
              .epilogue = Epilogue::ADD,
              .addend = rows.hidden,
              .panels = hidden_panels});
        barrier.wait();  // hidden
        normalise(rows, norm(layer.attention_norm, layer.attention_norm_bias));
        gemm({.a = rows.hidden,
              .a_stride = H,
              .rows = rows.count,
              .b = {.panels = layer.intermediate, .depth = H, .columns = I},
              .out = call.intermediate,
              .out_stride = I,
              .bias = layer.intermediate_bias,
              .epilogue = Epilogue::GELU,
              .panels = share(panel_count(I))});
        barrier.wait();  // intermediate, and hidden, which the next product overwrites
        gemm({.a = call.intermediate,
              .a_stride = I,
              .rows = rows.count,
              .b = {.panels = layer.output, .depth = I, .columns = H},
              .out = rows.hidden,
              .out_stride = H,
              .bias = layer.output_bias,
              .epilogue = Epilogue::ADD,
              .addend = rows.hidden,
              .panels = hidden_panels});
        barrier.wait();  // hidden
        normalise(rows, norm(layer.output_norm, layer.output_norm_bias));
    }

    void normalise(const RowBlock& rows, const LayerNorm& norm) {
        const Range mine = share(rows.count);
        for (int64_t m = mine.first; m < mine.last; m++)
            layer_norm(rows.hidden + m * call.hidden_size, call.hidden_size, norm);
        barrier.wait();  // hidden
    }
};

}  // namespace

extern "C" {

void bothways_encode(const EncoderCall* call) {
    SpinBarrier barrier((int)call->threads);
    std::vector<std::thread> threads;
    for (int id = 1; id < barrier.threads; id++) threads.emplace_back([&, id] { Worker{*call, barrier, id}.run(); });
    Worker{*call, barrier, 0}.run();
    for (auto& thread : threads) thread.join();
    if (call->num_only < 0) memcpy(call->out, call->hidden, 4 * call->tokens * call->hidden_size);
}

// Columns of a panel: a packed matrix has room for whole ones.
int64_t bothways_panel() { return PANEL; }

// Packs a layer's weight [columns, depth], to be multiplied as its transpose.
void bothways_pack(const float* weight, int64_t columns, int64_t depth, float* panels) {
    pack_transposed(weight, depth, columns, depth, panels);
}

// The CRC-32 of the sources and flags that this was compiled from.
int64_t bothways_fingerprint() { return BOTHWAYS_FINGERPRINT; }

// What the mirrors of the structures must have, too.
int64_t bothways_sizeof_LayerWeights() { return sizeof(LayerWeights); }
int64_t bothways_sizeof_EmbeddingTables() { return sizeof(EmbeddingTables); }
int64_t bothways_sizeof_EncoderCall() { return sizeof(EncoderCall); }
}
