#include "train/run_model.h"

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/corpus.h"
#include "formats/gguf_model.h"
#include "model/families.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;

tensor::ScalarType exported_dtype(config::ExportDtype dtype, tensor::ScalarType automatic) {
  if (dtype == config::ExportDtype::kAuto) return automatic;
  return dtype == config::ExportDtype::kBfloat16 ? at::kBFloat16 : at::kFloat;
}

model::TransformerConfig new_shape(const config::TrainModelConfig& m, const text::Tokenizer& tokenizer) {
  model::TransformerConfig c;
  c.vocab_size = tokenizer.vocab_size();
  c.hidden_size = m.hidden_size;
  c.num_layers = m.num_layers;
  c.num_heads = m.num_heads;
  c.num_kv_heads = m.num_kv_heads;
  c.head_size = m.hidden_size / m.num_heads;
  c.intermediate_size = m.intermediate_size;
  c.max_position_embeddings = m.max_position_embeddings;
  c.rope_theta = m.rope_theta;
  c.norm_eps = m.rms_norm_eps;
  c.tie_word_embeddings = m.tie_word_embeddings;
  c.eos_token_id = tokenizer.end_id();
  // Keeps the size of activations from layer to layer; the fixed 0.02 of larger models makes narrow ones start slowly.
  c.initializer_range = 1 / std::sqrt(static_cast<double>(m.hidden_size));
  return c;
}

// A key of the shape that was given beside model.path.
template <typename T>
void require_equal(const config::TrainModelConfig& m, const char* key, T given, T found) {
  if (std::ranges::find(m.given, key) == m.given.end() || given == found) return;
  throw error(Code::kInvalidArgument, "key '{}': {} is given, but {}/config.json says {}; leave the key out to take the model as it is", key, given, m.path, found);
}

void require_agreement(const config::TrainModelConfig& m, const model::TransformerConfig& c) {
  require_equal<int64_t>(m, "model.hidden_size", m.hidden_size, c.hidden_size);
  require_equal<int64_t>(m, "model.num_layers", m.num_layers, c.num_layers);
  require_equal<int64_t>(m, "model.num_heads", m.num_heads, c.num_heads);
  require_equal<int64_t>(m, "model.num_kv_heads", m.num_kv_heads > 0 ? m.num_kv_heads : c.num_kv_heads, c.num_kv_heads);
  require_equal<int64_t>(m, "model.intermediate_size", m.intermediate_size, c.intermediate_size);
  require_equal<int64_t>(m, "model.max_position_embeddings", m.max_position_embeddings > 0 ? m.max_position_embeddings : c.max_position_embeddings,
                         c.max_position_embeddings);
  require_equal(m, "model.rope_theta", m.rope_theta, c.rope_theta);
  require_equal(m, "model.rms_norm_eps", m.rms_norm_eps, c.norm_eps);
  require_equal(m, "model.tie_word_embeddings", m.tie_word_embeddings, c.tie_word_embeddings);
}

void require_fit(const config::TrainConfig& config, const RunModel& model) {
  if (config.batch.sequence_length > model.config.max_sequence()) {
    throw error(Code::kInvalidArgument, "key 'batch.sequence_length': expected at most {}, the longest sequence of {} (max_position_embeddings {}, sliding_window {}), found {}",
                model.config.max_sequence(), config.model.path, model.config.max_position_embeddings, model.config.sliding_window, config.batch.sequence_length);
  }
  if (model.tokenizer.vocab_size() > model.config.vocab_size) {
    throw error(Code::kInvalidArgument, "model.path: the tokenizer of {} has {} tokens, config.json a vocab_size of {}; do the files belong together?", config.model.path,
                model.tokenizer.vocab_size(), model.config.vocab_size);
  }
  if (model.tokenizer.end_id() < 0) {
    throw error(Code::kInvalidArgument, "model.path: tokenizer_config.json of {} names no eos_token, with which documents end", config.model.path);
  }
}

}  // namespace

RunModel open_run_model(const config::TrainConfig& config) {
  if (config.model.path.empty()) {
    const fs::path tokenizer_folder = data::tokenizer_folder_of(config.data);
    text::Tokenizer tokenizer = *data::open_tokenizer(tokenizer_folder);
    const model::TransformerConfig shape = new_shape(config.model, tokenizer);
    const tensor::ScalarType dtype = exported_dtype(config.model_export.dtype, at::kFloat);
    return {shape, std::move(tokenizer), ModelDescription::of_new(shape, dtype, tokenizer_folder), dtype, nullptr};
  }
  const fs::path path = config.model.path;
  if (!fs::is_directory(path) && !formats::holds_gguf(path)) {
    throw error(Code::kNotFound, "model.path: {} does not exist or is not a folder; expected a Hugging Face directory or a GGUF file", path.string());
  }
  const model::TransformerConfig shape = model::parse_transformer_config(weights::read_config_json(path).dump(), weights::config_name(path)).value();
  require_agreement(config.model, shape);
  auto stored = std::make_shared<const model::StoredWeights>(path, shape);
  const tensor::ScalarType dtype = exported_dtype(config.model_export.dtype, *tensor::parse_safetensors_dtype(stored->dtype()));
  RunModel model{shape, text::Tokenizer::load(path).value(), ModelDescription::copied(path, dtype), dtype, stored};
  require_fit(config, model);
  return model;
}

}  // namespace penstock::train
