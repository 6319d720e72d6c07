#include "formats/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "formats/gguf_names.h"

namespace penstock::formats {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMaxSize = int64_t{1} << 24;
constexpr int64_t kLlama3Length = 8192;  // what every Llama 3.x was first trained on
constexpr double kLowFrequency = 1, kHighFrequency = 4;

// What Llama 3's rope scaling divides the frequency of each pair by (model/rope_scaling.cpp has the formula's other form).
std::vector<float> llama3_factors(int64_t head_size, double theta, double factor, double low, double high, int64_t original_length) {
  std::vector<float> factors;
  for (int64_t i = 0; i < head_size / 2; ++i) {
    const double wavelength = 2 * std::numbers::pi * std::pow(theta, 2.0 * static_cast<double>(i) / static_cast<double>(head_size));
    const double turns = static_cast<double>(original_length) / wavelength;
    const double kept = std::clamp((turns - low) / (high - low), 0.0, 1.0);
    factors.push_back(static_cast<float>(1 / ((1 - kept) / factor + kept)));
  }
  return factors;
}

// One file's metadata under the prefix of its architecture.
class Reader {
 public:
  Reader(const GgufHeader& header, std::span<const float> rope_factors) : header_(header), shape_(gguf_shape(header)), rope_factors_(rope_factors) {}

  Json config() {
    if (integer("expert_count", 0, kMaxSize).value_or(0) > 0) throw header_.unsupported(key("expert_count"), "a mixture of experts");
    const GgufTensor* table = header_.find_tensor("token_embd.weight");
    if (table == nullptr || table->shape.size() != 2) throw error(Code::kDataLoss, "{}: expected a tensor token_embd.weight of 2 dims", header_.file);
    out_["vocab_size"] = table->shape[0];
    if (shape_.architecture == "gpt2") read_gpt2();
    else read_llama();
    out_["tie_word_embeddings"] = header_.find_tensor("output.weight") == nullptr;
    for (const char* name : {"bos_token_id", "eos_token_id"}) {
      if (const auto id = header_.integer(std::string("tokenizer.ggml.") + name, 0, INT32_MAX)) out_[name] = *id;
    }
    out_["torch_dtype"] = table->type == GgmlType::kBF16 ? "bfloat16" : table->type == GgmlType::kF16 ? "float16" : "float32";
    return out_;
  }

 private:
  [[nodiscard]] std::string key(const char* name) const { return shape_.architecture + "." + name; }

  [[nodiscard]] std::optional<int64_t> integer(const char* name, int64_t min, int64_t max) const {
    const GgufValue* value = header_.find(key(name));
    if (value != nullptr && value->kind == GgufKind::kList) throw header_.unsupported(key(name), "a number for each block");
    return header_.integer(key(name), min, max);
  }
  [[nodiscard]] int64_t required(const char* name, int64_t max) const {
    const auto value = integer(name, 1, max);
    if (!value) throw header_.wrong(key(name), "a number");
    return *value;
  }
  [[nodiscard]] double required_real(const char* name) const {
    const auto value = header_.real(key(name));
    if (!value) throw header_.wrong(key(name), "a number");
    return *value;
  }
  [[nodiscard]] bool has(const char* tensor) const { return header_.find_tensor(tensor) != nullptr; }

  void name(const char* architecture, const char* model_type) {
    out_["architectures"] = {architecture};
    out_["model_type"] = model_type;
  }

  void read_gpt2() {
    name("GPT2LMHeadModel", "gpt2");
    out_["n_embd"] = required("embedding_length", kMaxSize);
    out_["n_layer"] = required("block_count", 10000);
    out_["n_head"] = shape_.num_heads;
    out_["n_positions"] = out_["n_ctx"] = required("context_length", kMaxSize);
    out_["n_inner"] = required("feed_forward_length", kMaxSize);
    out_["layer_norm_epsilon"] = required_real("attention.layer_norm_epsilon");
    out_["activation_function"] = "gelu_new";
  }

