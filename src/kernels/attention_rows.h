#pragma once
// The inner steps of attention on plain memory, shared by the training and the serving form. Private to src/kernels.
#include <cstdint>

namespace penstock::kernels {

// A matrix in memory: its first element and the distance between its rows.
struct ConstRows {
  const float* data;
  int64_t stride;
};

// Rows that are worked on at once: small enough that the scores above the diagonal which are computed in vain stay few.
inline constexpr int64_t kQueryChunk = 64;

// What each of consecutive rows may see of `keys` consecutive keys: row r sees keys first_key(r) … first_visible + r.
struct Visibility {
  int64_t keys = 0;
  int64_t first_visible = 0;
  const int32_t* starts = nullptr;  // by row: the position of the first key that it sees; null = all see key 0
  int32_t origin = 0;               // the position of key 0

  [[nodiscard]] int64_t first_key(int64_t row) const { return starts == nullptr ? 0 : starts[row] - origin; }
};

// In place on scores [rows, keys], row-major; what a row does not see becomes 0.
// Turns each row into its softmax; writes log Σ exp of each row to log_sums unless it is null.
void causal_softmax(float* scores, int64_t rows, const Visibility& visibility, float* log_sums);

// In place on scores [rows, keys]: exp(score − log_sum of its row), 0 where not visible.
void causal_softmax_again(float* scores, int64_t rows, const Visibility& visibility, const float* log_sums);

// out [rows, K] = softmax(q [rows, K] · k [keys, K]ᵀ) · v [keys, K]. `scores` is scratch of rows · keys floats.
void attend(ConstRows q, ConstRows k, ConstRows v, int64_t rows, const Visibility& visibility, int64_t head_size, float* scores, float* out,
            int64_t out_stride, float* log_sums);

}  // namespace penstock::kernels
