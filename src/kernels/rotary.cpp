#include "kernels/rotary.h"

#include <cmath>

#include "kernels/simd.h"

namespace penstock::kernels {

std::vector<double> rotary_frequencies(int64_t head_size, double theta) {
  std::vector<double> frequencies(static_cast<size_t>(head_size / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) frequencies[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_size));
  return frequencies;
}

RotaryTable::RotaryTable(int64_t max_positions, const std::vector<double>& frequencies, double scale)
    : max_positions_(max_positions),
      half_(static_cast<int64_t>(frequencies.size())),
      cos_(static_cast<size_t>(max_positions * half_)),
      sin_(static_cast<size_t>(max_positions * half_)) {
  for (int64_t i = 0; i < half_; ++i) {
    for (int64_t position = 0; position < max_positions; ++position) {
      const double angle = static_cast<double>(position) * frequencies[static_cast<size_t>(i)];
      cos_[static_cast<size_t>(position * half_ + i)] = static_cast<float>(scale * std::cos(angle));
      sin_[static_cast<size_t>(position * half_ + i)] = static_cast<float>(scale * std::sin(angle));
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