  void read_llama() {
    const auto window = integer("attention.sliding_window", 0, int64_t{1} << 31);
    if (shape_.architecture == "qwen2") name("Qwen2ForCausalLM", "qwen2");
    else if (shape_.architecture == "qwen3") name("Qwen3ForCausalLM", "qwen3");
    else if (window.value_or(0) > 0) name("MistralForCausalLM", "mistral");
    else name("LlamaForCausalLM", "llama");
    const int64_t hidden = required("embedding_length", kMaxSize);
    const int64_t head_size = integer("attention.key_length", 2, 4096).value_or(hidden / shape_.num_heads);
    if (integer("attention.value_length", 1, 4096).value_or(head_size) != head_size) {
      throw header_.unsupported(key("attention.value_length"), "another length than attention.key_length");
    }
    if (integer("rope.dimension_count", 1, 4096).value_or(head_size) != head_size) {
      throw header_.unsupported(key("rope.dimension_count"), "rotating a part of the head");
    }
    out_["hidden_size"] = hidden;
    out_["intermediate_size"] = required("feed_forward_length", kMaxSize);
    out_["num_hidden_layers"] = required("block_count", 10000);
    out_["num_attention_heads"] = shape_.num_heads;
    out_["num_key_value_heads"] = shape_.num_kv_heads;
    out_["head_dim"] = head_size;
    out_["max_position_embeddings"] = required("context_length", kMaxSize);
    out_["rms_norm_eps"] = required_real("attention.layer_norm_rms_epsilon");
    out_["rope_theta"] = header_.real(key("rope.freq_base")).value_or(10000);
    out_["rope_scaling"] = scaling(head_size);
    out_["hidden_act"] = "silu";
    if (shape_.architecture != "qwen2") out_["attention_bias"] = has("blk.0.attn_q.bias");
    if (shape_.architecture == "llama") out_["mlp_bias"] = has("blk.0.ffn_gate.bias");
    if (window.value_or(0) > 0) out_["sliding_window"] = *window;
    if (window.value_or(0) > 0 && shape_.architecture != "llama") out_["use_sliding_window"] = true;
  }

  Json scaling(int64_t head_size) const {
    const std::string type_key = key("rope.scaling.type");
    const std::string* given = header_.text(type_key);
    const auto old_factor = header_.real(key("rope.scale_linear"));
    const std::string type = given != nullptr ? *given : old_factor ? "linear" : "none";
    if (type == "none") return rope_factors_.empty() ? Json(nullptr) : llama3(head_size);
    if (!rope_factors_.empty()) throw error(Code::kUnimplemented, "{}: tensor {} beside {} '{}' is not supported", header_.file, kRopeFactors, type_key, type);
    if (type != "linear" && type != "yarn") throw header_.unsupported(type_key, fmt::format("'{}'", type.substr(0, 80)));
    const auto factor = header_.real(key("rope.scaling.factor"));
    if (!factor && !old_factor) throw header_.wrong(key("rope.scaling.factor"), "a number");
    Json rope = {{"rope_type", type}, {"factor", factor ? *factor : *old_factor}};
    if (type == "linear") return rope;
    if (const auto length = integer("rope.scaling.original_context_length", 1, kMaxSize)) rope["original_max_position_embeddings"] = *length;
    for (const char* option : {"beta_fast", "beta_slow"}) {
      if (const auto value = header_.real(key("rope.scaling.yarn_") + option)) rope[option] = *value;
    }
    for (const char* option : {"rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor", "rope.scaling.attn_factor"}) {
      if (header_.real(key(option)).value_or(1) != 1) throw header_.unsupported(key(option), "anything but 1");
    }
    return rope;
  }

