// Causal attention inside segments, forward and backward, in bf16 on a CPU with AVX-512 BF16; called through segment_attention.py.
//
// A packed row holds many short sequences, and plain products over whole rows spend most of their time on pairs of tokens that may not
// see each other. Here each segment is a small attention of its own: work and memory go with its own length, and what stands between
// the products never leaves the nearest cache. A task is a row and a head of keys; it alone writes that head's gradients, in a fixed
// order, so results do not depend on the number of threads.
//
// Every product is tiles of 8 rows x 32 columns, C += A B, summed over pairs of bf16 as the processor's dot product takes them, in
// fp32: of A a pair is broadcast, of B pairs of 32 columns lie side by side. Which layout makes a matrix an A or a B:
//   rows as they are                        A, pairs along a row
//   `transposed` (pair of a row, row)       B, pairs along a row
//   `paired` (pair of rows, column)         B, pairs along a column; and A as well, its rows being the columns
//
// Forward, queries 8 at a time: e = 2^(s - max s), s = q k^T / (ln 2 sqrt(K)), o = e v / sum e, and lse = max s + log2 sum e.
// Backward, queries 64 at a time: p = 2^(s - lse) anew, dv = p^T do, ds = p (do v^T - sum(do o)) / sqrt(K), dq = ds k, dk = ds^T q
// (FlashAttention: Dao et al. 2022, arXiv 2205.14135, algorithms 1 and 4, whose tiles are ours).

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#ifndef __AVX512BF16__
#error "needs AVX-512 BF16"
#endif

// torch's own threads: a second pool would fight with it, since threads spin for a while after their work. The symbols are in the
// process already; where they are not, loading this library fails and attention is torch's.
extern "C" void GOMP_parallel(void (*run)(void*), void* data, unsigned num_threads, unsigned flags);

namespace {

using Vector = __m512;
constexpr int64_t ROWS = 8, COLUMNS = 32, LANES = 16, CHUNK = 64, LARGEST_HEAD = 256;

int64_t round_up(int64_t size, int64_t to) { return (size + to - 1) / to * to; }

// (B, T, H, K) bf16 with any distance between tokens, heads and rows; a head's K elements side by side.
struct Heads {
    uint16_t* data;
    int64_t row, token, head;
    uint16_t* at(int64_t b, int64_t t, int64_t h) const { return data + b * row + t * token + h * head; }
};

struct Problem {
    Heads q, k, v, out, grad, dq, dk, dv;
    const int64_t* segments;  // (B, T)
    float* lse;               // (B, H, T)
    int64_t rows, length, heads, kv_heads, size, prefix_shift;
    float scale, scale_2;  // 1 / sqrt(K), and for powers of two
};

// A run of one segment's tokens, and where the segment stands that it also sees.
struct Run {
    int64_t begin, end, prefix_begin, prefix_end;
    int64_t queries() const { return end - begin; }
    int64_t prefix() const { return prefix_end - prefix_begin; }
    int64_t keys() const { return prefix() + queries(); }
    int64_t token(int64_t key) const { return key < prefix() ? prefix_begin + key : begin + key - prefix(); }
};

std::vector<Run> runs_of(const int64_t* ids, int64_t length, int64_t shift) {
    std::vector<Run> runs;
    for (int64_t begin = 0, end; begin < length; begin = end) {
        for (end = begin + 1; end < length && ids[end] == ids[begin];) end++;
        Run run{begin, end, 0, 0};
        if (const int64_t prefix = ids[begin] >> shift; prefix > 0)
            for (const Run& before : runs)
                if (ids[before.begin] == prefix) run.prefix_begin = before.begin, run.prefix_end = before.end;
        runs.push_back(run);
    }
    return runs;
}

// 2^x for x <= 0 to five digits, where bf16 keeps less than three: 2^n 2^r with r in +-1/2, 2^r by a polynomial.
Vector power_of_two(Vector x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-125.0f));
    const Vector n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT), r = _mm512_sub_ps(x, n);
    Vector y = _mm512_set1_ps(0.00961813f);  // ln(2)^i / i!
    for (const float c : {0.05550411f, 0.24022651f, 0.69314718f, 1.0f}) y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(c));
    return _mm512_scalef_ps(y, n);
}

