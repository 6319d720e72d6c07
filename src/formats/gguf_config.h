#pragma once
// The metadata that describes a model's layers in a GGUF file, as a config.json and back.
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "formats/gguf_file.h"

namespace penstock::formats {

using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

// The config.json of the same model: what the file does not say is absent. `rope_factors`: the values of the tensor rope_freqs.weight; empty
// where the file has none. Throws Error kDataLoss or kUnimplemented naming the key: lists with
// a number for each block, experts, rotation of a part of the head, rope scalings other than linear, yarn and Llama 3's.
[[nodiscard]] std::string config_of_gguf(const GgufHeader& header, std::span<const float> rope_factors);

// What a GGUF file says of a model with this config.json, architecture included, and the frequency factors of Llama 3's rope scaling, which
// GGUF keeps as the tensor rope_freqs.weight (else empty). Throws Error kInvalidArgument or kUnimplemented naming `file` and the key.
struct GgufConfig {
  GgufMetadata metadata;
  std::vector<float> rope_factors;
};
[[nodiscard]] GgufConfig gguf_of_config(const std::string& json, const std::string& file);

inline constexpr const char* kRopeFactors = "rope_freqs.weight";

}  // namespace penstock::formats