  // GGUF has only the factors that Llama 3's settings give; those of every Llama 3.x differ by one number.
  [[nodiscard]] Json llama3(int64_t head_size) const {
    const double factor = *std::ranges::max_element(rope_factors_);
    const int64_t length = integer("rope.scaling.original_context_length", 1, kMaxSize).value_or(kLlama3Length);
    const double theta = header_.real(key("rope.freq_base")).value_or(10000);
    const auto expected = llama3_factors(head_size, theta, factor, kLowFrequency, kHighFrequency, length);
    const bool equal = std::ranges::equal(expected, rope_factors_, [](float a, float b) { return std::abs(a - b) <= 1e-4F * a; });
    if (!equal) {
      throw error(Code::kUnimplemented, "{}: the factors of tensor {} are not those of Llama 3's rope scaling from {} tokens, and no others are supported", header_.file,
                  kRopeFactors, length);
    }
    return {{"rope_type", "llama3"}, {"factor", factor}, {"low_freq_factor", kLowFrequency}, {"high_freq_factor", kHighFrequency}, {"original_max_position_embeddings", length}};
  }

  const GgufHeader& header_;
  const GgufShape shape_;
  const std::span<const float> rope_factors_;
  Json out_;
};

// The keys of a config.json that a GGUF file has a place for.
class Writer {
 public:
  Writer(const Json& config, const std::string& file) : config_(config), file_(file) {}

  GgufConfig write() {
    const std::string type = config_.contains("model_type") && config_["model_type"].is_string() ? config_["model_type"].get<std::string>() : "";
    architecture_ = type == "mistral" ? "llama" : type;
    if (known_gguf_architectures().find(architecture_) == std::string::npos || architecture_.empty()) {
      throw error(Code::kUnimplemented, "{}: model_type '{}' has no place in a GGUF file that we write; expected gpt2, llama, mistral, qwen2 or qwen3", file_, type);
    }
    out_.metadata.emplace_back("general.architecture", gguf_text(architecture_));
    if (type == "gpt2") write_gpt2();
    else write_llama(type);
    return std::move(out_);
  }

 private:
  [[nodiscard]] const Json* find(const char* key) const {
    const auto found = config_.find(key);
    return found == config_.end() || found->is_null() ? nullptr : &*found;
  }
  [[nodiscard]] Error wrong(const char* key, const char* expected) const { return error(Code::kInvalidArgument, "{}: key '{}': expected {}", file_, key, expected); }

  [[nodiscard]] int64_t integer(const char* key, std::optional<int64_t> absent = std::nullopt) const {
    const Json* value = find(key);
    if (value == nullptr && absent) return *absent;
    if (value == nullptr || !value->is_number_integer() || *value < 1 || *value > kMaxSize) throw wrong(key, "an integer >= 1");
    return value->get<int64_t>();
  }
  [[nodiscard]] double real(const char* key, double absent) const {
    const Json* value = find(key);
    if (value == nullptr) return absent;
    if (!value->is_number() || value->get<double>() <= 0) throw wrong(key, "a number > 0");
    return value->get<double>();
  }
  void put(const char* key, GgufValue value) { out_.metadata.emplace_back(architecture_ + "." + key, std::move(value)); }

  void write_gpt2() {
    const int64_t width = integer("n_embd");
    put("block_count", gguf_u32(integer("n_layer")));
    put("context_length", gguf_u32(integer("n_positions", 1024)));
    put("embedding_length", gguf_u32(width));
    put("feed_forward_length", gguf_u32(integer("n_inner", 4 * width)));
    put("attention.head_count", gguf_u32(integer("n_head")));
    put("attention.layer_norm_epsilon", gguf_f32(real("layer_norm_epsilon", 1e-5)));
    put("vocab_size", gguf_u32(integer("vocab_size")));
  }

  void write_llama(const std::string& type) {
    const int64_t hidden = integer("hidden_size"), heads = integer("num_attention_heads");
    const int64_t head_size = integer("head_dim", type == "qwen3" ? 128 : hidden / heads);
    const int64_t length = integer("max_position_embeddings", type == "mistral" ? 131072 : type == "llama" ? 2048 : 32768);
    put("block_count", gguf_u32(integer("num_hidden_layers")));
    put("context_length", gguf_u32(length));
    put("embedding_length", gguf_u32(hidden));
    put("feed_forward_length", gguf_u32(integer("intermediate_size")));
    put("attention.head_count", gguf_u32(heads));
    put("attention.head_count_kv", gguf_u32(integer("num_key_value_heads", type == "mistral" ? 8 : type == "llama" ? heads : 32)));
    put("attention.key_length", gguf_u32(head_size));
    put("attention.value_length", gguf_u32(head_size));
    put("attention.layer_norm_rms_epsilon", gguf_f32(real("rms_norm_eps", 1e-6)));
    put("rope.dimension_count", gguf_u32(head_size));
    write_rope(head_size, length);
    put("vocab_size", gguf_u32(integer("vocab_size")));
    // Mistral's first version slides a window, also where its config.json says nothing of it.
    const bool given = config_.contains("sliding_window"), may_slide = type == "mistral" || (find("use_sliding_window") != nullptr && *find("use_sliding_window") == true);
    if (may_slide && (!given || find("sliding_window") != nullptr)) put("attention.sliding_window", gguf_u32(integer("sliding_window", 4096)));
  }