__m256i narrow(Vector x) { return (__m256i)_mm512_cvtneps_pbh(x); }
Vector wide(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
Vector load16(const uint16_t* from) { return wide(_mm256_loadu_si256((const __m256i*)from)); }
void store16(uint16_t* to, Vector x) { _mm256_storeu_si256((__m256i*)to, narrow(x)); }
__m512i interleaved(__m256i first, __m256i second) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
}

// c (8, 32) = or += a b over `pairs`; a's pairs `a_pair` apart in rows `a_row` apart, b's rows of pairs `b_pair` apart.
template <bool ADD>
void tile(const uint32_t* a, int64_t a_row, int64_t a_pair, const uint32_t* b, int64_t b_pair, int64_t pairs, float* c, int64_t c_row) {
    Vector sums[ROWS][2];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
        for (int part = 0; part < 2; part++) sums[r][part] = ADD ? _mm512_loadu_ps(c + r * c_row + part * LANES) : _mm512_setzero_ps();
    for (int64_t p = 0; p < pairs; p++, a += a_pair, b += b_pair) {
        const auto left = (__m512bh)_mm512_loadu_si512(b), right = (__m512bh)_mm512_loadu_si512(b + LANES);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            int32_t pair;
            std::memcpy(&pair, a + r * a_row, sizeof pair);
            const auto both = (__m512bh)_mm512_set1_epi32(pair);
            sums[r][0] = _mm512_dpbf16_ps(sums[r][0], both, left);
            sums[r][1] = _mm512_dpbf16_ps(sums[r][1], both, right);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
        for (int part = 0; part < 2; part++) _mm512_storeu_ps(c + r * c_row + part * LANES, sums[r][part]);
}

// to (K / 2, columns): pairs along each token's K elements; tokens from `count` on are zero.
template <class Token>
void transposed(Token token, int64_t count, int64_t columns, int64_t size, uint32_t* to) {
    alignas(64) static const uint32_t zeros[LARGEST_HEAD / 2] = {};
    const uint32_t* from[LANES];
    for (int64_t j = 0; j < columns; j += LANES) {
        for (int64_t i = 0; i < LANES; i++) from[i] = j + i < count ? (const uint32_t*)token(j + i) : zeros;
        for (int64_t p = 0; p < size / 2; p++)
#pragma GCC unroll 16
            for (int64_t i = 0; i < LANES; i++) std::memcpy(to + p * columns + j + i, from[i] + p, sizeof *to);
    }
}

// to (columns / 2, K): two tokens' elements side by side; tokens from `count` on are zero.
template <class Token>
void paired(Token token, int64_t count, int64_t columns, int64_t size, uint32_t* to) {
    const __m256i zero = _mm256_setzero_si256();
    for (int64_t j = 0; j < columns; j += 2, to += size)
        for (int64_t d = 0; d < size; d += LANES) {
            const __m256i first = j < count ? _mm256_loadu_si256((const __m256i*)(token(j) + d)) : zero;
            const __m256i second = j + 1 < count ? _mm256_loadu_si256((const __m256i*)(token(j + 1) + d)) : zero;
            _mm512_storeu_si512(to + d, interleaved(first, second));
        }
}

// to (8, K): some tokens as they are, the rest of the tile zero.
template <class Token>
void copied(Token token, int64_t count, int64_t size, uint16_t* to) {
    std::memset(to, 0, ROWS * size * sizeof *to);
    for (int64_t r = 0; r < count; r++) std::memcpy(to + r * size, token(r), size * sizeof *to);
}

template <class T>
T* room(std::vector<T>& buffer, int64_t size) {
    if ((int64_t)buffer.size() < size) buffer.resize(size);
    return buffer.data();
}

// The lanes of key block `key` that a query at key index `last` may see.
__mmask16 seen(int64_t last, int64_t key) {
    const int64_t count = last + 1 - key;
    return count >= LANES ? 0xffff : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}

struct Scratch {
    std::vector<uint32_t> keys_t, values_t, keys_p, values_p, queries_p, grads_p, weights, slopes;
    std::vector<uint16_t> queries, grads, row_weights;
    std::vector<float> scores, products, sums, dk, dv, dk_row, dv_row;
};

void forward(const Problem& x, int64_t b, int64_t kv_head, Scratch& s) {
    const int64_t K = x.size, group = x.heads / x.kv_heads;
    for (const Run& run : runs_of(x.segments + b * x.length, x.length, x.prefix_shift)) {
        const int64_t keys = run.keys(), columns = round_up(keys, COLUMNS);
        uint32_t *keys_t = room(s.keys_t, K / 2 * columns), *values_p = room(s.values_p, columns / 2 * K);
        transposed([&](int64_t j) { return x.k.at(b, run.token(j), kv_head); }, keys, columns, K, keys_t);
        paired([&](int64_t j) { return x.v.at(b, run.token(j), kv_head); }, keys, columns, K, values_p);
        float *scores = room(s.scores, ROWS * columns), *mixed = room(s.sums, ROWS * K);
        uint16_t *queries = room(s.queries, ROWS * K), *weights = room(s.row_weights, ROWS * columns);
        for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
            for (int64_t i = 0; i < run.queries(); i += ROWS) {
                const int64_t count = std::min(ROWS, run.queries() - i), first = run.prefix() + i, width = round_up(first + count, COLUMNS);
                copied([&](int64_t r) { return x.q.at(b, run.begin + i + r, head); }, count, K, queries);
                for (int64_t j = 0; j < width; j += COLUMNS)
                    tile<false>((uint32_t*)queries, K / 2, 1, keys_t + j, columns, K / 2, scores + j, columns);
                float totals[ROWS];
                for (int64_t r = 0; r < ROWS; r++) {
                    const float* row = scores + r * columns;
                    Vector top = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
                    for (int64_t j = 0; j < width; j += LANES) top = _mm512_mask_max_ps(top, seen(first + r, j), top, _mm512_loadu_ps(row + j));
                    const float most = _mm512_reduce_max_ps(top) * x.scale_2;
                    for (int64_t j = 0; j < width; j += LANES) {
                        const Vector e = power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(row + j), _mm512_set1_ps(x.scale_2), _mm512_set1_ps(most)));
                        const __m256i kept = narrow(_mm512_maskz_mov_ps(seen(first + r, j), e));
                        total = _mm512_add_ps(total, wide(kept));
                        _mm256_storeu_si256((__m256i*)(weights + r * columns + j), kept);
                    }
                    totals[r] = _mm512_reduce_add_ps(total);
                    if (r < count) x.lse[(b * x.heads + head) * x.length + run.begin + i + r] = most + std::log2(totals[r]);
                }
                for (int64_t d = 0; d < K; d += COLUMNS)
                    tile<false>((uint32_t*)weights, columns / 2, 1, values_p + d, K, width / 2, mixed + d, K);
                for (int64_t r = 0; r < count; r++)
                    for (int64_t d = 0; d < K; d += LANES)
                        store16(x.out.at(b, run.begin + i + r, head) + d, _mm512_div_ps(_mm512_loadu_ps(mixed + r * K + d), _mm512_set1_ps(totals[r])));
            }
    }
}

