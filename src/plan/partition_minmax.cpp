#include "plan/partition_minmax.h"

#include <bit>
#include <limits>

namespace penstock::plan {

namespace {

constexpr double kImpossible = std::numeric_limits<double>::infinity();

class MinMax {
 public:
  MinMax(std::span<const double> weight, std::span<const double> memory, double memory_limit, int num_stages)
      : weight_(weight), memory_(memory), memory_limit_(memory_limit), stages_(static_cast<size_t>(num_stages)), layers_(weight.size() - 1) {}

  // Bisects over the bits of the limit: non-negative doubles are ordered as their bits are, so the answer is exact.
  std::optional<Boundaries> run() const {
    if (!fits(weight_[layers_])) return std::nullopt;
    uint64_t low = 0, high = std::bit_cast<uint64_t>(weight_[layers_]);
    while (low < high) {
      const uint64_t middle = low + (high - low) / 2;
      if (fits(std::bit_cast<double>(middle))) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return most_even_cut(std::bit_cast<double>(low));
  }

 private:
  [[nodiscard]] bool may_stand(size_t first, size_t last, double limit) const {
    return weight_[last] - weight_[first] <= limit && (memory_limit_ <= 0 || memory_[last] - memory_[first] <= memory_limit_);
  }

  // Filling each stage up to the limit needs the fewest stages. Stages that are then left over can always be filled by splitting others, as
  // there are at least as many layers as stages.
  [[nodiscard]] bool fits(double limit) const {
    size_t first = 0;
    for (size_t stage = 0; stage < stages_ && first < layers_; ++stage) {
      size_t last = first;
      while (last < layers_ && may_stand(first, last + 1, limit)) ++last;
      if (last == first) return false;
      first = last;
    }
    return first == layers_;
  }

  // best[layer], stage by stage from the last: the smallest sum of squares when the stages from here on hold the layers from `layer` on and
  // none exceeds a limit; cut[stage][layer]: where that first stage ends.
  [[nodiscard]] Boundaries most_even_cut(double limit) const {
    std::vector<double> best(layers_ + 1, kImpossible);
    best[layers_] = 0;  // no stage left, no layer left
    std::vector<std::vector<int>> cut(stages_, std::vector<int>(layers_ + 1, -1));
    for (size_t stage = stages_; stage-- > 0;) {
      std::vector<double> with_stage(layers_ + 1, kImpossible);
      for (size_t first = 0; first < layers_; ++first) {
        for (size_t last = first + 1; last <= layers_ && may_stand(first, last, limit); ++last) {
          const double weight = weight_[last] - weight_[first];
          const double cost = weight * weight + best[last];
          if (cost == kImpossible || cost > with_stage[first]) continue;
          with_stage[first] = cost;
          cut[stage][first] = static_cast<int>(last);
        }
      }
      best = std::move(with_stage);
    }
    Boundaries boundaries = {0};
    for (size_t stage = 0; stage < stages_; ++stage) boundaries.push_back(cut[stage][static_cast<size_t>(boundaries.back())]);
    return boundaries;
  }

  const std::span<const double> weight_, memory_;
  const double memory_limit_;
  const size_t stages_, layers_;
};

}  // namespace

std::optional<Boundaries> minmax_cut(std::span<const double> weight, std::span<const double> memory, double memory_limit, int num_stages) {
  return MinMax(weight, memory, memory_limit, num_stages).run();
}

}  // namespace penstock::plan
