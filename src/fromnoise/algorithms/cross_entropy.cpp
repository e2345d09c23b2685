// What stands between the two products of a loss head in bf16 (logprobs.py), for a CPU: logits become the gradient of their loss in one
// visit a row, which stays in the nearest cache. torch's operators visit it eight times. Plain loops: the compiler makes vectors of them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

inline float widened(uint16_t x) {
    const uint32_t bits = (uint32_t)x << 16;
    float y;
    std::memcpy(&y, &bits, sizeof y);
    return y;
}

inline uint16_t rounded(float x) {  // to nearest, ties to even, as torch does
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// e^x to the last bit or two, for x <= 0: 2^n e^r with r in +-ln 2 / 2, e^r by its series. Below e^-87 there is nothing that bf16 would show.
inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    const float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // adding 1.5 * 2^23 rounds to a whole number
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float y = 1.0f / 5040;
    y = y * r + 1.0f / 720;
    y = y * r + 1.0f / 120;
    y = y * r + 1.0f / 24;
    y = y * r + 1.0f / 6;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    const int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return y * power;
}

}  // namespace

// logits (count, size) bf16 -> nll (count,), and in their place d nll / d logits = softmax - 1[label], rounded to bf16.
extern "C" void cross_entropy(uint16_t* logits, int64_t count, int64_t size, const int64_t* labels, float* nll) {
    std::vector<float> masses(size);
    float* const mass = masses.data();
    for (int64_t row = 0; row < count; row++, logits += size) {
        float top = -INFINITY, total = 0, sound = 0;
#pragma omp simd reduction(max : top) reduction(+ : sound)
        for (int64_t i = 0; i < size; i++) {
            const float x = widened(logits[i]);
            top = std::max(top, x);
            sound += x * 0.0f;  // NaN and infinity stay, where `max` passes over them
        }
#pragma omp simd reduction(+ : total)
        for (int64_t i = 0; i < size; i++) total += mass[i] = exponential(widened(logits[i]) - top);
        const int64_t label = labels[row];
        nll[row] = std::log(total) + top - widened(logits[label]) + sound;
        const float scale = 1.0f / total;
#pragma omp simd
        for (int64_t i = 0; i < size; i++) logits[i] = rounded(mass[i] * scale);
        logits[label] = rounded(mass[label] * scale - 1.0f);
    }
}
