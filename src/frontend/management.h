#pragma once
// What the management API does, whatever protocol asks: register, scale, describe, list, set default, unregister.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "frontend/model_archives.h"
#include "frontend/model_downloads.h"
#include "frontend/model_registry.h"
#include "frontend/model_store.h"

namespace penstock::frontend {

// Absent numbers take the model's own.
struct RegisterRequest {
  std::optional<std::string> url;  // a folder or an archive of the model store, or a URL; required, and an empty one is another error than none
  std::string model_name;          // empty = as the manifest says, or as the file is called
  std::string handler;             // empty = the manifest's; one that no worker can run fails when workers are started
  std::string runtime;             // empty, python, python3 or LSP: accepted, as our workers are what they are
  std::optional<int> initial_workers;  // absent = minWorkers of the model's configuration, or default_workers_per_model
  config::ModelSettings settings;      // a startup_timeout of 0 is no time: with workers, they fail
  bool s3_sse_kms = false;             // refused: archives are fetched as any URL
  bool synchronous = false;        // wait until the workers have loaded the model; a model that fails to load is taken out again
};

struct ScaleRequest {
  std::string model_name;
  std::string version;             // empty = the default one
  int min_worker = 1;
  std::optional<int> max_worker;   // absent = min_worker
  std::optional<int> timeout_s;    // that running requests of a worker that goes get; absent = unregister_model_timeout; < 0 = as long as they take
  bool synchronous = false;
};

// An answer, good or bad, that REST and gRPC put into their own form.
struct ManagementAnswer {
  int http_status = 200;           // < 400: done, or under way (202)
  std::string text;                // a sentence, or JSON (describe, list)
  Code code = Code::kInternal;     // of an error
  std::string type;                // of an error: TorchServe's exception name, "ModelNotFoundException"

  [[nodiscard]] bool ok() const { return http_status < 400; }
};

// What the management API works with. All must outlive it.
struct ManagementParts {
  ModelRegistry& registry;
  const std::optional<ModelStore>& store;  // without one nothing can be registered
  ModelArchives& archives;
  const config::ServerConfig& config;
  std::function<void()> on_changed;        // called after each call that changed what is served; it may block
};

// Threads: every method from any thread.
// Blocks:  register_model() while it fetches and unpacks; register_model() and scale() while they are synchronous (startupTimeout, drain);
//          unregister() until the workers are gone.
class Management {
 public:
  // Throws Error kInvalidArgument for allowed_urls that are no regular expressions.
  explicit Management(ManagementParts parts);

  [[nodiscard]] ManagementAnswer register_model(const RegisterRequest& request);
  [[nodiscard]] ManagementAnswer scale(const ScaleRequest& request);
  [[nodiscard]] ManagementAnswer set_default(std::string_view name, std::string_view version);
  [[nodiscard]] ManagementAnswer unregister(std::string_view name, std::string_view version);
  // JSON: a list of one description, or of one for each version ("all").
  [[nodiscard]] ManagementAnswer describe(std::string_view name, std::string_view version, bool customized) const;
  // JSON: {"name", "ready"}, as KServe asks.
  [[nodiscard]] ManagementAnswer readiness(std::string_view name) const;
  // JSON: {"nextPageToken"?, "models": [{"modelName", "modelUrl"}]}. limit outside 1 ... 100 means 100.
  [[nodiscard]] ManagementAnswer list(int limit, int next_page_token) const;

  // Ends downloads that run, and those that come later.
  void stop();

 private:
  [[nodiscard]] std::optional<ManagementAnswer> refuse_url(const std::optional<std::string>& url) const;
  [[nodiscard]] Result<ModelSpec> find_model(const RegisterRequest& request);
  [[nodiscard]] ManagementAnswer add_model(ModelSpec spec, const RegisterRequest& request);
  [[nodiscard]] ManagementAnswer start_workers(const std::shared_ptr<ServedModel>& model, bool synchronous);
  [[nodiscard]] ManagementAnswer changed(ManagementAnswer answer) const;
  void forget_download(const ModelSpec& spec) const;

  const ManagementParts parts_;
  ModelRegistry& registry_;
  const config::ServerConfig& config_;
  std::unique_ptr<ModelDownloads> downloads_;  // null without a store
};

}  // namespace penstock::frontend
