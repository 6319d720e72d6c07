// Llama 1 to 3.x, SmolLM and others that call themselves Llama.
#include "model/family.h"
#include "model/llama_layers.h"

namespace penstock::model {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 24;  // of any one dimension: beyond it a file is nonsense, not a model

void read(const ConfigReader& file, TransformerConfig& config) {
  read_llama_shape(file, {}, config);
  config.qkv_bias = config.attention_out_bias = file.boolean("attention_bias", false);
  config.mlp_bias = file.boolean("mlp_bias", false);
}

}  // namespace

void read_llama_shape(const ConfigReader& file, const LlamaDefaults& defaults, TransformerConfig& c) {
  if (file.text("hidden_act", "silu") != "swish") file.only("hidden_act", "silu");  // two names of one function
  c.vocab_size = file.required_integer("vocab_size", 1, kMaxSize);
  c.hidden_size = file.required_integer("hidden_size", 1, kMaxSize);
  c.num_layers = file.required_integer("num_hidden_layers", 1, 10000);
  c.num_heads = file.required_integer("num_attention_heads", 1, kMaxSize);
  c.intermediate_size = file.required_integer("intermediate_size", 1, kMaxSize);
  c.num_kv_heads = file.integer("num_key_value_heads", 1, kMaxSize, defaults.num_kv_heads > 0 ? defaults.num_kv_heads : c.num_heads);
  c.head_size = file.integer("head_dim", 2, 4096, defaults.head_size > 0 ? defaults.head_size : c.hidden_size / c.num_heads);
  c.max_position_embeddings = file.integer("max_position_embeddings", 1, kMaxSize, defaults.max_position_embeddings);
  c.norm_eps = file.positive("rms_norm_eps", 1e-6);
  c.initializer_range = file.positive("initializer_range", 0.02);
  c.tie_word_embeddings = file.boolean("tie_word_embeddings", false);
  c.bos_token_id = file.token("bos_token_id");
  c.eos_token_id = file.token("eos_token_id");
  if (c.num_heads % c.num_kv_heads != 0) {
    throw file.invalid(fmt::format("num_attention_heads {} is not a multiple of num_key_value_heads {}", c.num_heads, c.num_kv_heads));
  }
  if (c.head_size < 2 || c.head_size % 2 != 0) throw file.invalid(fmt::format("the head size {} is not an even number >= 2; rotary positions need pairs", c.head_size));
  read_rope(file, c);
}

const Family& llama_family() {
  static const Family family{"LlamaForCausalLM", "llama", "model.", read, llama_layers};
  return family;
}

}  // namespace penstock::model
