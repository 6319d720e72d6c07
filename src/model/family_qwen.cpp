// Qwen2 and 2.5: Llama with biases on queries, keys and values. Qwen3: without those, with a norm on each query and key head.
#include "model/family.h"
#include "model/llama_layers.h"

namespace penstock::model {
namespace {

void read_shape(const ConfigReader& file, int64_t default_head_size, TransformerConfig& config) {
  read_llama_shape(file, {.num_kv_heads = 32, .head_size = default_head_size, .max_position_embeddings = 32768}, config);
  // Layers from max_window_layers on slide; as we do not compute windows, one of them bounds the sequence.
  const int64_t first = file.integer("max_window_layers", 0, int64_t{1} << 31, 28);
  if (file.boolean("use_sliding_window", false) && first < config.num_layers) {
    config.sliding_window = file.integer("sliding_window", 1, int64_t{1} << 31, 4096);
  }
}

void read_qwen2(const ConfigReader& file, TransformerConfig& config) {
  read_shape(file, 0, config);
  config.qkv_bias = true;
}

void read_qwen3(const ConfigReader& file, TransformerConfig& config) {
  read_shape(file, 128, config);
  config.qkv_bias = config.attention_out_bias = file.boolean("attention_bias", false);
  config.qk_norm = true;
}

}  // namespace

const Family& qwen2_family() {
  static const Family family{"Qwen2ForCausalLM", "qwen2", "model.", read_qwen2, llama_layers};
  return family;
}

const Family& qwen3_family() {
  static const Family family{"Qwen3ForCausalLM", "qwen3", "model.", read_qwen3, llama_layers};
  return family;
}

}  // namespace penstock::model
