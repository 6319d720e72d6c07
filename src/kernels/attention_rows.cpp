#include "kernels/attention_rows.h"

#include <algorithm>
#include <cmath>

#include "kernels/matmul.h"
#include "kernels/simd.h"

namespace penstock::kernels {

PENSTOCK_CLONES void causal_softmax(float* scores, int64_t rows, int64_t keys, int64_t first_visible, float* log_sums) {
  for (int64_t r = 0; r < rows; ++r, scores += keys) {
    const int64_t visible = std::min(keys, first_visible + r + 1);
    float top = scores[0];
#pragma omp simd reduction(max : top)
    for (int64_t i = 0; i < visible; ++i) top = scores[i] > top ? scores[i] : top;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < visible; ++i) {
      const float e = exp_fast(scores[i] - top);
      scores[i] = e;
      sum += e;
    }
    const float scale = 1.0f / sum;
#pragma omp simd
    for (int64_t i = 0; i < visible; ++i) scores[i] *= scale;
    std::fill(scores + visible, scores + keys, 0.0f);
    if (log_sums != nullptr) log_sums[r] = top + std::log(sum);
  }
}

PENSTOCK_CLONES void causal_softmax_again(float* scores, int64_t rows, int64_t keys, int64_t first_visible, const float* log_sums) {
  for (int64_t r = 0; r < rows; ++r, scores += keys) {
    const int64_t visible = std::min(keys, first_visible + r + 1);
    const float log_sum = log_sums[r];
#pragma omp simd
    for (int64_t i = 0; i < visible; ++i) scores[i] = exp_fast(scores[i] - log_sum);
    std::fill(scores + visible, scores + keys, 0.0f);
  }
}

void attend(ConstRows q, ConstRows k, ConstRows v, int64_t rows, int64_t keys, int64_t first_visible, int64_t head_size, float* scores,
            float* out, int64_t out_stride, float* log_sums) {
  sgemm(Transpose::kNo, Transpose::kYes, rows, keys, head_size, q.data, q.stride, k.data, k.stride, 0.0f, scores, keys);
  causal_softmax(scores, rows, keys, first_visible, log_sums);
  sgemm(Transpose::kNo, Transpose::kNo, rows, head_size, keys, scores, keys, v.data, v.stride, 0.0f, out, out_stride);
}

}  // namespace penstock::kernels
