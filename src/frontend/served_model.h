#pragma once
// One model that is served: its worker groups and its jobs.
#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/mutex.h"
#include "cluster/device_assignment.h"
#include "config/model_config.h"
#include "config/server_config.h"
#include "frontend/job_queue.h"
#include "frontend/worker_group.h"

namespace penstock::frontend {

// What all models of a server share. The references outlive the models.
struct ServingContext {
  const config::ServerConfig& config;
  cluster::DeviceAssignment& devices;
  std::filesystem::path worker_program;
  std::filesystem::path log_folder;      // worker logs: LOG_FOLDER/MODEL-GROUP/rank-R.log
  std::filesystem::path socket_folder;   // private
  WorkerClientFactory make_client;
  // Told when a model begins or ceases to answer. From any thread, one call at a time for each model.
  std::function<void(const std::string& model, bool serving)> on_serving_changed;
};

enum class LoadState { kLoading, kLoaded, kFailed };

// Threads:  every method from any thread, start() and stop() from one.
// Owns:     worker groups, their processes and their devices.
class ServedModel final : private GroupListener {
 public:
  // Takes the devices. Errors: kInvalidArgument (bad device ids; no Hugging Face directory), kResourceExhausted (too few free GPUs).
  [[nodiscard]] static Result<std::unique_ptr<ServedModel>> create(const std::string& name, const config::ModelConfig& config,
                                                                   const ServingContext& context);
  ~ServedModel() override;
  ServedModel(const ServedModel&) = delete;
  ServedModel& operator=(const ServedModel&) = delete;

  // Starts the worker groups; returns at once.
  void start();
  // Waits until every group has loaded the model or one has failed to. kLoading: neither by the deadline.
  [[nodiscard]] LoadState wait_loaded(Deadline deadline) EXCLUDES(mutex_);
  // REQUIRES: wait_loaded() has answered kFailed.
  [[nodiscard]] Error load_failure() const;

  [[nodiscard]] JobQueue& jobs() { return jobs_; }
  // A group is ready.
  [[nodiscard]] bool serving() const EXCLUDES(mutex_);
  // A group is ready, loading, or will be started again.
  [[nodiscard]] bool healthy() const;

  // Ends what still waits or runs, and the workers; those get until `drain` to finish.
  void stop(Deadline drain);

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] int num_groups() const { return num_groups_; }
  [[nodiscard]] int num_stages() const { return num_stages_; }
  // What the first group that was ready said of itself.
  [[nodiscard]] std::optional<WorkerInfo> info() const EXCLUDES(mutex_);
  // CUDA_VISIBLE_DEVICES of each group; empty on CPU.
  [[nodiscard]] const std::vector<std::vector<std::string>>& devices() const { return devices_; }

 private:
  ServedModel(std::string name, const config::ModelConfig& config, const ServingContext& context, int num_groups);
  [[nodiscard]] std::optional<Error> take_devices(const config::ModelConfig& config);
  void make_groups(const config::ModelConfig& config);
  void on_group_ready(int group, std::shared_ptr<WorkerClient> client, const WorkerInfo& info) override EXCLUDES(mutex_);
  void on_group_lost(int group, const Error& cause, bool for_good) override EXCLUDES(mutex_);
  void announce() EXCLUDES(mutex_, announce_mutex_);

  const std::string name_;
  const ServingContext context_;
  const int num_groups_;
  const int num_stages_;
  std::vector<std::vector<std::string>> devices_;  // by group; constant after create()

  mutable Mutex mutex_;
  CondVar changed_;
  std::vector<bool> ready_ GUARDED_BY(mutex_);
  std::vector<bool> loaded_ GUARDED_BY(mutex_);  // was ready at least once
  std::optional<WorkerInfo> info_ GUARDED_BY(mutex_);

  Mutex announce_mutex_;  // keeps on_serving_changed() calls in order; a leaf: the callee takes none of ours
  bool announced_ GUARDED_BY(announce_mutex_) = false;

  JobQueue jobs_;
  std::vector<std::unique_ptr<WorkerGroup>> groups_;  // after jobs_: their calls must end before it goes
};

}  // namespace penstock::frontend
