// GPT-2 (Radford et al. 2019). Its dropout is not applied.
#include "model/family.h"
#include "model/gpt2_layers.h"

namespace penstock::model {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 24;

void read(const ConfigReader& file, TransformerConfig& c) {
  const std::string activation = file.text("activation_function", "gelu_new");
  if (activation != "gelu_new" && activation != "gelu_pytorch_tanh") {  // two names of one function
    throw file.unimplemented(fmt::format("activation_function \"{}\" is not supported; this version computes gelu_new", activation));
  }
  file.only("scale_attn_weights", true);
  file.only("scale_attn_by_inverse_layer_idx", false);
  file.only("add_cross_attention", false);
  c.vocab_size = file.required_integer("vocab_size", 1, kMaxSize);
  c.hidden_size = file.required_integer("n_embd", 1, kMaxSize);
  c.num_layers = file.required_integer("n_layer", 1, 10000);
  c.num_heads = file.required_integer("n_head", 1, kMaxSize);
  c.num_kv_heads = c.num_heads;
  c.head_size = c.hidden_size / c.num_heads;
  c.intermediate_size = file.integer("n_inner", 1, kMaxSize, 4 * c.hidden_size);
  c.max_position_embeddings = file.integer("n_positions", 1, kMaxSize, 1024);
  c.norm_eps = file.positive("layer_norm_epsilon", 1e-5);
  c.initializer_range = file.positive("initializer_range", 0.02);
  c.tie_word_embeddings = file.boolean("tie_word_embeddings", true);
  c.bos_token_id = file.token("bos_token_id");
  c.eos_token_id = file.token("eos_token_id");
  if (c.hidden_size % c.num_heads != 0 || c.head_size % 2 != 0) {
    throw file.invalid(fmt::format("n_embd {} / n_head {} is not an even number", c.hidden_size, c.num_heads));
  }
}

}  // namespace

const Family& gpt2_family() {
  static const Family family{"GPT2LMHeadModel", "gpt2", "transformer.", read, gpt2_layers};
  return family;
}

}  // namespace penstock::model
