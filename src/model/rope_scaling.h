#pragma once
// Rotary positions of models that were stretched beyond the length they were first trained on; `rope_scaling` of a config.json.
#include <cstdint>
#include <vector>

#include "kernels/rotary.h"

namespace penstock::model {

// Defaults are those of transformers.
struct RopeScaling {
  enum class Kind {
    kNone,
    kLinear,   // positions divided by `factor` (Chen et al. 2023, arXiv 2306.15595)
    kDynamic,  // the base grows with sequences longer than max_position_embeddings; up to it, which we do not exceed, as kNone
    kLlama3,   // long wavelengths divided by `factor`, short ones left (Llama 3.1)
    kYarn,     // the same by rotations within the original length, and warmer scores (Peng et al. 2023, arXiv 2309.00071)
  };
  Kind kind = Kind::kNone;
  double factor = 1;
  int64_t original_length = 0;  // tokens
  double low_freq_factor = 1, high_freq_factor = 4;            // kLlama3
  double beta_fast = 32, beta_slow = 1;                        // kYarn
  double attention_factor = 0, mscale = 0, mscale_all_dim = 0; // kYarn; 0 = not given
  bool truncate = true;                                        // kYarn
};

// Frequencies of the pairs of a head of `head_size`, and what cos and sin are multiplied by.
struct ScaledFrequencies {
  std::vector<double> frequencies;
  double scale = 1;
};
[[nodiscard]] ScaledFrequencies scaled_frequencies(const RopeScaling& scaling, int64_t head_size, double theta);

}  // namespace penstock::model
