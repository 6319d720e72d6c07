// Mistral: Llama with heads of their own size, and in its first version a window that attention slides over the text.
#include "model/family.h"
#include "model/llama_layers.h"

namespace penstock::model {
namespace {

void read(const ConfigReader& file, TransformerConfig& config) {
  read_llama_shape(file, {.num_kv_heads = 8, .max_position_embeddings = 131072}, config);
  const bool given = file.object().contains("sliding_window");  // null = none; absent = the default of transformers
  config.sliding_window = file.integer("sliding_window", 1, int64_t{1} << 31, given ? 0 : 4096);
}

}  // namespace

const Family& mistral_family() {
  static const Family family{"MistralForCausalLM", "mistral", "model.", read, llama_layers};
  return family;
}

}  // namespace penstock::model