void backward(const Problem& x, int64_t b, int64_t kv_head, Scratch& s) {
    const int64_t K = x.size, group = x.heads / x.kv_heads;
    float *dk_row = room(s.dk_row, x.length * K), *dv_row = room(s.dv_row, x.length * K);
    std::fill(dk_row, dk_row + x.length * K, 0.0f);
    std::fill(dv_row, dv_row + x.length * K, 0.0f);
    for (const Run& run : runs_of(x.segments + b * x.length, x.length, x.prefix_shift)) {
        const int64_t keys = run.keys(), columns = round_up(keys, COLUMNS);
        const auto key = [&](int64_t j) { return x.k.at(b, run.token(j), kv_head); };
        const auto value = [&](int64_t j) { return x.v.at(b, run.token(j), kv_head); };
        uint32_t *keys_t = room(s.keys_t, K / 2 * columns), *values_t = room(s.values_t, K / 2 * columns), *keys_p = room(s.keys_p, columns / 2 * K);
        transposed(key, keys, columns, K, keys_t);
        transposed(value, keys, columns, K, values_t);
        paired(key, keys, columns, K, keys_p);
        float *dk = room(s.dk, columns * K), *dv = room(s.dv, columns * K);
        std::fill(dk, dk + columns * K, 0.0f);
        std::fill(dv, dv + columns * K, 0.0f);
        float *scores = room(s.scores, ROWS * columns), *products = room(s.products, ROWS * columns), *mixed = room(s.sums, ROWS * K);
        uint16_t *queries = room(s.queries, ROWS * K), *grads = room(s.grads, ROWS * K), *row_slopes = room(s.row_weights, ROWS * columns);
        uint32_t *queries_p = room(s.queries_p, CHUNK / 2 * K), *grads_p = room(s.grads_p, CHUNK / 2 * K);
        uint32_t *weights = room(s.weights, CHUNK / 2 * columns), *slopes = room(s.slopes, CHUNK / 2 * columns);  // (pair of queries, key)
        for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
            for (int64_t c = 0; c < run.queries(); c += CHUNK) {
                const int64_t taken = std::min(CHUNK, run.queries() - c), padded = round_up(taken, ROWS);
                const int64_t chunk_width = round_up(run.prefix() + c + taken, COLUMNS);
                const auto query = [&](int64_t i) { return x.q.at(b, run.begin + c + i, head); };
                const auto grad = [&](int64_t i) { return x.grad.at(b, run.begin + c + i, head); };
                paired(query, taken, padded, K, queries_p);
                paired(grad, taken, padded, K, grads_p);
                for (int64_t i = 0; i < taken; i += ROWS) {
                    const int64_t count = std::min(ROWS, taken - i), first = run.prefix() + c + i, width = round_up(first + count, COLUMNS);
                    copied([&](int64_t r) { return query(i + r); }, count, K, queries);
                    copied([&](int64_t r) { return grad(i + r); }, count, K, grads);
                    for (int64_t j = 0; j < width; j += COLUMNS) {
                        tile<false>((uint32_t*)queries, K / 2, 1, keys_t + j, columns, K / 2, scores + j, columns);
                        tile<false>((uint32_t*)grads, K / 2, 1, values_t + j, columns, K / 2, products + j, columns);
                    }
                    for (int64_t r = 0; r < ROWS; r += 2) {
                        Vector offset[2], lse[2];
                        for (int64_t k = 0; k < 2; k++) {
                            Vector sum = _mm512_setzero_ps();
                            const int64_t token = run.begin + c + i + r + k;
                            if (r + k < count)
                                for (int64_t d = 0; d < K; d += LANES)
                                    sum = _mm512_fmadd_ps(load16(x.grad.at(b, token, head) + d), load16(x.out.at(b, token, head) + d), sum);
                            offset[k] = _mm512_set1_ps(_mm512_reduce_add_ps(sum));
                            lse[k] = _mm512_set1_ps(r + k < count ? x.lse[(b * x.heads + head) * x.length + token] : 0.0f);
                        }
                        const int64_t pair = (i + r) / 2 * columns;
                        for (int64_t j = 0; j < width; j += LANES) {
                            __m256i weight[2], slope[2];
                            for (int64_t k = 0; k < 2; k++) {
                                const int64_t at = (r + k) * columns + j;
                                const __mmask16 mask = r + k < count ? seen(first + r + k, j) : 0;
                                const Vector p = _mm512_maskz_mov_ps(
                                    mask, power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(scores + at), _mm512_set1_ps(x.scale_2), lse[k])));
                                const Vector ds = _mm512_mul_ps(
                                    _mm512_mul_ps(p, _mm512_set1_ps(x.scale)), _mm512_sub_ps(_mm512_loadu_ps(products + at), offset[k]));
                                weight[k] = narrow(p);
                                slope[k] = narrow(_mm512_maskz_mov_ps(mask, ds));
                                _mm256_storeu_si256((__m256i*)(row_slopes + at), slope[k]);
                            }
                            _mm512_storeu_si512(weights + pair + j, interleaved(weight[0], weight[1]));
                            _mm512_storeu_si512(slopes + pair + j, interleaved(slope[0], slope[1]));
                        }
                        if (width < chunk_width) {  // later queries of the chunk see these keys
                            std::memset(weights + pair + width, 0, (chunk_width - width) * sizeof *weights);
                            std::memset(slopes + pair + width, 0, (chunk_width - width) * sizeof *slopes);
                        }
                    }
                    for (int64_t d = 0; d < K; d += COLUMNS)
                        tile<false>((uint32_t*)row_slopes, columns / 2, 1, keys_p + d, K, width / 2, mixed + d, K);
                    for (int64_t r = 0; r < count; r++)
                        for (int64_t d = 0; d < K; d += LANES) store16(x.dq.at(b, run.begin + c + i + r, head) + d, _mm512_loadu_ps(mixed + r * K + d));
                }
                for (int64_t j = 0; j < chunk_width; j += ROWS) {
                    const int64_t unseen = std::max<int64_t>(0, j - run.prefix() - c) / 2;  // pairs of queries that stand before these keys
                    if (unseen >= padded / 2) continue;
                    for (int64_t d = 0; d < K; d += COLUMNS) {
                        tile<true>(weights + unseen * columns + j, 1, columns, grads_p + unseen * K + d, K, padded / 2 - unseen, dv + j * K + d, K);
                        tile<true>(slopes + unseen * columns + j, 1, columns, queries_p + unseen * K + d, K, padded / 2 - unseen, dk + j * K + d, K);
                    }
                }
            }
        for (int64_t j = 0; j < keys; j++)
            for (int64_t d = 0; d < K; d++) {
                dk_row[run.token(j) * K + d] += dk[j * K + d];
                dv_row[run.token(j) * K + d] += dv[j * K + d];
            }
    }
    for (int64_t t = 0; t < x.length; t++)
        for (int64_t d = 0; d < K; d += LANES) {
            store16(x.dk.at(b, t, kv_head) + d, _mm512_loadu_ps(dk_row + t * K + d));
            store16(x.dv.at(b, t, kv_head) + d, _mm512_loadu_ps(dv_row + t * K + d));
        }
}

