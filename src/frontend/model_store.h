#pragma once
// Model names and the folders behind them.
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace penstock::frontend {

struct ModelFolder {
  std::string name;              // how requests call it
  std::string url;               // how it was asked for: NAME or FOLDER of the argument
  std::filesystem::path folder;  // model-config.yaml lies here, and the Hugging Face directory unless that file names another
};

// kInvalidArgument unless the name is 1 ... 128 letters, digits, '.', '_' or '-' and does not begin with '.' or '-'
// (names become parts of log paths).
[[nodiscard]] std::optional<Error> check_model_name(std::string_view name);

// A folder of model folders.
class ModelStore {
 public:
  // kNotFound when `root` is no folder.
  [[nodiscard]] static Result<ModelStore> open(const std::filesystem::path& root);

  // The folder of that name directly or deeper inside the store. kInvalidArgument for an absolute name or one with "..";
  // kNotFound, listing what there is.
  [[nodiscard]] Result<std::filesystem::path> resolve(std::string_view name) const;

  // Names of the folders that hold a model (a config.json or a model-config.yaml), sorted.
  [[nodiscard]] std::vector<std::string> list() const;

 private:
  explicit ModelStore(std::filesystem::path root) : root_(std::move(root)) {}
  std::filesystem::path root_;
};

// One argument of the form NAME or NAME=FOLDER; errors as below.
[[nodiscard]] Result<ModelFolder> resolve_model(const std::optional<ModelStore>& store, const std::string& argument);

// What to load, from arguments of the form NAME, NAME=FOLDER or the single word "all".
// With a store, FOLDER (or NAME) lies inside it; without one, FOLDER is a path and must be given.
// Errors: kInvalidArgument (bad or double name, "all" without a store), kNotFound.
[[nodiscard]] Result<std::vector<ModelFolder>> resolve_models(const std::optional<ModelStore>& store,
                                                              std::span<const std::string> arguments);

}  // namespace penstock::frontend
