// A decoder for CPUs, called through native.py: tokens in, logits out, the cache in between.
//
// Each thread takes some of the sequences through all layers by itself. Nothing is shared but weights that nobody writes, so there is
// no barrier; and a sequence's arithmetic does not depend on what else is in the batch. Reading a prompt and making one more token are
// the same: tokens with a row of the cache and a position, those of one row in order.
//
// Matrices lie in panels of as many columns as a tile has, each column's inputs beside its neighbours' (bf16 in pairs, as the dot product
// of AVX-512 BF16 wants them). Keys lie in blocks of as many positions as a register has lanes, so that their scores are added up side by
// side; values by position (bf16: by pairs). bf16 is rounded to where the trainer rounds: after each product.
//
// AVX-512 is written out; for other processors the compiler's own vectors serve, in fp32.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int64_t LANES = 16, PARTS = 4;  // of a tile's rows: what the registers hold beside the weights
using Vector = __m512;
Vector all(float x) { return _mm512_set1_ps(x); }
Vector load(const float* from) { return _mm512_loadu_ps(from); }
void store(float* to, Vector x) { _mm512_storeu_ps(to, x); }
Vector multiply_add(Vector x, Vector y, Vector sum) { return _mm512_fmadd_ps(x, y, sum); }
Vector larger(Vector x, Vector y) { return _mm512_max_ps(x, y); }
Vector whole(Vector x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT); }
Vector times_power_of_two(Vector x, Vector n) { return _mm512_scalef_ps(x, n); }
Vector first(int64_t count, Vector inside, Vector outside) { return _mm512_mask_blend_ps((__mmask16)((1u << count) - 1), outside, inside); }
float sum_of(Vector x) { return _mm512_reduce_add_ps(x); }
float largest_of(Vector x) { return _mm512_reduce_max_ps(x); }
#else
#ifdef __AVX__
constexpr int64_t LANES = 8;
#else
constexpr int64_t LANES = 4;
#endif
#ifdef __aarch64__
constexpr int64_t PARTS = 4;  // 32 registers
#else
constexpr int64_t PARTS = 2;
#endif
typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
Vector all(float x) { return x - Vector{}; }
Vector load(const float* from) {
    Vector x;
    std::memcpy(&x, from, sizeof x);
    return x;
}
void store(float* to, Vector x) { std::memcpy(to, &x, sizeof x); }
Vector multiply_add(Vector x, Vector y, Vector sum) { return x * y + sum; }
Vector larger(Vector x, Vector y) { return x > y ? x : y; }
Vector whole(Vector x) { return (x + 12582912.0f) - 12582912.0f; }  // 1.5 * 2^23: there is no room for fractions beside it
Vector times_power_of_two(Vector x, Vector n) {
    n = n < 127.0f ? n : all(127.0f);
    return x * (Vector)((__builtin_convertvector(n, Integers) + 127) << 23);
}
Vector first(int64_t count, Vector inside, Vector outside) {
    Integers lane;
    for (int32_t i = 0; i < LANES; i++) lane[i] = i;
    return lane < (int32_t)count ? inside : outside;
}
float sum_of(Vector x) {
    for (int64_t half = LANES / 2; half > 0; half /= 2)
        for (int64_t i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}
float largest_of(Vector x) {
    for (int64_t i = 1; i < LANES; i++) x[0] = std::max(x[0], x[i]);
    return x[0];
}
#endif

constexpr int64_t PANEL = PARTS * LANES, TILE_ROWS = 6, GROUP_COLUMNS = 64, BLOCK_TOKENS = 64;

struct Float32 {
    using Element = float;
    static constexpr int64_t GROUP = 1;  // inputs multiplied by one instruction
    static Vector both(const Element* x) { return all(*x); }
    static Vector load(const Element* w) { return ::load(w); }
    static Vector multiply_add(Vector sum, Vector x, Vector w) { return ::multiply_add(x, w, sum); }
    static void store(Element* to, Vector x) { ::store(to, x); }
    static Vector rounded(Vector x) { return x; }
};

#ifdef __AVX512BF16__
struct BFloat16 {
    using Element = uint16_t;
    static constexpr int64_t GROUP = 2;
    static Vector both(const Element* x) {
        int32_t pair;
        std::memcpy(&pair, x, sizeof pair);
        return _mm512_castsi512_ps(_mm512_set1_epi32(pair));
    }
    static Vector load(const Element* w) { return _mm512_loadu_ps(w); }
    static Vector multiply_add(Vector sum, Vector x, Vector w) { return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)w); }
    static void store(Element* to, Vector x) { _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(x)); }
    static Vector rounded(Vector x) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x)), 16));
    }
};
#endif

