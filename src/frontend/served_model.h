#pragma once
// One version of a model that is served: its worker groups and its jobs.
#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/mutex.h"
#include "cluster/device_assignment.h"
#include "config/server_config.h"
#include "frontend/group_resources.h"
#include "frontend/job_queue.h"
#include "frontend/model_spec.h"
#include "frontend/scale_planner.h"
#include "frontend/worker_command.h"
#include "frontend/worker_group.h"

namespace penstock::frontend {

class ServingMetrics;

// What all models of a server share. The references outlive the models.
struct ServingContext {
  const config::ServerConfig& config;
  cluster::DeviceAssignment& devices;    // GPUs
  cluster::DeviceAssignment& cores;
  WorkerPrograms programs;
  std::vector<std::string> hidden_variables;  // that workers do not inherit
  std::filesystem::path log_folder;      // worker logs: LOG_FOLDER/MODEL-GROUP/rank-R.log, MODEL:VERSION-GROUP for versions but 1.0
  std::filesystem::path socket_folder;   // private
  // The client of a worker that listens, or will listen, on `socket`, and got so many devices.
  std::function<std::shared_ptr<WorkerClient>(const ModelSpec& spec, size_t num_devices, const std::filesystem::path& socket)> make_client;
  // Told when a model, or one of its versions, begins or ceases to answer, comes or goes. From any thread.
  std::function<void(const std::string& model)> on_serving_changed;
  ServingMetrics* metrics = nullptr;     // null: nobody counts
  SpanExporter* spans = nullptr;         // null: nobody traces
  AgentPool* agents = nullptr;           // null: no agent can join, so every worker group is on this machine
  milliseconds backoff_unit{1000};       // of the delays between a worker's restarts; tests take less
};

enum class LoadState { kLoading, kLoaded, kFailed };

struct LoadOutcome {
  LoadState state = LoadState::kLoading;
  std::optional<Error> failure;  // of kFailed
};

// How many worker groups a model has: at least min, and up to max while its load asks for them.
struct WorkerRange {
  int min = 1;
  int max = 1;
};

// One worker group, for descriptions.
struct WorkerStatus {
  int group = 0;
  std::chrono::system_clock::time_point started;
  GroupState state = GroupState::kStarting;
  bool leaving = false;               // finishes what it does, then ends
  std::vector<pid_t> pids;            // by rank
  std::vector<std::string> devices;   // empty on CPU
};

// Threads:  every method from any thread.
// Owns:     worker groups, their processes and their devices.
// Lifetime: never destroyed by a thread that calls observers (worker_client.h); the registry sees to that.
class ServedModel final : private GroupListener {
 public:
  // Takes the devices of range->min groups; without a range, of the spec's min_workers or the server's default number. Starts nothing.
  // Errors, with groups only: those of worker_command(); kInvalidArgument (bad device ids), kResourceExhausted (too few free GPUs).
  [[nodiscard]] static Result<std::shared_ptr<ServedModel>> create(ModelSpec spec, const ServingContext& context,
                                                                   std::optional<WorkerRange> range = std::nullopt);
  ~ServedModel() override;
  ServedModel(const ServedModel&) = delete;
  ServedModel& operator=(const ServedModel&) = delete;

  // Starts the worker groups that do not run yet; returns at once.
  void start() EXCLUDES(mutex_);
  // Adds and starts groups until there are range.min, or tells the newest to leave until there are range.max: they take nothing new and get until
  // `drain` to finish. Groups that have failed are replaced. Returns at once. Errors: as create(), and kUnavailable after stop(); then nothing
  // has changed.
  [[nodiscard]] std::optional<Error> scale(WorkerRange range, Deadline drain) EXCLUDES(scaling_, mutex_);
  // Called now and then: starts groups anew that stay silent or are broken (JobQueue), and adds a group or dismisses one where the load asks for it
  // (scale_planner.h). Waits for nothing. What it does, and what it cannot, is logged.
  void look_after() EXCLUDES(scaling_, mutex_);
  // Waits until every group has loaded the model and those that leave have gone, or one has failed to load. kLoading: neither by the deadline,
  // or the model was stopped.
  [[nodiscard]] LoadOutcome wait_loaded(Deadline deadline) EXCLUDES(mutex_);

  [[nodiscard]] JobQueue& jobs() { return jobs_; }
  // A group is ready.
  [[nodiscard]] bool serving() const EXCLUDES(mutex_);
  // A group is ready, loading, or will be started again; or there should be none.
  [[nodiscard]] bool healthy() const EXCLUDES(mutex_);

