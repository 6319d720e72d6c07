#pragma once
// The models of a server, by name.
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "frontend/model_store.h"
#include "frontend/served_model.h"

namespace penstock::frontend {

// Threads: constant after create(); every method from any thread.
class ModelRegistry {
 public:
  // Reads each folder's model-config.yaml, takes devices; starts nothing. Errors: as load_model_folder_config() and ServedModel::create().
  [[nodiscard]] static Result<std::unique_ptr<ModelRegistry>> create(std::span<const ModelFolder> folders, const ServingContext& context);

  // Errors: kInvalidArgument without a name; kNotFound, listing the models there are; kNotFound for a version but "1.0".
  [[nodiscard]] Result<ServedModel*> find(std::string_view name, std::string_view version) const;

  [[nodiscard]] std::span<const std::unique_ptr<ServedModel>> models() const { return models_; }
  // Every model answers now (health) or will again by itself (Ping).
  [[nodiscard]] bool all_serving() const;
  [[nodiscard]] bool all_healthy() const;

 private:
  explicit ModelRegistry(std::vector<std::unique_ptr<ServedModel>> models) : models_(std::move(models)) {}
  const std::vector<std::unique_ptr<ServedModel>> models_;
};

}  // namespace penstock::frontend