// The cache is read once a step, in order: asked for ahead, since the processor's own guess ends with each page of memory.
template <class T>
Vector streamed(const typename T::Element* from) {
    __builtin_prefetch((const char*)from + 2048);
    return T::load(from);
}

// e^x to the last bit or two: 2^n e^r with r in +-ln 2 / 2, e^r by its series.
Vector exponential(Vector x) {
    x = larger(x, all(-87.0f));
    const Vector n = whole(x * all(1.44269504f));
    const Vector r = multiply_add(n, all(2.12194440e-4f), multiply_add(n, all(-0.693359375f), x));
    Vector y = all(1.0f / 5040);
    for (const float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) y = multiply_add(y, r, all(c));
    return times_power_of_two(y, n);
}

int64_t padded(int64_t columns) { return (columns + GROUP_COLUMNS - 1) / GROUP_COLUMNS * GROUP_COLUMNS; }

// y (R, PANEL) = x (R, size) times one panel.
template <class T, int R>
void tile(const typename T::Element* x, int64_t stride, const typename T::Element* panel, int64_t size, float* y, int64_t y_stride) {
    Vector sums[R][PARTS];
    for (int row = 0; row < R; row++)
        for (int part = 0; part < PARTS; part++) sums[row][part] = all(0.0f);
    for (int64_t i = 0; i < size; i += T::GROUP, panel += PANEL * T::GROUP) {
        Vector w[PARTS];
        for (int part = 0; part < PARTS; part++) w[part] = T::load(panel + part * LANES * T::GROUP);
        for (int row = 0; row < R; row++) {
            const Vector both = T::both(x + row * stride + i);
            for (int part = 0; part < PARTS; part++) sums[row][part] = T::multiply_add(sums[row][part], both, w[part]);
        }
    }
    for (int row = 0; row < R; row++)
        for (int part = 0; part < PARTS; part++) store(y + row * y_stride + part * LANES, T::rounded(sums[row][part]));
}

// y (rows, padded columns) = x (rows, size) times a packed matrix.
template <class T>
void product(const typename T::Element* x, int64_t rows, const typename T::Element* matrix, int64_t columns, int64_t size, float* y) {
    const int64_t stride = padded(columns);
    for (int64_t column = 0; column < stride; column += PANEL) {
        const auto* panel = matrix + column * size;
        for (int64_t row = 0; row < rows; row += TILE_ROWS) {
            const auto* from = x + row * size;
            float* to = y + row * stride + column;
            switch (std::min(TILE_ROWS, rows - row)) {
                case 1: tile<T, 1>(from, size, panel, size, to, stride); break;
                case 2: tile<T, 2>(from, size, panel, size, to, stride); break;
                case 3: tile<T, 3>(from, size, panel, size, to, stride); break;
                case 4: tile<T, 4>(from, size, panel, size, to, stride); break;
                case 5: tile<T, 5>(from, size, panel, size, to, stride); break;
                default: tile<T, 6>(from, size, panel, size, to, stride);
            }
        }
    }
}

float inverse_rms(const float* x, int64_t size, float eps) {
    Vector squares = all(0.0f);
    for (int64_t i = 0; i < size; i += LANES) {
        const Vector v = load(x + i);
        squares = multiply_add(v, v, squares);
    }
    return 1.0f / std::sqrt(sum_of(squares) / size + eps);
}

// to = x / rms(x); the norm's scale is in the matrix that follows.
template <class T>
void normalise(const float* x, int64_t rows, int64_t size, float eps, typename T::Element* to) {
    for (int64_t row = 0; row < rows; row++, x += size, to += size) {
        const Vector scale = all(inverse_rms(x, size, eps));
        for (int64_t i = 0; i < size; i += LANES) T::store(to + i, load(x + i) * scale);
    }
}

}  // namespace

