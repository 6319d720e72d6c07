#pragma once
// One worker group: the processes that together serve one copy of a model. Started, watched, restarted, stopped.
#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/mutex.h"
#include "cluster/host_ledger.h"
#include "cluster/process_group.h"
#include "cluster/wake_event.h"
#include "frontend/agent_pool.h"
#include "frontend/group_ranks.h"
#include "frontend/worker_client.h"

namespace penstock::frontend {

// The ranks of a group that are not on this machine.
struct RanksElsewhere {
  AgentPool* agents = nullptr;
  cluster::GroupShape shape;
  std::string rdzv_host;                     // this machine's name for the others; empty: as their agents call it
  int rdzv_port = 0;                         // where rank 0 listens; 0 = any free one
  std::string hidden_variables;              // a regular expression
  std::string model_folder;                  // must be there, too
  Deadline gather_until = Deadline::at({});  // the first start waits so long for machines
};

enum class GroupState {
  kStarting,  // processes run or are being started, the model is loading
  kReady,
  kBackoff,   // lost; will be started again
  kFailed,    // the first start failed, or restarts have failed for max_retry: stays down
  kStopped,
};
[[nodiscard]] std::string_view to_string(GroupState state);

struct WorkerGroupOptions {
  std::string model;                         // for messages
  int group = 0;                             // its number among the model's groups
  std::vector<std::string> command;          // program and arguments (worker_command.h)
  std::string socket_option = "--socket";    // follows the command, then the socket's path
  std::vector<std::string> environment;      // "NAME=VALUE", besides what every worker gets
  std::filesystem::path log_folder;          // rank r writes rank-r.log in it
  std::filesystem::path socket_folder;       // private (0700); rank 0 listens there, and rank r of TorchServe's worker on NAME.r in place of NAME.0
  int num_ranks = 1;                         // on this machine: the first ones
  std::optional<RanksElsewhere> elsewhere;   // absent: these are all
  cluster::RankVariables variables = cluster::RankVariables::kRank;
  int omp_threads = 1;                       // of each rank
  std::vector<std::string> hidden_variables; // that it does not inherit
  std::vector<int> cores;                    // omp_threads of them for each rank; empty = all ranks run on any core
  std::optional<std::string> visible_devices; // CUDA_VISIBLE_DEVICES; absent = as inherited
  milliseconds startup_timeout{120000};
  milliseconds max_retry{300000};            // restarts are tried for so long after the first loss
  milliseconds backoff_unit{1000};           // restart delays are 1, 1, 2, 3, 5, 8, ... of it
};

// Told by the group's own thread, with no lock held.
class GroupListener {
 public:
  virtual ~GroupListener() = default;
  virtual void on_group_ready(int group, std::shared_ptr<WorkerClient> client, const WorkerInfo& info) = 0;
  // `for_good`: it will not be started again.
  virtual void on_group_lost(int group, const Error& cause, bool for_good) = 0;
  // It was ready and has been told to stop: the place to wait for what it still does. false: it still does something at the deadline;
  // then it is asked again while there is time.
  [[nodiscard]] virtual bool on_group_stopping(int group, Deadline until) = 0;
  // Its processes are gone and it will not start again: stopped or failed. The last call.
  virtual void on_group_ended(int group) = 0;
};

// Threads:  every method from any thread; one thread of its own starts and watches the processes.
// Owns:     the processes; the destructor kills them.
// Errors:   a rank's end ends the whole group at once, with a cause such as "rank 1 was killed by signal 9 (SIGKILL)". A group that
//           was ready before is started again after a growing delay; one whose first start fails is not: that is for the operator.
class WorkerGroup {
 public:
  WorkerGroup(WorkerGroupOptions options, WorkerClientFactory make_client, GroupListener& listener);
  ~WorkerGroup();
  WorkerGroup(const WorkerGroup&) = delete;
  WorkerGroup& operator=(const WorkerGroup&) = delete;

  // Called once. Without a thread for it, the group has failed at once.
  void start() EXCLUDES(mutex_);
  // Lets the worker finish what runs until the deadline, then ends its processes (SIGTERM, then SIGKILL). Returns at once;
  // on_group_ended() tells when it is done. A later call can only give it less time.
  void request_stop(Deadline drain) EXCLUDES(mutex_);
  // The same, and waits for the end.
  void stop(Deadline drain) EXCLUDES(mutex_, joining_);

  // Ends the processes of a group that is ready and starts them anew, as if it had been lost for this reason. Returns at once.
  void restart(const Error& why) EXCLUDES(mutex_);

  [[nodiscard]] GroupState state() const EXCLUDES(mutex_);
  // Why it was lost the last time.
  [[nodiscard]] std::optional<Error> last_failure() const EXCLUDES(mutex_);
  // Process ids by rank, of those on this machine; empty when none run.
  [[nodiscard]] std::vector<pid_t> pids() const EXCLUDES(mutex_);

 private:
  void run() EXCLUDES(mutex_);
  void live() EXCLUDES(mutex_);
  void drain(WorkerClient& client) EXCLUDES(mutex_);
  [[nodiscard]] Result<std::unique_ptr<GroupRanks>> launch(const std::filesystem::path& socket) EXCLUDES(mutex_);
  [[nodiscard]] cluster::RankGroupOptions local_ranks(const std::filesystem::path& socket) const;
  [[nodiscard]] Result<std::unique_ptr<RemoteRanks>> reserve_elsewhere() EXCLUDES(mutex_);
  void start_elsewhere(RemoteRanks& remote, const cluster::RankGroupOptions& local, int master_port) const;
  [[nodiscard]] std::optional<Error> serve(GroupRanks& ranks, const std::shared_ptr<WorkerClient>& client) EXCLUDES(mutex_);
  [[nodiscard]] Result<WorkerInfo> load(GroupRanks& ranks, WorkerClient& client) EXCLUDES(mutex_);
  void report_loss(const Error& failure) EXCLUDES(mutex_);
  void back_off() EXCLUDES(mutex_);
  [[nodiscard]] Error describe_end(GroupRanks& ranks, const RankEnd& first, std::string_view when) const;

  [[nodiscard]] std::optional<Deadline> stop_by() const EXCLUDES(mutex_);
  [[nodiscard]] std::optional<Error> take_restart() EXCLUDES(mutex_);
  void set_state(GroupState state) EXCLUDES(mutex_);

  const WorkerGroupOptions options_;
  const WorkerClientFactory make_client_;
  GroupListener& listener_;
  std::thread thread_;
  cluster::WakeEvent told_;  // the group's thread looks up: it has been told something
  Mutex joining_;  // several may stop(); one joins the thread

  // Owned by the group's thread.
  bool ever_ready_ = false;
  int epoch_ = 0;                           // counts starts
  int failures_ = 0;                        // since it was ready the last time
  Clock::time_point lost_since_{};          // the first of these

  mutable Mutex mutex_;
  CondVar changed_;
  GroupState state_ GUARDED_BY(mutex_) = GroupState::kStarting;
  std::optional<Error> last_failure_ GUARDED_BY(mutex_);
  std::vector<pid_t> pids_ GUARDED_BY(mutex_);
  std::optional<Error> restart_ GUARDED_BY(mutex_);     // this epoch is to end, and why
  std::optional<Deadline> stop_by_ GUARDED_BY(mutex_);  // stop, with so much time to drain; only ever earlier
};

}  // namespace penstock::frontend