  void write_rope(int64_t head_size, int64_t length) {
    double theta = real("rope_theta", 10000);
    const Json* rope = find("rope_parameters") != nullptr ? find("rope_parameters") : find("rope_scaling");
    if (rope != nullptr && !rope->is_object()) throw wrong("rope_scaling", "an object");
    if (rope != nullptr && rope->contains("rope_theta") && (*rope)["rope_theta"].is_number()) theta = (*rope)["rope_theta"];
    put("rope.freq_base", gguf_f32(theta));
    if (rope == nullptr) return;
    const auto number = [&](const char* key, std::optional<double> absent = std::nullopt) {
      if (rope->contains(key) && (*rope)[key].is_number()) return (*rope)[key].get<double>();
      if (!absent) throw error(Code::kInvalidArgument, "{}: key 'rope_scaling.{}': expected a number", file_, key);
      return *absent;
    };
    const char* type_key = rope->contains("rope_type") ? "rope_type" : "type";
    const std::string type = rope->contains(type_key) && (*rope)[type_key].is_string() ? (*rope)[type_key].get<std::string>() : "default";
    if (type == "default" || type == "dynamic") return;  // the second changes nothing up to the model's length
    const auto original = static_cast<int64_t>(number("original_max_position_embeddings", static_cast<double>(length)));
    if (type == "llama3") {
      if (number("low_freq_factor") != kLowFrequency || number("high_freq_factor") != kHighFrequency) {
        throw error(Code::kUnimplemented, "{}: rope_scaling llama3 with other low_freq_factor and high_freq_factor than {} and {} has no place in a GGUF file", file_,
                    kLowFrequency, kHighFrequency);
      }
      put("rope.scaling.original_context_length", gguf_u32(original));
      out_.rope_factors = llama3_factors(head_size, theta, number("factor"), kLowFrequency, kHighFrequency, original);
      return;
    }
    if (type != "linear" && type != "yarn") throw error(Code::kUnimplemented, "{}: rope_scaling of type '{}' has no place in a GGUF file that we write", file_, type);
    for (const char* key : {"attention_factor", "mscale", "mscale_all_dim", "truncate"}) {
      if (rope->contains(key) && !(*rope)[key].is_null()) throw error(Code::kUnimplemented, "{}: key 'rope_scaling.{}' has no place in a GGUF file", file_, key);
    }
    put("rope.scaling.type", gguf_text(type));
    put("rope.scaling.factor", gguf_f32(number("factor")));
    if (type == "linear") return;
    put("rope.scaling.original_context_length", gguf_u32(original));
    put("rope.scaling.yarn_beta_fast", gguf_f32(number("beta_fast", 32)));
    put("rope.scaling.yarn_beta_slow", gguf_f32(number("beta_slow", 1)));
  }

  const Json& config_;
  const std::string& file_;
  std::string architecture_;
  GgufConfig out_;
};

}  // namespace

std::string config_of_gguf(const GgufHeader& header, std::span<const float> rope_factors) { return Reader(header, rope_factors).config().dump(2) + "\n"; }

GgufConfig gguf_of_config(const std::string& json, const std::string& file) {
  const Json config = Json::parse(json, nullptr, false);
  if (!config.is_object()) throw error(Code::kInvalidArgument, "{}: not a JSON object", file);
  return Writer(config, file).write();
}

}  // namespace penstock::formats
