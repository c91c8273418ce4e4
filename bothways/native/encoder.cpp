// The layers of an encoder with BERT's layer for a CPU, in a format of formats.h: what bothways/model/encoder.py
// computes for a packed batch in inference, in one call.
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
//   narrow (**)       | attended          | words            | rows             | words: the next product reads all
//   attention output  | attended, hidden  | hidden           | panels           | hidden: a norm reads whole rows
//   attention norm    | hidden            | hidden           | rows             | hidden: the next product reads all
//   intermediate      | hidden            | intermediate     | panels           | intermediate: the next product reads all;
//                     |                   |                  |                  | hidden: no longer read, may be overwritten
//   narrow (**)       | intermediate      | words            | rows             | words: the next product reads all
//   output            | intermediate,     | hidden           | panels           | hidden: a norm reads whole rows
//                     | hidden            |                  |                  |
//   output norm       | hidden            | hidden           | rows             | hidden: the next layer reads all
//
// (*) In the last layer only, where not all tokens are wanted: it copies the wanted rows of hidden to `out` and those
// of attended to `qkv`, which is free by then. In that layer "hidden" is `out` from there on, and "attended" is `qkv`.
//
// (**) In narrow formats a product reads rows as words. Of hidden, `embed` and the norms write them beside the numbers.
// Attention, norms and residual sums are in float32 in all formats.
//
// The products that read hidden as a residual add it where they write: each thread its own panels.

#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_num_threads() { return 1; }
static int omp_get_thread_num() { return 0; }
#endif

#include <atomic>
#include <optional>
#include <thread>

#include "gemm.h"
#include "packing.h"

// Rows that go through a layer's second half at a time where there is one thread, so that their intermediate (of MiniLM
// 96 x 1536 floats, 576 KiB) stays in the second-level cache. No result depends on it. Measured as BLOCK_BYTES was, for
// 48, 96 and 192 rows: a layer of BERT-base with 400 tokens 89, 82 and 89 ms, of MiniLM with 200 tokens 8.2, 8.4 and
// 8.4 ms, which is as near as the measurement.
constexpr int64_t BLOCK_ROWS = 96;

// Turns of the waiting loop before a thread offers its core to others: some microseconds, as long as the slower thread
// of a phase may need. Measured on two cores that were busy with other work, 400, 4000 and 40000 turns: a layer of
// MiniLM with 16 tokens on two threads 0.68, 0.69 and 0.80 ms.
constexpr int SPINS_BEFORE_YIELD = 4000;

// Mirrored, as the next three are, by structures of bothways/inference/compiled.py.
struct Norm {
    const float *weight, *bias;
};

struct LayerWeights {
    Matrix qkv, attention_output, intermediate, output;
    Norm attention_norm, output_norm;
};

// Rows of hidden_size numbers, and the norm behind their sum. Null: a table that the model does not have; of the
// tokens, that `hidden` holds the embeddings already.
struct EmbeddingTables {
    const float *token, *token_type, *position;
    Norm norm;
};

// Buffers have as many rows as there are tokens; where `rows` stands, num_only if that is more.
struct EncoderCall {
    EmbeddingTables tables;
    const LayerWeights* layers;
    int64_t format;  // a FormatNumber
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
    // of narrow formats, null in float32; rows are of `bothways_words` words
    void *hidden_words, *words;  // [rows, hidden_size] and [rows, the wider of hidden_size and intermediate_size]
    float *hidden_factors, *factors;  // [rows]
    float* scratch;  // [threads, bothways_scratch]
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

// What attention of one head takes: K and V as panels, and the scores of a tile of queries.
struct Scratch {
    int64_t k_panels, v_panels, scores;
    Scratch(int64_t longest, int64_t head_size)
        : k_panels(padded_to_panels(longest) * head_size),
          v_panels(padded_to_panels(head_size) * longest),
          scores(TILE_ROWS * padded_to_panels(longest)) {}
    int64_t count() const { return k_panels + v_panels + scores; }
};

// Rows as a product takes them: words, and in a scaled format the factor of each row.
template <class Format>
struct Operand {
    typename Format::Word* words;
    float* factors;
    int64_t stride;  // words from one row to the next

    Operand from(int64_t row) const { return {words + row * stride, factors + row, stride}; }

    void narrow(const float* row, int64_t depth, int64_t index) const {
        const float factor = Format::narrow(row, depth, words + index * stride);
        if constexpr (Format::SCALED) factors[index] = factor;
    }
};

// What a layer's second half works on: `count` rows of hidden and attended.
template <class Format>
struct RowBlock {
    float *hidden, *attended;
    Operand<Format> hidden_words;
    int64_t count;
};

template <class Format>
struct Worker {
    using Word = typename Format::Word;
    const EncoderCall& call;
    SpinBarrier& barrier;
    const int id;