extern "C" {

struct Layer {
    const void *qkv, *o, *gate_up, *down;  // packed
    const float* qk_scale;                 // (H + H_kv, K); null without QK-norm
};

struct Model {
    int64_t num_layers, width, num_heads, num_kv_heads, head_size, ffn_width, vocab_size, num_rows, capacity;
    const Layer* layers;
    const float* embedding;  // (V, D)
    const void* head;        // packed
    const float *cos, *sin;  // (positions, K); sin signed
    void *keys, *values;     // (L, rows, H_kv, capacity, K) in the orders said above; capacity a multiple of LANES
    float eps;
};
}

namespace {

template <class T>
struct Pass {
    using Element = typename T::Element;
    const Model& m;
    std::vector<float> x, wide, narrow, scores;
    std::vector<Element> h, queries, weights;

    explicit Pass(const Model& model) : m(model) {
        const int64_t heads = m.num_heads + 2 * m.num_kv_heads;
        x.resize(BLOCK_TOKENS * m.width);
        wide.resize(BLOCK_TOKENS * padded(std::max(heads * m.head_size, 2 * m.ffn_width)));
        narrow.resize(BLOCK_TOKENS * padded(m.width));
        h.resize(BLOCK_TOKENS * std::max({m.width, m.num_heads * m.head_size, m.ffn_width}));
        queries.resize(BLOCK_TOKENS * m.num_heads * m.head_size);
        scores.resize(m.capacity + 4 * LANES);
        weights.resize(m.capacity + 4 * LANES);
    }

    int64_t slot(int64_t layer, int64_t row, int64_t head) const { return ((layer * m.num_rows + row) * m.num_kv_heads + head) * m.capacity * m.head_size; }

    void run(const int64_t* tokens, const int32_t* rows, const int32_t* positions, const int32_t* wanted, int64_t count, float* logits) {
        for (int64_t first = 0; first < count; first += BLOCK_TOKENS) {
            const int64_t n = std::min(BLOCK_TOKENS, count - first);
            for (int64_t i = 0; i < n; i++) std::memcpy(&x[i * m.width], m.embedding + tokens[first + i] * m.width, m.width * sizeof(float));
            for (int64_t layer = 0; layer < m.num_layers; layer++) block(layer, rows + first, positions + first, n);
            finish(wanted + first, n, logits);
        }
    }

    void block(int64_t number, const int32_t* rows, const int32_t* positions, int64_t n) {
        const Layer& layer = m.layers[number];
        const int64_t size = m.head_size, num_qk = m.num_heads + m.num_kv_heads, columns = (num_qk + m.num_kv_heads) * size;
        normalise<T>(x.data(), n, m.width, m.eps, h.data());
        product<T>(h.data(), n, (const Element*)layer.qkv, columns, m.width, wide.data());
        for (int64_t i = 0; i < n; i++) {
            float* heads = &wide[i * padded(columns)];
            for (int64_t head = 0; head < num_qk; head++) rotate(heads + head * size, layer.qk_scale ? layer.qk_scale + head * size : nullptr, positions[i]);
            for (int64_t j = 0; j < m.num_heads * size; j += LANES) T::store(&queries[i * m.num_heads * size + j], load(heads + j));
            for (int64_t head = 0; head < m.num_kv_heads; head++)
                keep(slot(number, rows[i], head), positions[i], heads + (m.num_heads + head) * size, heads + (num_qk + head) * size);
        }
        for (int64_t i = 0; i < n; i++)
            for (int64_t head = 0; head < m.num_heads; head++) {
                const int64_t at = (i * m.num_heads + head) * size;
                attend(slot(number, rows[i], head * m.num_kv_heads / m.num_heads), positions[i] + 1, &queries[at], &h[at]);
            }
        product<T>(h.data(), n, (const Element*)layer.o, m.width, m.num_heads * size, narrow.data());
        add(n);
        normalise<T>(x.data(), n, m.width, m.eps, h.data());
        product<T>(h.data(), n, (const Element*)layer.gate_up, 2 * m.ffn_width, m.width, wide.data());
        for (int64_t i = 0; i < n; i++) {
            const float *gate = &wide[i * padded(2 * m.ffn_width)], *up = gate + m.ffn_width;
            for (int64_t j = 0; j < m.ffn_width; j += LANES) {
                const Vector g = load(gate + j);
                T::store(&h[i * m.ffn_width + j], T::rounded(g / (all(1.0f) + exponential(-g))) * load(up + j));
            }
        }
        product<T>(h.data(), n, (const Element*)layer.down, m.width, m.ffn_width, narrow.data());
        add(n);
    }

