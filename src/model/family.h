#pragma once
// What a family of models is made of. Private to src/model: one file family_NAME.cpp each, and families.cpp, which lists them.
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "model/config_reader.h"
#include "model/layer.h"
#include "model/tensor_ranks.h"
#include "model/transformer_config.h"

namespace penstock::model {

struct Family {
  const char* architecture;  // "Qwen2ForCausalLM"
  const char* model_type;    // "qwen2"
  const char* prefix;        // of all tensors but the head's; files of the bare model leave it out
  // Fills the configuration; throws Error naming the key, kUnimplemented for an option that this version does not compute.
  void (*read)(const ConfigReader& file, TransformerConfig& config);
  std::vector<LayerSpec> (*layers)(const TransformerConfig& config, const TensorRanks* ranks);
};

[[nodiscard]] const Family& llama_family();
[[nodiscard]] const Family& mistral_family();
[[nodiscard]] const Family& qwen2_family();
[[nodiscard]] const Family& qwen3_family();
[[nodiscard]] const Family& gpt2_family();

// What is the same in all families whose blocks are Llama's; the defaults of absent keys are the family's.
struct LlamaDefaults {
  int64_t num_kv_heads = 0;  // 0 = num_attention_heads
  int64_t head_size = 0;     // 0 = hidden_size / num_attention_heads
  int64_t max_position_embeddings = 2048;
};
void read_llama_shape(const ConfigReader& file, const LlamaDefaults& defaults, TransformerConfig& config);

// rope_theta and rope_scaling, or rope_parameters, which holds both; needs max_position_embeddings.
void read_rope(const ConfigReader& file, TransformerConfig& config);

}  // namespace penstock::model
