#pragma once
// The models of a server, by name and version.
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/mutex.h"
#include "frontend/model_spec.h"
#include "frontend/served_model.h"

namespace penstock::frontend {

// Threads:  every method from any thread.
// Owns:     the models. A model that was taken out is kept until nobody else holds it, so that the thread of a late call never destroys it.
class ModelRegistry {
 public:
  explicit ModelRegistry(ServingContext context) : context_(std::move(context)) {}
  ~ModelRegistry();
  ModelRegistry(const ModelRegistry&) = delete;
  ModelRegistry& operator=(const ModelRegistry&) = delete;

  // Adds the model, whose devices are taken, and starts nothing. The first version of a name is its default. `range`: how many workers it
  // gets; absent = what its configuration says.
  // Errors: kAlreadyExists for a name and version that are there; kUnavailable while the server is going; those of ServedModel::create().
  [[nodiscard]] Result<std::shared_ptr<ServedModel>> add(ModelSpec spec, std::optional<WorkerRange> range = std::nullopt) EXCLUDES(mutex_);

  // An empty version means the default one. Errors: kInvalidArgument without a name; kNotFound, listing what there is.
  [[nodiscard]] Result<std::shared_ptr<ServedModel>> find(std::string_view name, std::string_view version) const EXCLUDES(mutex_);
  // All versions of one model, sorted; kNotFound.
  [[nodiscard]] Result<std::vector<std::shared_ptr<ServedModel>>> versions(std::string_view name) const EXCLUDES(mutex_);
  // The default versions, sorted by name.
  [[nodiscard]] std::vector<std::shared_ptr<ServedModel>> defaults() const EXCLUDES(mutex_);
  // All versions of all models, sorted.
  [[nodiscard]] std::vector<std::shared_ptr<ServedModel>> models() const EXCLUDES(mutex_);

  // Errors: as find().
  [[nodiscard]] std::optional<Error> set_default(std::string_view name, std::string_view version) EXCLUDES(mutex_);

  // Requests do not find it any more, then retires it (ServedModel::retire). Blocks until its workers are gone.
  // Errors: as find(); kFailedPrecondition for the default version while there are others.
  [[nodiscard]] std::optional<Error> remove(std::string_view name, std::string_view version, Deadline drain) EXCLUDES(mutex_);

  // Destroys the models that were removed and that nobody holds any more.
  void bury() EXCLUDES(mutex_);

  // From now on nothing is added, and all_serving() and all_healthy() are false, whatever the models do: the server is going.
  void begin_shutdown() { going_ = true; }

  // The default version answers now.
  [[nodiscard]] bool serving(const std::string& name) const EXCLUDES(mutex_);
  // Every version that should have workers answers now (health) or will again by itself (Ping).
  [[nodiscard]] bool all_serving() const;
  [[nodiscard]] bool all_healthy() const;

 private:
  struct Entry {
    std::map<std::string, std::shared_ptr<ServedModel>, std::less<>> versions;
    std::string default_version;
  };
  [[nodiscard]] std::optional<Error> taken(std::string_view name, std::string_view version) const REQUIRES(mutex_);
  [[nodiscard]] Result<const Entry*> entry(std::string_view name) const REQUIRES(mutex_);
  [[nodiscard]] Result<std::string> version_in(const Entry& entry, std::string_view name, std::string_view version) const REQUIRES(mutex_);
  const ServingContext context_;
  std::atomic<bool> going_{false};
  mutable Mutex mutex_;
  int num_made_ GUARDED_BY(mutex_) = 0;  // names socket folders
  std::map<std::string, Entry, std::less<>> entries_ GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<ServedModel>> removed_ GUARDED_BY(mutex_);
};

}  // namespace penstock::frontend
