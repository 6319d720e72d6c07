#pragma once
// The layers of GPT-2: learned positions, LayerNorm, attention with as many key heads as query heads, GELU, a bias everywhere. Private to
// src/model; families.h is the door.
#include <vector>

#include "model/layer.h"
#include "model/tensor_ranks.h"
#include "model/transformer_config.h"

namespace penstock::model {

[[nodiscard]] std::vector<LayerSpec> gpt2_layers(const TransformerConfig& config, const TensorRanks* ranks);

}  // namespace penstock::model
