#pragma once
// From logits to a token id.
#include <cstdint>
#include <span>

namespace penstock::engine {

struct SamplingChoice {
  double temperature = 1;  // 0 = greedy
  int top_k = 0;           // 0 = off
  double top_p = 1;        // 1 = off
  uint64_t seed = 0;
  int64_t position = 0;    // of the sampled token in its sequence
};

// Greedy: the largest logit, the lowest id among equals. Otherwise softmax(logits / temperature) cut to the top_k most likely ids, then to
// the smallest set of them whose probability reaches top_p (Holtzman et al. 2020, arXiv 1904.09751), and drawn with a number that depends on
// (seed, position) alone: the same request gives the same text whatever else runs.
// Threads: any; pure.
[[nodiscard]] int32_t sample(std::span<const float> logits, const SamplingChoice& choice);

// In [0, 1): a function of (seed, position), equal on every machine.
[[nodiscard]] double uniform_at(uint64_t seed, int64_t position);

}  // namespace penstock::engine
