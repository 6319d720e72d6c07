#include "frontend/model_store.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <system_error>

namespace penstock::frontend {
namespace {

namespace fs = std::filesystem;

bool holds_model(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / "config.json", ignored) || fs::exists(folder / "model-config.yaml", ignored);
}

}  // namespace

Result<ModelFolder> resolve_model(const std::optional<ModelStore>& store, const std::string& argument) {
  const size_t equals = argument.find('=');
  const std::string name = argument.substr(0, equals);
  const std::string folder = equals == std::string::npos ? name : argument.substr(equals + 1);
  if (auto bad = check_model_name(name)) return *bad;
  if (store) {
    auto path = store->resolve(folder);
    if (!path) return path.error();
    return ModelFolder{name, folder, *path};
  }
  if (equals == std::string::npos) {
    return error(Code::kInvalidArgument, "model '{}': where is it? Write {}=FOLDER, or give --model-store DIR", name, name);
  }
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) return error(Code::kNotFound, "model '{}': there is no folder '{}'", name, folder);
  return ModelFolder{name, folder, folder};
}

std::optional<Error> check_model_name(std::string_view name) {
  const auto allowed = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-'; };
  const bool good = !name.empty() && name.size() <= 128 && name[0] != '.' && name[0] != '-' && std::all_of(name.begin(), name.end(), allowed);
  if (good) return std::nullopt;
  return error(Code::kInvalidArgument,
               "model name '{}': expected 1 to 128 letters, digits, '.', '_' or '-', not beginning with '.' or '-'", name.substr(0, 200));
}

Result<ModelStore> ModelStore::open(const fs::path& root) {
  std::error_code ignored;
  if (!fs::is_directory(root, ignored)) return error(Code::kNotFound, "the model store '{}' is not a folder", root.string());
  return ModelStore(root);
}

Result<fs::path> ModelStore::resolve(std::string_view name) const {
  const fs::path relative(name);
  const bool climbs = std::find(relative.begin(), relative.end(), "..") != relative.end();
  if (name.empty() || relative.is_absolute() || climbs) {
    return error(Code::kInvalidArgument, "'{}' does not name a folder inside the model store '{}' (no absolute path, no '..'); "
                 "without --model-store, NAME=FOLDER takes any folder", name, root_.string());
  }
  const fs::path folder = root_ / relative;
  std::error_code ignored;
  if (fs::is_directory(folder, ignored)) return folder;
  const auto known = list();
  return error(Code::kNotFound, "no model folder '{}' in the model store '{}'; there is: {}", name, root_.string(),
               known.empty() ? "nothing" : fmt::format("{}", fmt::join(known, ", ")));
}

std::vector<std::string> ModelStore::list() const {
  std::vector<std::string> names;
  std::error_code failed;
  for (auto entry = fs::directory_iterator(root_, failed); !failed && entry != fs::directory_iterator(); entry.increment(failed)) {
    if (holds_model(entry->path())) names.push_back(entry->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

Result<std::vector<ModelFolder>> resolve_models(const std::optional<ModelStore>& store, std::span<const std::string> arguments) {
  std::vector<std::string> wanted(arguments.begin(), arguments.end());
  if (wanted.size() == 1 && wanted[0] == "all") {
    if (!store) return error(Code::kInvalidArgument, "to load all models, say where they are: --model-store DIR");
    wanted = store->list();
  }
  std::vector<ModelFolder> models;
  for (const std::string& argument : wanted) {
    auto model = resolve_model(store, argument);
    if (!model) return model.error();
    const auto same = [&](const ModelFolder& other) { return other.name == model->name; };
    if (std::any_of(models.begin(), models.end(), same)) {
      return error(Code::kInvalidArgument, "model name '{}' is given twice", model->name);
    }
    models.push_back(std::move(*model));
  }
  return models;
}

}  // namespace penstock::frontend