    void add(int64_t n) {
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < m.width; j += LANES) {
                float* to = &x[i * m.width + j];
                store(to, load(to) + load(&narrow[i * padded(m.width) + j]));
            }
    }

    // One head's query or key in place: normalised, scaled, rotated.
    void rotate(float* head, const float* scale, int64_t position) {
        const int64_t size = m.head_size, half = size / 2;
        const float factor = scale ? inverse_rms(head, size, m.eps) : 1.0f;
        const float *cos = m.cos + position * size, *sin = m.sin + position * size;
        for (int64_t i = 0; i < half; i++) {
            const float a = head[i] * factor * (scale ? scale[i] : 1.0f), b = head[i + half] * factor * (scale ? scale[i + half] : 1.0f);
            head[i] = a * cos[i] + b * sin[i];
            head[i + half] = b * cos[i + half] + a * sin[i + half];
        }
    }

    void keep(int64_t at, int64_t position, const float* key, const float* value) {
        const int64_t size = m.head_size, group = T::GROUP;
        Element* keys = (Element*)m.keys + at + position / LANES * LANES * size + position % LANES * group;
        Element* values = (Element*)m.values + at + position / group * group * size + position % group;
        Element rounded[LANES];
        for (int64_t i = 0; i < size; i += LANES) {
            T::store(rounded, load(key + i));
            for (int64_t j = 0; j < LANES; j++) keys[(i + j) / group * group * LANES + j % group] = rounded[j];
            T::store(rounded, load(value + i));
            for (int64_t j = 0; j < LANES; j++) values[(i + j) * group] = rounded[j];
        }
    }

    // mixed (K) = softmax(q k' / sqrt(K)) v over the first `count` positions of one head of one row.
    void attend(int64_t at, int64_t count, const Element* query, Element* mixed) {
        const int64_t size = m.head_size, group = T::GROUP, blocks = (count + LANES - 1) / LANES;
        const Element *keys = (const Element*)m.keys + at, *values = (const Element*)m.values + at;
        const Vector scale = all(1.0f / std::sqrt((float)size));
        Vector highest = all(-INFINITY);
        for (int64_t block = 0; block < blocks; block++) {
            Vector sums[4] = {all(0.0f), all(0.0f), all(0.0f), all(0.0f)};  // one alone would wait for itself
            for (int64_t i = 0; i < size; i += 4 * group)
                for (int64_t part = 0; part < 4; part++) {
                    const int64_t at = i + part * group;
                    sums[part] = T::multiply_add(sums[part], T::both(query + at), streamed<T>(keys + block * LANES * size + at * LANES));
                }
            Vector sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) * scale;
            if (block == blocks - 1 && count % LANES) sum = first(count % LANES, sum, all(-INFINITY));
            highest = larger(highest, sum);
            store(&scores[block * LANES], sum);
        }
        const Vector top = all(largest_of(highest));
        Vector total = all(0.0f);
        for (int64_t block = 0; block < blocks; block++) {
            Vector weight = T::rounded(exponential(load(&scores[block * LANES]) - top));
            if (block == blocks - 1 && count % LANES) weight = first(count % LANES, weight, all(0.0f));
            total += weight;
            T::store(&weights[block * LANES], weight);
        }
        const Vector share = all(1.0f / sum_of(total));
        for (int64_t i = 0; i < size;)
            if (size - i >= 4 * LANES) mix<4>(values + i * group, count, share, mixed + i), i += 4 * LANES;
            else mix<2>(values + i * group, count, share, mixed + i), i += 2 * LANES;
    }

    // N LANES columns of the weighted sum of values. Weights past `count` are 0, up to the end of the last block.
    template <int N>
    void mix(const Element* values, int64_t count, Vector share, Element* mixed) {
        const int64_t group = T::GROUP, row = group * m.head_size;
        Vector even[N], odd[N];
        for (int part = 0; part < N; part++) even[part] = odd[part] = all(0.0f);
        for (int64_t position = 0; position < count; position += 2 * group, values += 2 * row) {
            const Vector first = T::both(&weights[position]), second = T::both(&weights[position + group]);
            for (int part = 0; part < N; part++) {
                even[part] = T::multiply_add(even[part], first, streamed<T>(values + part * LANES * group));
                odd[part] = T::multiply_add(odd[part], second, streamed<T>(values + row + part * LANES * group));
            }
        }
        for (int part = 0; part < N; part++) T::store(mixed + part * LANES, (even[part] + odd[part]) * share);
    }

    // Logits of the tokens that want them: row wanted[i] of (rows, padded V).
    void finish(const int32_t* wanted, int64_t n, float* logits) {
        const int64_t stride = padded(m.vocab_size);
        for (int64_t i = 0; i < n; i++) {
            if (wanted[i] < 0) continue;
            int64_t run = 1;  // neighbours share a product
            while (i + run < n && wanted[i + run] == wanted[i] + run) run++;
            normalise<T>(&x[i * m.width], run, m.width, m.eps, h.data());
            product<T>(h.data(), run, (const Element*)m.head, m.vocab_size, m.width, logits + wanted[i] * stride);
            i += run - 1;
        }
    }
};

