#pragma once
// The Llama family as a list of layers: an embedding, decoder blocks, and a head.
#include <vector>

#include "model/layer.h"
#include "model/llama_config.h"

namespace penstock::model {

// num_layers + 2 layers. Shapes: token ids [B, T] int64 (serving: [N]) -> hidden [B, T, D] -> … -> logits [B, T, V] float32
// (serving: [R, V] for the R rows that the context asks for).
[[nodiscard]] std::vector<LayerSpec> llama_layers(const LlamaConfig& config);

}  // namespace penstock::model
