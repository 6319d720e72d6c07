#include "frontend/model_store.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <system_error>

#include "formats/gguf_model.h"
#include "frontend/archive.h"

namespace penstock::frontend {
namespace {

namespace fs = std::filesystem;

bool is_archive_file(const fs::path& path) {
  std::error_code ignored;
  return is_archive_name(path.filename().string()) && fs::is_regular_file(path, ignored);
}

bool is_gguf_name(std::string_view name) { return name.ends_with(".gguf"); }

bool is_model_source(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored) || is_archive_file(path) || (is_gguf_name(path.string()) && fs::is_regular_file(path, ignored));
}

}  // namespace

bool holds_model(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / "config.json", ignored) || fs::exists(folder / "model-config.yaml", ignored) ||
         fs::exists(folder / "MAR-INF" / "MANIFEST.json", ignored) || formats::holds_gguf(folder);
}

Result<ModelFolder> resolve_model(const std::optional<ModelStore>& store, const std::string& argument) {
  const size_t equals = argument.find('=');
  const std::string folder = equals == std::string::npos ? argument : argument.substr(equals + 1);
  std::string name = argument.substr(0, equals);
  if (equals == std::string::npos && (is_archive_name(name) || is_gguf_name(name))) name.clear();
  if (auto bad = check_model_name(name); bad && (!name.empty() || folder.empty())) return *bad;
  if (store) {
    auto path = store->resolve(folder);
    if (!path) return path.error();
    return ModelFolder{name, folder, *path, *path};
  }
  if (equals == std::string::npos && !is_archive_file(folder) && !is_gguf_name(folder)) {
    return error(Code::kInvalidArgument, "model '{}': where is it? Write {}=FOLDER, or give --model-store DIR", name, name);
  }
  if (!is_model_source(folder)) return error(Code::kNotFound, "model '{}': there is no folder and no archive '{}'", name, folder);
  return ModelFolder{name, folder, folder, folder};
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
  const fs::path whole = fs::absolute(root, ignored).lexically_normal();
  return ModelStore(whole.has_filename() ? whole : whole.parent_path());  // "store/" is "store"
}

Result<fs::path> ModelStore::resolve(std::string_view name) const {
  fs::path relative(name);
  if (relative.is_absolute()) relative = relative.lexically_relative(root_);
  const bool climbs = std::find(relative.begin(), relative.end(), "..") != relative.end();
  if (name.empty() || relative.empty() || relative.is_absolute() || climbs) {
    return error(Code::kInvalidArgument, "'{}' does not name a folder or an archive inside the model store '{}' (no absolute path, no '..'); "
                 "without --model-store, NAME=FOLDER takes any folder", name, root_.string());
  }
  for (const char* suffix : {"", ".mar", ".tar.gz", ".tgz", ".zip", ".gguf"}) {
    fs::path path = root_ / relative;
    path += suffix;
    if (is_model_source(path)) return path;
  }
  const auto known = list();
  return error(Code::kNotFound, "no folder and no archive '{}' in the model store '{}'; there is: {}", name, root_.string(),
               known.empty() ? "nothing" : fmt::format("{}", fmt::join(known, ", ")));
}

std::vector<std::string> ModelStore::list() const {
  std::vector<std::string> names;
  std::error_code failed;
  for (auto entry = fs::directory_iterator(root_, failed); !failed && entry != fs::directory_iterator(); entry.increment(failed)) {
    if (holds_model(entry->path()) || is_archive_file(entry->path())) names.push_back(entry->path().filename().string());
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
    const auto same = [&](const ModelFolder& other) { return !other.name.empty() && other.name == model->name; };
    if (std::any_of(models.begin(), models.end(), same)) {
      return error(Code::kInvalidArgument, "model name '{}' is given twice", model->name);
    }
    models.push_back(std::move(*model));
  }
  return models;
}

}  // namespace penstock::frontend
