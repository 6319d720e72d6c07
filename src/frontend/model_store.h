#pragma once
// Model names and the folders behind them.
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace penstock::frontend {

struct ModelFolder {
  std::string name;              // how requests call it; empty = as its manifest says, or as its file is called
  std::string url;               // how it was asked for: NAME or FOLDER of the argument
  std::filesystem::path source;  // the folder or the archive that was found
  std::filesystem::path folder;  // of an archive: what it was unpacked into (ModelArchives). model-config.yaml lies here, and the Hugging Face
                                 // directory unless that file names another
  std::shared_ptr<const void> unpacked = {};  // of an archive: keeps the folder
};

// kInvalidArgument unless the name is 1 ... 128 letters, digits, '.', '_' or '-' and does not begin with '.' or '-'
// (names become parts of log paths).
[[nodiscard]] std::optional<Error> check_model_name(std::string_view name);

// A model lies there: its manifest, its settings, a Hugging Face directory or a GGUF file.
[[nodiscard]] bool holds_model(const std::filesystem::path& folder);

// A folder of model folders and archives.
class ModelStore {
 public:
  // kNotFound when `root` is no folder.
  [[nodiscard]] static Result<ModelStore> open(const std::filesystem::path& root);

  // The folder or archive of that name directly or deeper inside the store; the archive's suffix may be left out. An absolute path may lead into
  // the store. kInvalidArgument for another absolute one, or one with ".."; kNotFound, listing what there is.
  [[nodiscard]] Result<std::filesystem::path> resolve(std::string_view name) const;

  // Names of the folders that hold a model (a config.json, a model-config.yaml or a manifest), and of archives, sorted.
  [[nodiscard]] std::vector<std::string> list() const;

  [[nodiscard]] const std::filesystem::path& root() const { return root_; }

 private:
  explicit ModelStore(std::filesystem::path root) : root_(std::move(root)) {}
  std::filesystem::path root_;
};

// One argument of the form NAME, NAME=FOLDER or =FOLDER (whose name its manifest says); FOLDER may be an archive. Errors as below.
[[nodiscard]] Result<ModelFolder> resolve_model(const std::optional<ModelStore>& store, const std::string& argument);

// What to load, from arguments of the form NAME, NAME=FOLDER or the single word "all".
// With a store, FOLDER (or NAME) lies inside it; without one, FOLDER is a path and must be given.
// Errors: kInvalidArgument (bad or double name, "all" without a store), kNotFound.
[[nodiscard]] Result<std::vector<ModelFolder>> resolve_models(const std::optional<ModelStore>& store,
                                                              std::span<const std::string> arguments);

}  // namespace penstock::frontend