  // Refuses new jobs, lets the others end until `drain`, then stop().
  void retire(Deadline drain, const Error& why) EXCLUDES(scaling_, mutex_);
  // Ends what still waits or runs, and the workers; those get until `drain` to finish.
  void stop(Deadline drain) EXCLUDES(scaling_, mutex_);

  // Will never serve (again): stop() was called.
  [[nodiscard]] bool stopped() const EXCLUDES(scaling_);

  [[nodiscard]] const ModelSpec& spec() const { return spec_; }
  [[nodiscard]] const config::ServerConfig& server() const { return context_.config; }
  [[nodiscard]] const std::string& name() const { return spec_.name; }
  [[nodiscard]] const std::string& version() const { return spec_.version; }
  [[nodiscard]] int num_ranks() const { return spec_.config.num_ranks(); }
  [[nodiscard]] WorkerRange range() const EXCLUDES(mutex_);
  [[nodiscard]] seconds response_timeout() const;
  [[nodiscard]] seconds startup_timeout() const;
  [[nodiscard]] int job_queue_size() const;
  // What the first group that was ready said of itself.
  [[nodiscard]] std::optional<WorkerInfo> info() const EXCLUDES(mutex_);
  // Every group that runs or should, by number.
  [[nodiscard]] std::vector<WorkerStatus> workers() const EXCLUDES(mutex_);

 private:
  struct Slot {
    std::shared_ptr<WorkerGroup> group;
    GroupResources held;   // until its processes are gone
    int rendezvous = 0;    // its number among groups that exist at the same time
    std::chrono::system_clock::time_point started{};
    bool running = false;  // start() was called
    bool ready = false;
    bool loaded = false;   // was ready at least once
    bool leaving = false;
    bool ended = false;
    bool known_to_jobs = true;  // jobs_.remove_group() is still to come
  };

  ServedModel(ModelSpec spec, const ServingContext& context, std::optional<WorkerRange> range, Result<WorkerCommand> command);
  [[nodiscard]] std::optional<Error> add_groups(int count) EXCLUDES(mutex_);
  [[nodiscard]] std::shared_ptr<WorkerGroup> make_group(int number, const GroupResources& held, int rendezvous);
  [[nodiscard]] RanksElsewhere ranks_elsewhere(const GroupResources& held, int rendezvous) const;
  [[nodiscard]] int free_rendezvous(std::span<const Slot> made) const EXCLUDES(mutex_);
  void dismiss(int count, Deadline drain) EXCLUDES(mutex_);
  void forget_ended(bool failed_too) EXCLUDES(mutex_);
  [[nodiscard]] int num_staying() const EXCLUDES(mutex_);
  void restart_useless_groups() EXCLUDES(mutex_);
  void restart(int group, const Error& why) EXCLUDES(mutex_);
  void follow_load() REQUIRES(scaling_) EXCLUDES(mutex_);
  [[nodiscard]] LoadSample load_sample() const EXCLUDES(mutex_);
  [[nodiscard]] std::optional<Error> load_failure() const EXCLUDES(mutex_);
  [[nodiscard]] std::vector<std::shared_ptr<WorkerGroup>> groups() const EXCLUDES(mutex_);
  void on_group_ready(int group, std::shared_ptr<WorkerClient> client, const WorkerInfo& info) override EXCLUDES(mutex_);
  void on_group_lost(int group, const Error& cause, bool for_good) override EXCLUDES(mutex_);
  [[nodiscard]] bool on_group_stopping(int group, Deadline until) override;
  void on_group_ended(int group) override EXCLUDES(mutex_);
  void announce() EXCLUDES(mutex_, announce_mutex_);

  const ModelSpec spec_;
  const ServingContext context_;
  const Result<WorkerCommand> command_;  // of its workers; or why it can have none
  const Clock::time_point made_ = Clock::now();

  mutable Mutex scaling_;  // one scale() at a time; held while groups are made and told to leave, which waits for nothing
  ScalePlanner planner_ GUARDED_BY(scaling_);
  bool stopped_ GUARDED_BY(scaling_) = false;
  mutable Mutex mutex_;
  CondVar changed_;
  int next_group_ GUARDED_BY(mutex_) = 0;
  WorkerRange range_ GUARDED_BY(mutex_);
  std::optional<WorkerInfo> info_ GUARDED_BY(mutex_);

  Mutex announce_mutex_;  // keeps on_serving_changed() calls in order; a leaf: the callee takes none of ours
  bool announced_ GUARDED_BY(announce_mutex_) = false;

  JobQueue jobs_;
  std::map<int, Slot> slots_ GUARDED_BY(mutex_);  // after jobs_: the groups' calls must end before it goes
};

}  // namespace penstock::frontend
