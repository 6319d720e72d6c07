#pragma once
// The shape of a decoder-only transformer, whatever its family.
#include <cstdint>
#include <string>

#include "kernels/attention.h"
#include "model/rope_scaling.h"
#include "plan/tensor_part.h"

namespace penstock::model {

struct TransformerConfig {
  std::string architecture = "LlamaForCausalLM";  // as `architectures` of a config.json names it; families.h knows which there are
  int64_t vocab_size = 0;               // V
  int64_t hidden_size = 0;              // D
  int64_t num_layers = 0;
  int64_t num_heads = 0;                // H
  int64_t num_kv_heads = 0;             // G, divides H
  int64_t head_size = 0;                // K, even; D / H unless the file says otherwise
  int64_t intermediate_size = 0;        // I
  int64_t max_position_embeddings = 0;  // tokens
  int64_t sliding_window = 0;           // tokens that a position sees, itself included; 0 = all before it. Not computed: it bounds the sequence
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  double norm_eps = 1e-5;
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;
  bool attention_out_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;                 // RMSNorm of each query and key head
  int64_t bos_token_id = -1;            // -1 = none
  int64_t eos_token_id = -1;

  [[nodiscard]] kernels::AttentionShape attention() const { return {num_heads, num_kv_heads, head_size}; }
  // What ranks that share its layers divide.
  [[nodiscard]] plan::TensorSizes tensor_sizes() const { return {vocab_size, num_heads, num_kv_heads, intermediate_size}; }
  // The longest sequence that we compute as the model means it.
  [[nodiscard]] int64_t max_sequence() const {
    return sliding_window > 0 && sliding_window < max_position_embeddings ? sliding_window : max_position_embeddings;
  }
};

}  // namespace penstock::model
