#include "model/stored_weights.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "base/error.h"
#include "model/families.h"
#include "model/parameter_io.h"
#include "tensor/dtype.h"

namespace penstock::model {
namespace {

struct Block {
  std::string prefix;  // "model.layers.12."
  int64_t number = 0;
};

// Of a tensor of a numbered block; nullopt for others.
std::optional<Block> block_of(const std::string& tensor) {
  for (size_t dot = tensor.find('.'); dot != std::string::npos; dot = tensor.find('.', dot + 1)) {
    const size_t end = tensor.find('.', dot + 1);
    if (end == std::string::npos) return std::nullopt;
    int64_t number = 0;
    const auto [stopped, status] = std::from_chars(tensor.data() + dot + 1, tensor.data() + end, number);
    if (status == std::errc() && stopped == tensor.data() + end && number >= 0) return Block{tensor.substr(0, end + 1), number};
  }
  return std::nullopt;
}

// Tables that old checkpoints carry along; everyone computes them.
bool is_a_table(const std::string& tensor) {
  return std::ranges::any_of(std::initializer_list<const char*>{".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias"},
                             [&](const char* ending) { return tensor.ends_with(ending); });
}

std::string prefix_of_files(const weights::ModelFiles& files, const TransformerConfig& config) {
  const std::string prefix(tensor_prefix(config));
  return std::ranges::any_of(files.names(), [&](const std::string& name) { return name.starts_with(prefix); }) ? std::string() : prefix;
}

}  // namespace

StoredWeights::StoredWeights(const std::filesystem::path& model, const TransformerConfig& config)
    : config_(config), files_(weights::open_model_files(model)), left_out_(prefix_of_files(*files_, config)) {}

std::string StoredWeights::stored_name(const std::string& name) const {
  return name.starts_with(left_out_) ? name.substr(left_out_.size()) : name;
}

void StoredWeights::load(Parameter& parameter) const {
  load_parameter(parameter, parameter.value, [&](const std::string& name) {
    const std::string stored = stored_name(name);
    if (!files_->has(stored)) {
      throw error(Code::kDataLoss, "{} holds no tensor '{}', which {} needs; are config.json and the weights of one model?", files_->path().string(), stored,
                  config_.architecture);
    }
    return files_->tensor(stored);
  });
}

void StoredWeights::require_all_used(std::span<const Parameter> parameters) const {
  std::set<std::string> used, blocks;
  for (const Parameter& p : parameters) {
    for (const StoredRows& rows : p.stored) {
      used.insert(stored_name(rows.name));
      if (const auto block = block_of(stored_name(rows.name))) blocks.insert(block->prefix);
    }
  }
  for (const std::string& name : files_->names()) {
    const auto block = block_of(name);
    if (!block || is_a_table(name)) continue;
    if (block->number >= config_.num_layers) {
      throw error(Code::kDataLoss, "{}: tensor '{}' is of a block that config.json, with {} layers, does not have", files_->path().string(), name, config_.num_layers);
    }
    if (blocks.contains(block->prefix) && !used.contains(name)) {
      throw error(Code::kUnimplemented, "{}: tensor '{}' has no place in {} as config.json describes it", files_->path().string(), name, config_.architecture);
    }
  }
}

std::string StoredWeights::dtype() const {
  const auto names = files_->names();
  const auto table = std::ranges::find_if(names, [](const std::string& name) { return name.ends_with("embed_tokens.weight") || name.ends_with("wte.weight"); });
  if (table == names.end()) throw error(Code::kDataLoss, "{} holds no table of token embeddings", files_->path().string());
  return std::string(tensor::safetensors_dtype_name(files_->tensor(*table).scalar_type()));
}

}  // namespace penstock::model
