#include "train/model_description.h"

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "formats/gguf_model.h"
#include "model/families.h"
#include "text/gguf_tokenizer.h"
#include "text/tokenizer.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr size_t kMaxFileBytes = 64 << 20;
constexpr const char* kConfig = "config.json";

// What transformers and others read of a directory, beside config.json and weights.
constexpr const char* kCopied[] = {"generation_config.json", "tokenizer.json",     "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
                                   "added_tokens.json",      "vocab.json",         "merges.txt",      "chat_template.jinja",   "chat_template.json"};

std::string generation_config(const model::TransformerConfig& config) {
  Json out;
  out["eos_token_id"] = config.eos_token_id;
  out["pad_token_id"] = config.eos_token_id;
  out["do_sample"] = true;
  out["temperature"] = 0.8;
  out["top_p"] = 0.95;
  return out.dump(2) + "\n";
}

// The same text where it says so already.
std::string with_dtype(const std::string& config, const fs::path& file, tensor::ScalarType dtype) {
  Json object = Json::parse(config, nullptr, false);
  if (!object.is_object()) throw error(Code::kDataLoss, "{}: not a JSON object", file.string());
  const char* key = object.contains("dtype") ? "dtype" : "torch_dtype";  // the first since transformers 5
  if (object.contains(key) && object[key] == tensor::torch_dtype_name(dtype)) return config;
  object[key] = tensor::torch_dtype_name(dtype);
  return object.dump(2) + "\n";
}

}  // namespace

ModelDescription ModelDescription::of_new(const model::TransformerConfig& config, tensor::ScalarType dtype, const fs::path& tokenizer_folder) {
  ModelDescription description;
  if (!tokenizer_folder.empty()) description.copy_files(tokenizer_folder);
  description.files_[kConfig] = with_dtype(model::to_config_json(config), kConfig, dtype);
  description.files_["generation_config.json"] = generation_config(config);
  description.byte_tokenizer_ = tokenizer_folder.empty();
  return description;
}

ModelDescription ModelDescription::copied(const fs::path& folder, tensor::ScalarType dtype) {
  ModelDescription description;
  if (const auto gguf = formats::find_gguf(folder)) {
    const auto model = formats::GgufModel::open(*gguf);
    description.files_ = text::tokenizer_files_of_gguf(model.header());
    description.files_[kConfig] = with_dtype(model.config(), *gguf, dtype);
    return description;
  }
  description.files_[kConfig] = with_dtype(read_file(folder / kConfig, kMaxFileBytes).value(), folder / kConfig, dtype);
  description.copy_files(folder);
  return description;
}

void ModelDescription::copy_files(const fs::path& folder) {
  for (const char* name : kCopied) {
    if (fs::exists(folder / name)) files_[name] = read_file(folder / name, kMaxFileBytes).value();
  }
}

void ModelDescription::write(const fs::path& folder) const {
  for (const auto& [name, content] : files_) write_file_atomic(folder / name, content);
  if (byte_tokenizer_) text::write_tokenizer_files(folder);
}

}  // namespace penstock::train
