#include "kernels/attention_rows.h"

#include <algorithm>
#include <cmath>

#include "kernels/matmul.h"
#include "kernels/simd.h"

namespace penstock::kernels {

PENSTOCK_CLONES void causal_softmax(float* scores, int64_t rows, const Visibility& visibility, float* log_sums) {
  const int64_t keys = visibility.keys;
  for (int64_t r = 0; r < rows; ++r, scores += keys) {
    const int64_t first = visibility.first_key(r), last = std::min(keys, visibility.first_visible + r + 1);
    float top = scores[first];
#pragma omp simd reduction(max : top)
    for (int64_t i = first; i < last; ++i) top = scores[i] > top ? scores[i] : top;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = first; i < last; ++i) {
      const float e = exp_fast(scores[i] - top);
      scores[i] = e;
      sum += e;
    }
    const float scale = 1.0f / sum;
#pragma omp simd
    for (int64_t i = first; i < last; ++i) scores[i] *= scale;
    std::fill(scores, scores + first, 0.0f);
    std::fill(scores + last, scores + keys, 0.0f);
    if (log_sums != nullptr) log_sums[r] = top + std::log(sum);
  }
}

PENSTOCK_CLONES void causal_softmax_again(float* scores, int64_t rows, const Visibility& visibility, const float* log_sums) {
  const int64_t keys = visibility.keys;
  for (int64_t r = 0; r < rows; ++r, scores += keys) {
    const int64_t first = visibility.first_key(r), last = std::min(keys, visibility.first_visible + r + 1);
    const float log_sum = log_sums[r];
#pragma omp simd
    for (int64_t i = first; i < last; ++i) scores[i] = exp_fast(scores[i] - log_sum);
    std::fill(scores, scores + first, 0.0f);
    std::fill(scores + last, scores + keys, 0.0f);
  }
}

void attend(ConstRows q, ConstRows k, ConstRows v, int64_t rows, const Visibility& visibility, int64_t head_size, float* scores, float* out,
            int64_t out_stride, float* log_sums) {
  const int64_t keys = visibility.keys;
  sgemm(Transpose::kNo, Transpose::kYes, rows, keys, head_size, q.data, q.stride, k.data, k.stride, 0.0f, scores, keys);
  causal_softmax(scores, rows, visibility, log_sums);
  sgemm(Transpose::kNo, Transpose::kNo, rows, head_size, keys, scores, keys, v.data, v.stride, 0.0f, out, out_stride);
}

}  // namespace penstock::kernels
