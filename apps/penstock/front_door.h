#pragma once
// One run of the front door, from its configuration to its exit.
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/mutex.h"
#include "base/temp_dir.h"
#include "cluster/device_assignment.h"
#include "config/server_config.h"
#include "frontend/access_keys.h"
#include "frontend/agent_pool.h"
#include "frontend/caretaker.h"
#include "frontend/management.h"
#include "frontend/model_archives.h"
#include "frontend/model_registry.h"
#include "frontend/model_store.h"
#include "frontend/snapshots.h"
#include "observability.h"
#include "rpc/call_pool.h"
#include "rpc/grpc_agents.h"
#include "rpc/grpc_server.h"
#include "rpc/http_server.h"
#include "stop_signals.h"

namespace penstock {

struct FrontDoorOptions {
  config::ServerConfig config;
  std::string log_folder = "logs";
  // false, as TorchServe does it: says that it has started before models are loaded, goes on without those that cannot be, and may have none.
  bool wait_for_models = true;
  bool log_files = false;             // TorchServe's log files, in LOG_LOCATION or log_folder
  std::string how_to_stop;            // for the start's message; empty = Ctrl-C, or kill
  std::function<void()> on_started;   // after that message
  bool keys_by_default = false;  // access keys are asked for unless the configuration says otherwise
  std::string snapshot_folder;        // empty = no snapshots are taken
};

// Starts models and listeners, waits for SIGTERM or SIGINT, shuts down in order.
//
// Threads: the main thread makes it and runs it; model groups and management calls report from theirs.
// Errors:  what cannot start is thrown as an Error, after the workers are gone.
class FrontDoor {
 public:
  explicit FrontDoor(FrontDoorOptions options);
  void run();

 private:
  [[nodiscard]] std::vector<frontend::ModelFolder> find_models() const;
  [[nodiscard]] std::optional<Error> add_model(const frontend::ModelFolder& folder);
  void restore_models();
  void save_snapshot(frontend::SnapshotKind kind);
  void start_listeners();
  void start_http();
  void close_listeners(Deadline deadline);
  void start_models();
  [[nodiscard]] std::optional<Error> wait_loaded() const;
  void print_started() const;
  void shut_down();
  void on_serving_changed(const std::string& model) EXCLUDES(health_mutex_);

  const FrontDoorOptions options_;
  const config::ServerConfig& config_;
  const StopSignals signals_;
  const TempDir sockets_;  // 0700: only this user reaches the workers
  const std::optional<frontend::ModelStore> store_;
  frontend::ModelArchives archives_;  // before the registry: its models' files
  const std::vector<frontend::ModelFolder> folders_;
  const std::unique_ptr<frontend::AccessKeys> access_keys_;  // null: nobody is asked for one
  const std::optional<rpc::TlsFiles> tls_;
  cluster::DeviceAssignment devices_;
  cluster::DeviceAssignment cores_;
  frontend::AgentPool agents_;  // before the registry: its groups have ranks there
  Observability observability_;
  std::unique_ptr<rpc::HttpServer> http_inference_;   // before the registry: late answers of its jobs go to them
  std::unique_ptr<rpc::HttpServer> http_management_;  // null: the other one serves both
  frontend::ModelRegistry registry_;
  frontend::Snapshots snapshots_;
  frontend::Management management_;
  std::optional<frontend::Caretaker> caretaker_;
  Mutex health_mutex_;  // two models that change at once: the last word about "" must come from who saw both
  rpc::CallPool management_calls_;
  rpc::CallPool text_calls_;  // OpenAI requests over HTTP
  // After the registry: calls that run use it.
  std::unique_ptr<rpc::HttpServer> http_metrics_;  // null: not asked for
  std::unique_ptr<rpc::GrpcServer> inference_;
  std::unique_ptr<rpc::GrpcServer> management_server_;
  std::unique_ptr<rpc::AgentServer> agent_server_;  // null: no agent can join
  std::atomic<rpc::GrpcServer*> health_{nullptr};  // inference_, while it may be told of changes
};

}  // namespace penstock
