#include "weights/model_files.h"

#include <ATen/core/Tensor.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "formats/gguf_model.h"
#include "weights/gguf_weights.h"
#include "weights/hf_directory.h"
#include "weights/json_file.h"

namespace penstock::weights {
namespace {

constexpr size_t kMaxConfigBytes = 16 << 20;

}  // namespace

nlohmann::json parse_json_object(const std::filesystem::path& path, size_t limit_bytes, Code code) {
  const std::string text = read_file(path, limit_bytes).value();
  try {
    nlohmann::json json = nlohmann::json::parse(text);
    if (!json.is_object()) throw error(code, "{}: it holds a JSON {}; expected an object", path.string(), json.type_name());
    return json;
  } catch (const nlohmann::json::parse_error& failed) {
    throw error(code, "{}: it is not JSON: error at byte {}", path.string(), failed.byte);
  } catch (const nlohmann::json::exception& failed) {  // a number that no double holds
    throw error(code, "{}: it is not JSON: {}", path.string(), failed.what());
  }
}

std::unique_ptr<const ModelFiles> open_model_files(const std::filesystem::path& model) {
  if (const auto gguf = formats::find_gguf(model)) return std::make_unique<const GgufWeights>(*gguf);
  return std::make_unique<const HfDirectory>(HfDirectory::open(model));
}

nlohmann::json read_config_json(const std::filesystem::path& model) {
  if (const auto gguf = formats::find_gguf(model)) return nlohmann::json::parse(formats::GgufModel::open(*gguf).config());
  return parse_json_object(model / "config.json", kMaxConfigBytes, Code::kInvalidArgument);
}

std::string config_name(const std::filesystem::path& model) {
  const auto gguf = formats::find_gguf(model);
  return gguf ? gguf->string() : (model / "config.json").string();
}

}  // namespace penstock::weights
