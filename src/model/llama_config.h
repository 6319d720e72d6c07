#pragma once
// The shape of a Llama-family model, from and to a Hugging Face config.json.
#include <cstdint>
#include <string>

#include "base/error.h"
#include "kernels/attention.h"

namespace penstock::model {

struct LlamaConfig {
  int64_t vocab_size = 0;               // V
  int64_t hidden_size = 0;              // D
  int64_t num_layers = 0;
  int64_t num_heads = 0;                // H
  int64_t num_kv_heads = 0;             // G, divides H
  int64_t head_size = 0;                // K, even; D / H unless the file says otherwise
  int64_t intermediate_size = 0;        // I
  int64_t max_position_embeddings = 0;  // tokens
  double rope_theta = 10000;
  double rms_norm_eps = 1e-5;
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  int64_t bos_token_id = -1;            // -1 = none
  int64_t eos_token_id = -1;

  [[nodiscard]] kernels::AttentionShape attention() const { return {num_heads, num_kv_heads, head_size}; }
  // Of one decoder block; of the whole model (a tied head counted once).
  [[nodiscard]] int64_t block_parameters() const;
  [[nodiscard]] int64_t parameters() const;
};

// kInvalidArgument names the key, what was expected and what was found; kUnimplemented names an architecture or an option that this
// version does not compute (another architecture, rope_scaling, attention_bias, mlp_bias, another activation).
[[nodiscard]] Result<LlamaConfig> parse_llama_config(const std::string& json, const std::string& file);

// The config.json of a float32 checkpoint.
[[nodiscard]] std::string to_config_json(const LlamaConfig& config);

}  // namespace penstock::model