    // This thread's share of `count` things.
    Range share(int64_t count) const { return {count * id / barrier.threads, count * (id + 1) / barrier.threads}; }

    void run() {
        const int64_t H = call.hidden_size;
        embed();
        for (int64_t n = 0; n < call.num_layers; n++) {
            const LayerWeights& layer = call.layers[n];
            const bool selects = n + 1 == call.num_layers && call.num_only >= 0;
            project(layer);
            attend();
            const RowBlock<Format> rows =
                selects ? select() : RowBlock<Format>{call.hidden, call.attended, hidden_operand(), call.tokens};
            const int64_t block = barrier.threads == 1 ? BLOCK_ROWS : std::max<int64_t>(rows.count, 1);
            for (int64_t m = 0; m < rows.count; m += block)
                finish(layer, {.hidden = rows.hidden + m * H,
                               .attended = rows.attended + m * H,
                               .hidden_words = rows.hidden_words.from(m),
                               .count = std::min(block, rows.count - m)});
        }
    }

    // The rows of hidden: as they are in float32, else as the last `embed` or norm left them in words.
    Operand<Format> hidden_operand() const {
        if constexpr (Format::NARROW) {
            return {(Word*)call.hidden_words, call.hidden_factors, words_of<Format>(call.hidden_size)};
        } else {
            return {call.hidden, nullptr, call.hidden_size};
        }
    }

    // Rows [count, depth] of float32 as a product takes them.
    Operand<Format> operand(float* rows, int64_t count, int64_t depth) const {
        if constexpr (Format::NARROW) {
            const Operand<Format> words = {(Word*)call.words, call.factors, words_of<Format>(depth)};
            const Range mine = share(count);
            for (int64_t m = mine.first; m < mine.last; m++) words.narrow(rows + m * depth, depth, m);
            barrier.wait();  // words
            return words;
        } else {
            return {rows, nullptr, depth};
        }
    }

    // out = a matrix + bias, with the panels of this thread; `columns` is out's stride, too.
    Gemm<Format> product(const Operand<Format>& a, int64_t rows, const Matrix& matrix, int64_t depth, int64_t columns,
                         float* out) const {
        return {.a = a.words,
                .a_stride = a.stride,
                .rows = rows,
                .b = packed<Format>(matrix, depth, columns),
                .out = out,
                .out_stride = columns,
                .bias = matrix.bias,
                .panels = share(panel_count(columns)),
                .a_factors = a.factors};
    }

    // In place, and in a narrow format also as words.
    void normalise_row(float* row, const Norm& norm, const Operand<Format>& words, int64_t index) const {
        layer_norm(row, call.hidden_size, {norm.weight, norm.bias, (float)call.epsilon});
        if constexpr (Format::NARROW) words.narrow(row, call.hidden_size, index);
    }

    void embed() {
        const int64_t H = call.hidden_size;
        const Range tokens = share(call.tokens);
        for (int64_t t = tokens.first; t < tokens.last; t++) {
            float* row = call.hidden + t * H;
            if (call.tables.token) {
                memcpy(row, call.tables.token + call.input_ids[t] * H, 4 * H);
                if (call.tables.token_type) add_row(row, call.tables.token_type + call.token_type_ids[t] * H);
                if (call.tables.position) add_row(row, call.tables.position + call.position_ids[t] * H);
                normalise_row(row, call.tables.norm, hidden_operand(), t);
            } else if constexpr (Format::NARROW) {
                hidden_operand().narrow(row, H, t);
            }
        }
        barrier.wait();  // hidden
    }

    void add_row(float* row, const float* addend) const {
        for (int64_t i = 0; i < call.hidden_size; i++) row[i] += addend[i];
    }

    void project(const LayerWeights& layer) {
        const int64_t H = call.hidden_size;
        gemm(product(hidden_operand(), call.tokens, layer.qkv, H, 3 * H, call.qkv));
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
        const Scratch scratch(call.longest, head_size);
        float* k_panels = call.scratch + id * scratch.count();
        float *v_panels = k_panels + scratch.k_panels, *scores = v_panels + scratch.v_panels;
        pack_transposed(k, stride, length, head_size, k_panels);
        pack(v, stride, length, head_size, v_panels);
        for (int64_t m = 0; m < length; m += TILE_ROWS) {
            int64_t rows = std::min<int64_t>(TILE_ROWS, length - m), n_keys = call.causal ? m + rows : length;
            // S = Q Kᵀ
            gemm({.a = q + m * stride,
                  .a_stride = stride,
                  .rows = rows,
                  .b = {.panels = k_panels, .depth = head_size, .columns = padded_length},
                  .out = scores,
                  .out_stride = padded_length,
                  .panels = {0, panel_count(n_keys)}});
            // P = softmax(S / √D + bias), where causal of the keys up to the query
            const float scale = 1.0f / std::sqrt((float)head_size);
            for (int64_t r = 0; r < rows; r++) {
                float* row = scores + r * padded_length;
                if (call.bias) {
                    const float* by_distance = call.bias + head * (2 * call.longest - 1) + call.longest - 1 - (m + r);
                    for (int64_t j = 0; j < n_keys; j++) row[j] += by_distance[j] / scale;
                }
                softmax(row, call.causal ? m + r + 1 : length, padded_to_panels(n_keys), scale);
            }
            // O = P V
            gemm({.a = scores,
                  .a_stride = padded_length,
                  .rows = rows,
                  .b = {.panels = v_panels, .depth = length, .columns = head_size},
                  .out = attended + m * H,
                  .out_stride = H,
                  .depth = n_keys});
        }
    }

