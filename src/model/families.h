#pragma once
// The models that we know: from a Hugging Face config.json to layers.
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "model/layer.h"
#include "model/tensor_ranks.h"
#include "model/transformer_config.h"

namespace penstock::model {

// `architectures` or, where that is absent, `model_type` chooses the family. kInvalidArgument names the key, what was expected and what was found;
// kUnimplemented an architecture or an option that this version does not compute (quantized weights, another activation, another rope_scaling).
[[nodiscard]] Result<TransformerConfig> parse_transformer_config(const std::string& json, const std::string& file);

// The model as a list of layers: an embedding, num_layers decoder blocks, and a head. Shapes: token ids [B, T] int64 (serving: [N]) -> hidden
// [B, T, D] -> … -> logits [B, T, V] float32 (serving: [R, V] for the R rows that the context asks for).
// `ranks`: those that share each layer, which then has this rank's part of the weights (plan/tensor_part.h); null: none. They outlive the layers.
// Throws Error kInvalidArgument where the model cannot be divided among so many.
[[nodiscard]] std::vector<LayerSpec> transformer_layers(const TransformerConfig& config, const TensorRanks* ranks = nullptr);

// Of the whole model, a tied head counted once.
[[nodiscard]] int64_t num_parameters(const TransformerConfig& config);

// The config.json of a float32 Llama checkpoint. REQUIRES: that architecture, no rope scaling.
[[nodiscard]] std::string to_config_json(const TransformerConfig& config);

// What tensor names begin with, but those of the head: "model.". Checkpoints of a bare model leave it out.
[[nodiscard]] std::string_view tensor_prefix(const TransformerConfig& config);

}  // namespace penstock::model