struct Work {
    const Problem* problem;
    void (*task)(const Problem&, int64_t, int64_t, Scratch&);
    std::atomic<int64_t> next{0};
};

void work(void* given) {
    Work& all = *(Work*)given;
    thread_local Scratch scratch;
    const int64_t heads = all.problem->kv_heads, count = all.problem->rows * heads;
    for (int64_t task; (task = all.next++) < count;) all.task(*all.problem, task / heads, task % heads, scratch);
}

void solve(
    void (*task)(const Problem&, int64_t, int64_t, Scratch&), int64_t num_tensors, void* const* tensors, const int64_t* strides,
    const int64_t* segments, float* lse, const int64_t* shape) {
    Problem x{};
    Heads* const heads[] = {&x.q, &x.k, &x.v, &x.out, &x.grad, &x.dq, &x.dk, &x.dv};
    for (int64_t i = 0; i < num_tensors; i++, strides += 3) *heads[i] = {(uint16_t*)tensors[i], strides[0], strides[1], strides[2]};
    x.segments = segments, x.lse = lse;
    x.rows = shape[0], x.length = shape[1], x.heads = shape[2], x.kv_heads = shape[3], x.size = shape[4], x.prefix_shift = shape[5];
    x.scale = 1.0f / std::sqrt((float)x.size), x.scale_2 = x.scale * 1.44269504f;
    Work all{&x, task};
    GOMP_parallel(work, &all, (unsigned)std::min(shape[6], x.rows * x.kv_heads), 0);
}

}  // namespace

// shape: B, T, H, H_kv, K, PREFIX_SHIFT, threads. strides: of each of the tensors in elements, row, token and head.
// tensors: q, k, v, out; backward further grad, dq, dk, dv.
extern "C" void attention_forward(void* const* tensors, const int64_t* strides, const int64_t* segments, float* lse, const int64_t* shape) {
    solve(forward, 4, tensors, strides, segments, lse, shape);
}

extern "C" void attention_backward(void* const* tensors, const int64_t* strides, const int64_t* segments, float* lse, const int64_t* shape) {
    solve(backward, 8, tensors, strides, segments, lse, shape);
}
