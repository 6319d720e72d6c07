#include "frontend/model_registry.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>

#include "base/log.h"
#include "config/model_config.h"

namespace penstock::frontend {

// Models have no archive with a version of its own yet; this is the one that TorchServe gives by default.
constexpr std::string_view kVersion = "1.0";

Result<std::unique_ptr<ModelRegistry>> ModelRegistry::create(std::span<const ModelFolder> folders, const ServingContext& context) {
  std::vector<std::unique_ptr<ServedModel>> models;
  for (const ModelFolder& folder : folders) {
    auto config = config::load_model_folder_config(folder.folder);
    if (!config) return config.error();
    for (const std::string& note : config->notes) spdlog::warn("model '{}': {}", folder.name, note);
    ServingContext own = context;
    own.socket_folder /= std::to_string(models.size());  // short: the path of a unix socket has little room
    std::filesystem::create_directory(own.socket_folder);
    auto model = ServedModel::create(folder.name, *config, own);
    if (!model) return model.error();
    models.push_back(std::move(*model));
  }
  return std::unique_ptr<ModelRegistry>(new ModelRegistry(std::move(models)));
}

Result<ServedModel*> ModelRegistry::find(std::string_view name, std::string_view version) const {
  std::vector<std::string_view> names;
  for (const auto& model : models_) {
    names.push_back(model->name());
    if (model->name() != name) continue;
    if (version.empty() || version == kVersion) return model.get();
    return error(Code::kNotFound, "model '{}' has no version '{}'; there is {}", name, version.substr(0, 200), kVersion);
  }
  const std::string known = names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
  if (name.empty()) return error(Code::kInvalidArgument, "model_name is empty; the models are: {}", known);
  return error(Code::kNotFound, "there is no model '{}'; the models are: {}", name.substr(0, 200), known);
}

bool ModelRegistry::all_serving() const {
  return std::all_of(models_.begin(), models_.end(), [](const auto& model) { return model->serving(); });
}

bool ModelRegistry::all_healthy() const {
  return std::all_of(models_.begin(), models_.end(), [](const auto& model) { return model->healthy(); });
}

}  // namespace penstock::frontend
