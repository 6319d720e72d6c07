#include "train/resume_check.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/error.h"
#include "data/tokenizer_info.h"
#include "formats/checkpoint_folder.h"
#include "model/families.h"
#include "weights/model_files.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;

std::string text_of(const model::RopeScaling& s) {
  constexpr const char* kNames[] = {"none", "linear", "dynamic", "llama3", "yarn"};
  if (s.kind == model::RopeScaling::Kind::kNone) return kNames[0];
  return fmt::format("{} (factor {}, original length {}, {} {} {} {} {} {} {} {})", kNames[static_cast<size_t>(s.kind)], s.factor, s.original_length, s.low_freq_factor, s.high_freq_factor,
                     s.beta_fast, s.beta_slow, s.attention_factor, s.mscale, s.mscale_all_dim, s.truncate);
}

// All that changes what the same weights compute, by its key in a config.json.
std::vector<std::pair<const char*, std::string>> computed(const model::TransformerConfig& c) {
  const auto text = [](const auto& value) { return fmt::format("{}", value); };
  return {{"architectures", c.architecture},
          {"vocab_size", text(c.vocab_size)},
          {"hidden_size", text(c.hidden_size)},
          {"num_hidden_layers", text(c.num_layers)},
          {"num_attention_heads", text(c.num_heads)},
          {"num_key_value_heads", text(c.num_kv_heads)},
          {"head_dim", text(c.head_size)},
          {"intermediate_size", text(c.intermediate_size)},
          {"rope_theta", text(c.rope_theta)},
          {"rope_scaling", text_of(c.rope_scaling)},
          {"rms_norm_eps", text(c.norm_eps)},
          {"tie_word_embeddings", text(c.tie_word_embeddings)},
          {"attention_bias", text(c.qkv_bias)},
          {"bias of attention's output", text(c.attention_out_bias)},
          {"mlp_bias", text(c.mlp_bias)}};
}

}  // namespace

void require_same_model(const fs::path& checkpoint, const RunModel& model) {
  const fs::path description = checkpoint / formats::kModelDescription;
  std::error_code failed;
  if (!fs::exists(description / "config.json", failed)) return;
  const auto before = computed(model::parse_transformer_config(weights::read_config_json(description).dump(), weights::config_name(description)).value());
  const auto now = computed(model.config);
  std::vector<std::string> changes;
  for (size_t i = 0; i < now.size(); ++i) {
    if (now[i].second != before[i].second) changes.push_back(fmt::format("{} {} (before: {})", now[i].first, now[i].second, before[i].second));
  }
  if (!changes.empty()) {
    throw error(Code::kInvalidArgument, "--resume: {} is of another model than model.path and the data's tokenizer make now: {}", checkpoint.string(), fmt::join(changes, ", "));
  }
  const auto tokenizer = data::describe(*data::open_tokenizer(description)), found = data::describe(model.tokenizer);
  if (tokenizer != found) {
    throw error(Code::kInvalidArgument, "--resume: {} was trained with another tokenizer (fingerprint {:016x}, vocabulary of {}) than the run has now ({:016x}, {}); was it replaced in "
                "model.path, or are the data prepared with another?", checkpoint.string(), tokenizer.fingerprint, tokenizer.vocab_size, found.fingerprint, found.vocab_size);
  }
}

}  // namespace penstock::train
