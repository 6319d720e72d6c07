#pragma once
// What the management API does, whatever protocol asks: register, scale, describe, list, set default, unregister.
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "frontend/model_registry.h"
#include "frontend/model_store.h"

namespace penstock::frontend {

// Absent numbers take the model's own.
struct RegisterRequest {
  std::string url;                 // a folder of the model store; required
  std::string model_name;          // empty = the folder's name
  std::string handler;             // empty or "llm"
  std::string runtime;             // empty, python, python3 or LSP: accepted, as our workers are what they are
  std::optional<int> initial_workers;  // absent = minWorkers of the model's configuration, or default_workers_per_model
  config::ModelSettings settings;
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

// Threads: every method from any thread.
// Blocks:  register_model() and scale() while they are synchronous (startupTimeout, drain), unregister() until the workers are gone.
class Management {
 public:
  // All must outlive this. Without a store nothing can be registered.
  Management(ModelRegistry& registry, const std::optional<ModelStore>& store, const config::ServerConfig& config)
      : registry_(registry), store_(store), config_(config) {}

  [[nodiscard]] ManagementAnswer register_model(const RegisterRequest& request);
  [[nodiscard]] ManagementAnswer scale(const ScaleRequest& request);
  [[nodiscard]] ManagementAnswer set_default(std::string_view name, std::string_view version);
  [[nodiscard]] ManagementAnswer unregister(std::string_view name, std::string_view version);
  // JSON: a list of one description, or of one for each version ("all").
  [[nodiscard]] ManagementAnswer describe(std::string_view name, std::string_view version, bool customized) const;
  // JSON: {"nextPageToken"?, "models": [{"modelName", "modelUrl"}]}. limit outside 1 ... 100 means 100.
  [[nodiscard]] ManagementAnswer list(int limit, int next_page_token) const;

 private:
  [[nodiscard]] std::optional<ManagementAnswer> refuse_url(const std::string& url) const;
  [[nodiscard]] ManagementAnswer wait_registered(const std::shared_ptr<ServedModel>& model);

  ModelRegistry& registry_;
  const std::optional<ModelStore>& store_;
  const config::ServerConfig& config_;
};

}  // namespace penstock::frontend
