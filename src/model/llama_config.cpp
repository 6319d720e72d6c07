#include "model/llama_config.h"

#include <nlohmann/json.hpp>

namespace penstock::model {
namespace {

using nlohmann::json;

constexpr int64_t kMaxSize = int64_t{1} << 24;  // of any one dimension: beyond it a file is nonsense, not a model

// Reads keys of one object; the first error wins.
class Reader {
 public:
  Reader(const json& object, const std::string& file) : object_(object), file_(file) {}

  int64_t integer(const char* key, int64_t min, int64_t max, int64_t absent) {
    const json* value = find(key);
    if (value == nullptr) return absent;
    if (!value->is_number_integer() || value->get<int64_t>() < min || value->get<int64_t>() > max) {
      fail(key, fmt::format("an integer from {} to {}", min, max), *value);
      return absent;
    }
    return value->get<int64_t>();
  }
  double real(const char* key, double absent) {
    const json* value = find(key);
    if (value == nullptr) return absent;
    if (!value->is_number() || !(value->get<double>() > 0)) {
      fail(key, "a number > 0", *value);
      return absent;
    }
    return value->get<double>();
  }
  bool boolean(const char* key, bool absent) {
    const json* value = find(key);
    if (value == nullptr) return absent;
    if (!value->is_boolean()) {
      fail(key, "true or false", *value);
      return absent;
    }
    return value->get<bool>();
  }
  // First of a list where the file has one (eos_token_id may be several).
  int64_t token(const char* key) {
    const json* value = find(key);
    if (value != nullptr && value->is_array() && !value->empty()) value = &value->front();
    if (value == nullptr) return -1;
    if (!value->is_number_integer() || value->get<int64_t>() < 0) {
      fail(key, "a token id >= 0", *value);
      return -1;
    }
    return value->get<int64_t>();
  }
  void required(const char* key, int64_t value) {
    if (value <= 0 && !error_) error_ = penstock::error(Code::kInvalidArgument, "{}: key '{}' is missing", file_, key);
  }
  void unimplemented(const std::string& what) {
    if (!error_) error_ = penstock::error(Code::kUnimplemented, "{}: {}", file_, what);
  }
  void invalid(const std::string& what) {
    if (!error_) error_ = penstock::error(Code::kInvalidArgument, "{}: {}", file_, what);
  }
  // nullptr when absent or null.
  const json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  [[nodiscard]] const std::optional<Error>& error() const { return error_; }

 private:
  void fail(const char* key, const std::string& expected, const json& found) {
    invalid(fmt::format("key '{}': expected {}, found {}", key, expected, found.dump().substr(0, 80)));
  }
  const json& object_;
  const std::string& file_;
  std::optional<Error> error_;
};

void refuse_what_is_not_computed(Reader& reader) {
  const json* architectures = reader.find("architectures");
  if (architectures != nullptr && architectures->is_array() && !architectures->empty() && architectures->front() != "LlamaForCausalLM") {
    reader.unimplemented("architecture " + architectures->front().dump() + " is not supported; this version runs \"LlamaForCausalLM\"");
  }
  const json* type = reader.find("model_type");
  if (type != nullptr && *type != "llama") reader.unimplemented("model_type " + type->dump() + " is not supported; this version runs \"llama\"");
  if (architectures == nullptr && type == nullptr) reader.invalid("neither 'architectures' nor 'model_type' is given");
  if (const json* scaling = reader.find("rope_scaling")) reader.unimplemented("rope_scaling " + scaling->dump().substr(0, 80) + " is not supported yet");
  if (const json* act = reader.find("hidden_act"); act != nullptr && *act != "silu") {
    reader.unimplemented("hidden_act " + act->dump() + " is not supported; expected \"silu\"");
  }
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (reader.boolean(key, false)) reader.unimplemented(fmt::format("{} = true is not supported yet", key));
  }
}

}  // namespace

int64_t LlamaConfig::block_parameters() const {
  return attention().row() * hidden_size + hidden_size * num_heads * head_size + 3 * intermediate_size * hidden_size + 2 * hidden_size;
}

int64_t LlamaConfig::parameters() const {
  return vocab_size * hidden_size * (tie_word_embeddings ? 1 : 2) + num_layers * block_parameters() + hidden_size;
}

Result<LlamaConfig> parse_llama_config(const std::string& text, const std::string& file) {
  const json object = json::parse(text, nullptr, false);
  if (!object.is_object()) return error(Code::kInvalidArgument, "{}: not a JSON object", file);
  Reader reader(object, file);
  refuse_what_is_not_computed(reader);
  LlamaConfig c;
  c.vocab_size = reader.integer("vocab_size", 1, kMaxSize, 0);
  c.hidden_size = reader.integer("hidden_size", 1, kMaxSize, 0);
  c.num_layers = reader.integer("num_hidden_layers", 1, 10000, 0);
  c.num_heads = reader.integer("num_attention_heads", 1, kMaxSize, 0);
  c.num_kv_heads = reader.integer("num_key_value_heads", 1, kMaxSize, c.num_heads);
  c.intermediate_size = reader.integer("intermediate_size", 1, kMaxSize, 0);
  c.max_position_embeddings = reader.integer("max_position_embeddings", 1, kMaxSize, 2048);
  c.head_size = reader.integer("head_dim", 2, 4096, c.num_heads > 0 ? c.hidden_size / c.num_heads : 0);
  c.rope_theta = reader.real("rope_theta", 10000);
  c.rms_norm_eps = reader.real("rms_norm_eps", 1e-6);
  c.initializer_range = reader.real("initializer_range", 0.02);
  c.tie_word_embeddings = reader.boolean("tie_word_embeddings", false);
  c.bos_token_id = reader.token("bos_token_id");
  c.eos_token_id = reader.token("eos_token_id");
  reader.required("vocab_size", c.vocab_size);
  reader.required("hidden_size", c.hidden_size);
  reader.required("num_hidden_layers", c.num_layers);
  reader.required("num_attention_heads", c.num_heads);
  reader.required("intermediate_size", c.intermediate_size);
  if (!reader.error() && c.num_heads % c.num_kv_heads != 0) {
    reader.invalid(fmt::format("num_attention_heads {} is not a multiple of num_key_value_heads {}", c.num_heads, c.num_kv_heads));
  }
  if (!reader.error() && c.head_size % 2 != 0) reader.invalid(fmt::format("the head size {} is odd; rotary positions need pairs", c.head_size));
  if (reader.error()) return *reader.error();
  return c;
}

std::string to_config_json(const LlamaConfig& c) {
  nlohmann::ordered_json out;
  out["architectures"] = {"LlamaForCausalLM"};
  out["model_type"] = "llama";
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
  out["rms_norm_eps"] = c.rms_norm_eps;
  out["initializer_range"] = c.initializer_range;
  out["hidden_act"] = "silu";
  out["attention_bias"] = false;
  out["mlp_bias"] = false;
  out["tie_word_embeddings"] = c.tie_word_embeddings;
  if (c.bos_token_id >= 0) out["bos_token_id"] = c.bos_token_id;
  if (c.eos_token_id >= 0) out["eos_token_id"] = c.eos_token_id;
  out["torch_dtype"] = "float32";
  return out.dump(2) + "\n";
}

}  // namespace penstock::model