    // The rows of `only`: hidden → out, attended → qkv.
    RowBlock<Format> select() {
        const int64_t H = call.hidden_size;
        for (int64_t r = 0; id == 0 && r < call.num_only; r++) {
            memcpy(call.out + r * H, call.hidden + call.only[r] * H, 4 * H);
            memcpy(call.qkv + r * H, call.attended + call.only[r] * H, 4 * H);
        }
        barrier.wait();  // out, qkv
        Operand<Format> words = hidden_operand();
        if constexpr (!Format::NARROW) words.words = call.out;
        return {call.out, call.qkv, words, call.num_only};
    }

    // What follows attention; the layer's output is left in rows.hidden.
    void finish(const LayerWeights& layer, const RowBlock<Format>& rows) {
        const int64_t H = call.hidden_size, I = call.intermediate_size;
        const Operand<Format> attended = operand(rows.attended, rows.count, H);
        Gemm<Format> to_hidden = product(attended, rows.count, layer.attention_output, H, H, rows.hidden);
        to_hidden.epilogue = Epilogue::ADD;
        to_hidden.addend = rows.hidden;
        gemm(to_hidden);
        barrier.wait();  // hidden
        normalise(rows, layer.attention_norm);
        Gemm<Format> to_intermediate =
            product(rows.hidden_words, rows.count, layer.intermediate, H, I, call.intermediate);
        to_intermediate.epilogue = Epilogue::GELU;
        gemm(to_intermediate);
        barrier.wait();  // intermediate, and hidden, which the next product overwrites
        const Operand<Format> intermediate = operand(call.intermediate, rows.count, I);
        to_hidden = product(intermediate, rows.count, layer.output, I, H, rows.hidden);
        to_hidden.epilogue = Epilogue::ADD;
        to_hidden.addend = rows.hidden;
        gemm(to_hidden);
        barrier.wait();  // hidden
        normalise(rows, layer.output_norm);
    }

    void normalise(const RowBlock<Format>& rows, const Norm& norm) {
        const Range mine = share(rows.count);
        for (int64_t m = mine.first; m < mine.last; m++)
            normalise_row(rows.hidden + m * call.hidden_size, norm, rows.hidden_words, m);
        barrier.wait();  // hidden
    }
};

// Runs a worker on each of OpenMP's threads, which are torch's own where both have the same OpenMP, as GCC's and
// torch's wheels do: they are there already, and wait on their cores.
template <class Format>
void encode(const EncoderCall& call) {
    std::optional<SpinBarrier> barrier;
#pragma omp parallel num_threads(call.threads)
    {
#pragma omp single
        barrier.emplace(omp_get_num_threads());  // there may be fewer than were asked for
        Worker<Format>{call, *barrier, omp_get_thread_num()}.run();
    }
}

}  // namespace

extern "C" {

void bothways_encode(const EncoderCall* call) {
    if (call->format == FLOAT32) encode<Float32>(*call);
    else if (call->format == BFLOAT16) encode<Bfloat16Pairs>(*call);
    else encode<Int8Quads>(*call);
    if (call->num_only < 0) memcpy(call->out, call->hidden, 4 * call->tokens * call->hidden_size);
}

// Numbers of scratch memory that a thread needs.
int64_t bothways_scratch(int64_t longest, int64_t head_size) { return Scratch(longest, head_size).count(); }

// The CRC-32 of the sources and flags that this was compiled from.
int64_t bothways_fingerprint() { return BOTHWAYS_FINGERPRINT; }

// What the mirrors of the structures must have, too.
int64_t bothways_sizeof_Norm() { return sizeof(Norm); }
int64_t bothways_sizeof_LayerWeights() { return sizeof(LayerWeights); }
int64_t bothways_sizeof_EmbeddingTables() { return sizeof(EmbeddingTables); }
int64_t bothways_sizeof_EncoderCall() { return sizeof(EncoderCall); }
}