// An index drawn in proportion to `count` masses that add up to `total`: the inverse of the cumulative distribution, in whole 2^-40 of it.
int64_t pick(const float* masses, int64_t count, float total, double uniform, std::vector<int64_t>& running) {
    int64_t sum = 0;
    for (int64_t i = 0; i < count; i++) running[i] = sum += (int64_t)((double)(masses[i] / total) * 1099511627776.0);
    const int64_t target = (int64_t)(uniform * (double)sum);
    const int64_t found = std::upper_bound(running.begin(), running.begin() + count, target) - running.begin();
    return std::min(found, count - 1);
}

Vector columns_of(const float* row, int64_t column, int64_t vocab_size, Vector temperature) {  // logits / temperature, -inf from the vocabulary's end on
    if (vocab_size - column >= LANES) return load(row + column) / temperature;
    float last[LANES];
    for (int64_t i = 0; i < LANES; i++) last[i] = column + i < vocab_size ? row[column + i] : -INFINITY;
    return load(last) / temperature;
}

}  // namespace

extern "C" {

// sampling.py's `sample` where nothing is cut: a token from each of `count` rows of logits (rows, stride) and its log-probability. uniform (count, 2).
void draw(const float* logits, int64_t stride, int64_t vocab_size, int64_t count, float temperature, const double* uniform, int64_t* ids, float* logprobs) {
    const int64_t size = padded(vocab_size), num_groups = size / GROUP_COLUMNS;
    std::vector<float> masses(size), groups(num_groups);
    std::vector<int64_t> running(std::max(num_groups, GROUP_COLUMNS));
    const Vector divisor = all(temperature);
    for (int64_t row = 0; row < count; row++) {
        const float* from = logits + row * stride;
        Vector highest = all(-INFINITY);
        for (int64_t i = 0; i < size; i += LANES) highest = larger(highest, columns_of(from, i, vocab_size, divisor));
        const Vector top = all(largest_of(highest));
        float total = 0;
        for (int64_t group = 0; group < num_groups; group++) {
            Vector sum = all(0.0f);
            for (int64_t i = group * GROUP_COLUMNS; i < (group + 1) * GROUP_COLUMNS; i += LANES) {
                const Vector mass = exponential(columns_of(from, i, vocab_size, divisor) - top);
                store(&masses[i], mass);
                sum += mass;
            }
            total += groups[group] = sum_of(sum);
        }
        const int64_t group = pick(groups.data(), num_groups, total, uniform[2 * row], running);
        const int64_t inside = pick(&masses[group * GROUP_COLUMNS], GROUP_COLUMNS, groups[group], uniform[2 * row + 1], running);
        ids[row] = std::min(group * GROUP_COLUMNS + inside, vocab_size - 1);
        logprobs[row] = std::log(masses[ids[row]] / total);
    }
}

int64_t lanes() { return LANES; }

int64_t panel_columns() { return PANEL; }

int64_t element_bits(int64_t wanted) {  // `wanted` where this build computes in it, else 0
#ifdef __AVX512BF16__
    if (wanted == 16) return 16;
#endif
    return wanted == 32 ? 32 : 0;
}

void advance(const Model* model, int64_t bits, const int64_t* tokens, const int32_t* rows, const int32_t* positions, const int32_t* wanted,
             int64_t count, float* logits) {
#ifdef __AVX512BF16__
    if (bits == 16) return Pass<BFloat16>(*model).run(tokens, rows, positions, wanted, count, logits);
#endif
    Pass<Float32>(*model).run(tokens, rows, positions, wanted, count, logits);
}
}
