#pragma once
// Rotary position embedding (Su et al. 2021, arXiv 2104.09864), in the half-split form of Hugging Face Llama checkpoints:
// the pair of element i is element i + K/2.
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace c10 {
struct Device;
}

namespace penstock::kernels {

// theta^(−2i/K) for i in [0, K/2): radians by which one position turns pair i.
[[nodiscard]] std::vector<double> rotary_frequencies(int64_t head_size, double theta);

struct RotaryTensors;

// cos and sin of every position times every frequency; computed in float64, stored in float32.
class RotaryTable {
 public:
  // One frequency for each pair of a head. `scale` multiplies every cos and sin, and so the scores by its square (YaRN).
  RotaryTable(int64_t max_positions, const std::vector<double>& frequencies, double scale = 1);
  RotaryTable(int64_t max_positions, int64_t head_size, double theta) : RotaryTable(max_positions, rotary_frequencies(head_size, theta)) {}

  [[nodiscard]] int64_t max_positions() const { return max_positions_; }
  [[nodiscard]] int64_t half() const { return half_; }
  [[nodiscard]] const float* cos(int64_t position) const { return cos_.data() + position * half_; }
  [[nodiscard]] const float* sin(int64_t position) const { return sin_.data() + position * half_; }

 private:
  struct OnDevices;  // rotary_tensors.h
  static std::shared_ptr<OnDevices> no_devices();
  friend RotaryTensors rotary_tensors(const RotaryTable& table, const c10::Device& device);

  int64_t max_positions_;
  int64_t half_;
  std::vector<float> cos_, sin_;  // [max_positions, K/2]
  std::shared_ptr<OnDevices> on_devices_ = no_devices();
};

enum class Rotation { kForward, kInverse };

// Rotates `heads` heads of K = 2·half elements that lie one after another, all at one position, from `in` to `out`
// (may be the same), and multiplies by `scale`. kInverse is the gradient of kForward: with tables of scale 1 also its inverse.
void rotate_heads(const float* in, float* out, int64_t heads, int64_t half, const float* cos, const float* sin, Rotation direction,
                  float scale);

}  // namespace penstock::kernels
