#include "frontend/model_registry.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>

#include "base/log.h"

namespace penstock::frontend {
namespace {

template <typename Map>
std::string keys_of(const Map& map) {
  std::vector<std::string_view> keys;
  for (const auto& [key, value] : map) keys.push_back(key);
  return keys.empty() ? "none" : fmt::format("{}", fmt::join(keys, ", "));
}

}  // namespace

ModelRegistry::~ModelRegistry() {
  for (const auto& model : models()) model->stop(Deadline::after(milliseconds(0)));
}

Result<std::shared_ptr<ServedModel>> ModelRegistry::add(ModelSpec spec, std::optional<WorkerRange> range) {
  bury();
  if (going_) return Error(Code::kUnavailable, "the server is shutting down; register the model at another one");
  const std::string name = spec.name, version = spec.version;
  const bool is_default = spec.is_default;
  ServingContext own = context_;
  {
    MutexLock lock(mutex_);
    if (auto conflict = taken(name, version)) return *conflict;
    own.socket_folder /= std::to_string(num_made_++);  // short: the path of a unix socket has little room
  }
  std::filesystem::create_directory(own.socket_folder);
  for (const std::string& note : spec.config.notes) spdlog::warn("model '{}': {}", name, note);
  auto model = ServedModel::create(std::move(spec), own, range);
  if (!model) return model.error();
  MutexLock lock(mutex_);
  if (auto conflict = taken(name, version)) return *conflict;  // another call was faster
  if (going_) return Error(Code::kUnavailable, "the server is shutting down; register the model at another one");
  Entry& versions = entries_[name];
  versions.versions.emplace(version, *model);
  if (versions.default_version.empty() || is_default) versions.default_version = version;
  return *model;
}

std::optional<Error> ModelRegistry::taken(std::string_view name, std::string_view version) const {
  const auto found = entries_.find(name);
  if (found == entries_.end() || !found->second.versions.contains(version)) return std::nullopt;
  return error(Code::kAlreadyExists, "Model version {} is already registered for model {}", version, name);
}

Result<const ModelRegistry::Entry*> ModelRegistry::entry(std::string_view name) const {
  if (name.empty()) return error(Code::kInvalidArgument, "model_name is empty; the models are: {}", keys_of(entries_));
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    return error(Code::kNotFound, "Model not found: {}; the models are: {}", name.substr(0, 200), keys_of(entries_));
  }
  return &found->second;
}

Result<std::string> ModelRegistry::version_in(const Entry& entry, std::string_view name, std::string_view version) const {
  if (version.empty()) return entry.default_version;
  if (entry.versions.contains(version)) return std::string(version);
  return error(Code::kNotFound, "Model version: {} does not exist for model: {}; there is {}", version.substr(0, 200), name,
               keys_of(entry.versions));
}

Result<std::shared_ptr<ServedModel>> ModelRegistry::find(std::string_view name, std::string_view version) const {
  MutexLock lock(mutex_);
  auto found = entry(name);
  if (!found) return found.error();
  auto wanted = version_in(**found, name, version);
  if (!wanted) return wanted.error();
  return (*found)->versions.at(*wanted);
}

Result<std::vector<std::shared_ptr<ServedModel>>> ModelRegistry::versions(std::string_view name) const {
  MutexLock lock(mutex_);
  auto found = entry(name);
  if (!found) return found.error();
  std::vector<std::shared_ptr<ServedModel>> all;
  for (const auto& [version, model] : (*found)->versions) all.push_back(model);
  return all;
}

std::vector<std::shared_ptr<ServedModel>> ModelRegistry::defaults() const {
  MutexLock lock(mutex_);
  std::vector<std::shared_ptr<ServedModel>> all;
  for (const auto& [name, entry] : entries_) all.push_back(entry.versions.at(entry.default_version));
  return all;
}

std::vector<std::shared_ptr<ServedModel>> ModelRegistry::models() const {
  MutexLock lock(mutex_);
  std::vector<std::shared_ptr<ServedModel>> all;
  for (const auto& [name, entry] : entries_) {
    for (const auto& [version, model] : entry.versions) all.push_back(model);
  }
  return all;
}

std::optional<Error> ModelRegistry::set_default(std::string_view name, std::string_view version) {
  {
    MutexLock lock(mutex_);
    auto found = entry(name);
    if (!found) return found.error();
    auto wanted = version_in(**found, name, version);
    if (!wanted) return wanted.error();
    entries_.find(name)->second.default_version = *wanted;
  }
  if (context_.on_serving_changed) context_.on_serving_changed(std::string(name));
  return std::nullopt;
}

std::optional<Error> ModelRegistry::remove(std::string_view name, std::string_view version, Deadline drain) {
  bury();
  std::shared_ptr<ServedModel> model;
  {
    MutexLock lock(mutex_);
    auto found = entry(name);
    if (!found) return found.error();
    auto wanted = version_in(**found, name, version);
    if (!wanted) return wanted.error();
    Entry& held = entries_.find(name)->second;
    if (held.versions.size() > 1 && *wanted == held.default_version) {
      return error(Code::kFailedPrecondition, "Cannot remove default version for model {}: set another default first; there is {}", name,
                   keys_of(held.versions));
    }
    model = held.versions.at(*wanted);
    held.versions.erase(*wanted);
    removed_.push_back(model);
    if (held.versions.empty()) entries_.erase(std::string(name));
  }
  if (context_.on_serving_changed) context_.on_serving_changed(std::string(name));
  model->retire(drain, error(Code::kUnavailable, "model '{}' is being unregistered", name));
  return std::nullopt;
}

// Nobody can get hold of them again, so a count of one stays one.
void ModelRegistry::bury() {
  std::vector<std::shared_ptr<ServedModel>> dead;  // destroyed after the lock is given up
  MutexLock lock(mutex_);
  for (auto& model : removed_) {
    if (model.use_count() == 1) dead.push_back(std::move(model));
  }
  std::erase(removed_, nullptr);
}

bool ModelRegistry::serving(const std::string& name) const {
  auto model = find(name, "");
  return model && (*model)->serving();
}

bool ModelRegistry::all_serving() const {
  if (going_) return false;
  const auto all = models();
  return std::all_of(all.begin(), all.end(), [](const auto& model) { return model->range().min == 0 || model->serving(); });
}

bool ModelRegistry::all_healthy() const {
  if (going_) return false;
  const auto all = models();
  return std::all_of(all.begin(), all.end(), [](const auto& model) { return model->healthy(); });
}

}  // namespace penstock::frontend
