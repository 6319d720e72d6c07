#include "kernels/rotary.h"

#include <cmath>

#include "kernels/simd.h"

namespace penstock::kernels {

RotaryTable::RotaryTable(int64_t max_positions, int64_t head_size, double theta)
    : max_positions_(max_positions),
      half_(head_size / 2),
      cos_(static_cast<size_t>(max_positions * half_)),
      sin_(static_cast<size_t>(max_positions * half_)) {
  for (int64_t i = 0; i < half_; ++i) {
    const double frequency = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_size));
    for (int64_t position = 0; position < max_positions; ++position) {
      const double angle = static_cast<double>(position) * frequency;
      cos_[static_cast<size_t>(position * half_ + i)] = static_cast<float>(std::cos(angle));
      sin_[static_cast<size_t>(position * half_ + i)] = static_cast<float>(std::sin(angle));
    }
  }
}

PENSTOCK_CLONES void rotate_heads(const float* in, float* out, int64_t heads, int64_t half, const float* cos, const float* sin,
                                  Rotation direction, float scale) {
  const float sign = direction == Rotation::kForward ? 1.0f : -1.0f;
  for (int64_t h = 0; h < heads; ++h, in += 2 * half, out += 2 * half) {
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
      const float a = in[i] * scale, b = in[i + half] * scale, s = sign * sin[i];
      out[i] = a * cos[i] - b * s;
      out[i + half] = b * cos[i] + a * s;
    }
  }
}

}  // namespace penstock::kernels
