#pragma once
// The layers of all families whose blocks are Llama's: RMSNorm, rotary positions, grouped-query attention, SwiGLU; by option biases and norms of
// query and key heads. Private to src/model; families.h is the door.
#include <vector>

#include "model/layer.h"
#include "model/tensor_ranks.h"
#include "model/transformer_config.h"

namespace penstock::model {

[[nodiscard]] std::vector<LayerSpec> llama_layers(const TransformerConfig& config, const TensorRanks* ranks);

}  // namespace penstock::model
