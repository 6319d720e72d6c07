#include "model/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace penstock::model {
namespace {

constexpr double kTurn = 2 * std::numbers::pi;

double llama3(const RopeScaling& s, double frequency) {
  const auto original = static_cast<double>(s.original_length);
  const double wavelength = kTurn / frequency;
  if (wavelength < original / s.high_freq_factor) return frequency;
  if (wavelength > original / s.low_freq_factor) return frequency / s.factor;
  const double kept = (original / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1 - kept) * frequency / s.factor + kept * frequency;
}

// The pair, as a real number, that makes so many turns over the original length.
double pair_of_turns(const RopeScaling& s, double turns, int64_t head_size, double theta) {
  return static_cast<double>(head_size) * std::log(static_cast<double>(s.original_length) / (turns * kTurn)) / (2 * std::log(theta));
}

// Pairs below `low` keep their frequency, pairs above `high` are divided by the factor, and those between are blended.
void yarn(const RopeScaling& s, int64_t head_size, double theta, std::vector<double>& frequencies) {
  double low = pair_of_turns(s, s.beta_fast, head_size, theta), high = pair_of_turns(s, s.beta_slow, head_size, theta);
  if (s.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(head_size - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double divided = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = frequencies[i] / s.factor * divided + frequencies[i] * (1 - divided);
  }
}

double warmth(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1; }

double yarn_scale(const RopeScaling& s) {
  if (s.attention_factor != 0) return s.attention_factor;
  if (s.mscale != 0 && s.mscale_all_dim != 0) return warmth(s.factor, s.mscale) / warmth(s.factor, s.mscale_all_dim);
  return warmth(s.factor, 1);
}

}  // namespace

ScaledFrequencies scaled_frequencies(const RopeScaling& scaling, int64_t head_size, double theta) {
  ScaledFrequencies out{kernels::rotary_frequencies(head_size, theta)};
  switch (scaling.kind) {
    case RopeScaling::Kind::kNone:
    case RopeScaling::Kind::kDynamic:
      break;
    case RopeScaling::Kind::kLinear:
      for (double& f : out.frequencies) f /= scaling.factor;
      break;
    case RopeScaling::Kind::kLlama3:
      for (double& f : out.frequencies) f = llama3(scaling, f);
      break;
    case RopeScaling::Kind::kYarn:
      yarn(scaling, head_size, theta, out.frequencies);
      out.scale = yarn_scale(scaling);
      break;
  }
  return out;
}

}  // namespace penstock::model
