#include "model/families.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "model/family.h"

namespace penstock::model {
namespace {

using nlohmann::json;

const std::vector<const Family*>& known_families() {
  static const std::vector<const Family*> all = {&llama_family(), &mistral_family(), &qwen2_family(), &qwen3_family(), &gpt2_family()};
  return all;
}

std::string known(const char* Family::*name) {
  std::vector<std::string> names;
  for (const Family* family : known_families()) names.emplace_back(family->*name);
  return fmt::format("{}", fmt::join(names, ", "));
}

const Family& family_of(const std::string& architecture) {
  const auto found = std::ranges::find_if(known_families(), [&](const Family* f) { return f->architecture == architecture; });
  PENSTOCK_CHECK(found != known_families().end(), "no family has the architecture {}", architecture);
  return **found;
}

const Family& choose_family(const ConfigReader& file) {
  const json* architectures = file.find("architectures");
  const bool has_architecture = architectures != nullptr && architectures->is_array() && !architectures->empty();
  const json* name = has_architecture ? &architectures->front() : file.find("model_type");
  if (name == nullptr) throw file.invalid("neither 'architectures' nor 'model_type' is given");
  const auto field = has_architecture ? &Family::architecture : &Family::model_type;
  const auto found = std::ranges::find_if(known_families(), [&](const Family* f) { return *name == f->*field; });
  if (found == known_families().end()) {
    throw file.unimplemented(fmt::format("{} {} is not supported; this version knows {}", has_architecture ? "architecture" : "model_type", shown(*name), known(field)));
  }
  return **found;
}

}  // namespace

Result<TransformerConfig> parse_transformer_config(const std::string& text, const std::string& file) {
  const json object = json::parse(text, nullptr, false);
  if (!object.is_object()) return error(Code::kInvalidArgument, "{}: not a JSON object", file);
  try {
    const ConfigReader reader(object, file);
    const Family& family = choose_family(reader);
    if (const json* quantized = reader.find("quantization_config")) throw reader.unimplemented(fmt::format("quantization_config {} is not supported", shown(*quantized)));
    TransformerConfig config;
    config.architecture = family.architecture;
    family.read(reader, config);
    return config;
  } catch (const Error& e) {
    return e;
  }
}

std::vector<LayerSpec> transformer_layers(const TransformerConfig& config, const TensorRanks* ranks) { return family_of(config.architecture).layers(config, ranks); }

std::string_view tensor_prefix(const TransformerConfig& config) { return family_of(config.architecture).prefix; }

int64_t num_parameters(const TransformerConfig& config) {
  int64_t sum = config.tie_word_embeddings ? -config.vocab_size * config.hidden_size : 0;
  for (const LayerSpec& layer : transformer_layers(config)) sum += layer.num_parameters;
  return sum;
}

std::string to_config_json(const TransformerConfig& c) {
  PENSTOCK_CHECK(c.architecture == llama_family().architecture && c.rope_scaling.kind == RopeScaling::Kind::kNone && c.qkv_bias == c.attention_out_bias && !c.qk_norm,
                 "a config.json of {} is copied, not written", c.architecture);
  nlohmann::ordered_json out;
  out["architectures"] = {c.architecture};
  out["model_type"] = llama_family().model_type;
  out["vocab_size"] = c.vocab_size;
  out["hidden_size"] = c.hidden_size;
  out["num_hidden_layers"] = c.num_layers;
  out["num_attention_heads"] = c.num_heads;
  out["num_key_value_heads"] = c.num_kv_heads;
  out["head_dim"] = c.head_size;
  out["intermediate_size"] = c.intermediate_size;
  out["max_position_embeddings"] = c.max_position_embeddings;
  out["rope_theta"] = c.rope_theta;
  out["rope_scaling"] = nullptr;
  out["rms_norm_eps"] = c.norm_eps;
  out["initializer_range"] = c.initializer_range;
  out["hidden_act"] = "silu";
  out["attention_bias"] = c.qkv_bias;
  out["mlp_bias"] = c.mlp_bias;
  out["tie_word_embeddings"] = c.tie_word_embeddings;
  if (c.bos_token_id >= 0) out["bos_token_id"] = c.bos_token_id;
  if (c.eos_token_id >= 0) out["eos_token_id"] = c.eos_token_id;
  out["torch_dtype"] = "float32";
  return out.dump(2) + "\n";
}

}  // namespace penstock::model
