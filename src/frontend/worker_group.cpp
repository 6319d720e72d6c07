#include "frontend/worker_group.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/log.h"
#include "cluster/log_tail.h"
#include "config/http_address.h"

namespace penstock::frontend {
namespace {

// How often loading looks up to see whether it should stop.
constexpr milliseconds kLookUp{100};
// The same while it drains.
constexpr milliseconds kDrainSlice{500};
// What a worker gets between SIGTERM and SIGKILL: when it should stop, and when it has lost a rank and can do no more.
constexpr milliseconds kStopGrace{3000};
constexpr milliseconds kLostGrace{100};
// After a first rank's end the others often follow; so long to see whether one of them is the real cause.
constexpr milliseconds kGatherExits{30};

int fibonacci(int n) {
  int a = 1, b = 1;
  for (int i = 1; i < n && a < 1000; ++i) a = std::exchange(b, a + b);
  return a;
}

}  // namespace

std::string_view to_string(GroupState state) {
  switch (state) {
    case GroupState::kStarting: return "starting";
    case GroupState::kReady: return "ready";
    case GroupState::kBackoff: return "waiting to be restarted";
    case GroupState::kFailed: return "failed";
    case GroupState::kStopped: return "stopped";
  }
  return "unknown";
}

WorkerGroup::WorkerGroup(WorkerGroupOptions options, WorkerClientFactory make_client, GroupListener& listener)
    : options_(std::move(options)), make_client_(std::move(make_client)), listener_(listener) {}

WorkerGroup::~WorkerGroup() { stop(Deadline::after(milliseconds(0))); }

void WorkerGroup::start() {
  PENSTOCK_CHECK(!thread_.joinable(), "worker group {} of model {} is started twice", options_.group, options_.model);
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& failure) {
    report_loss(error(Code::kResourceExhausted, "model '{}': worker group {} gets no thread: {}", options_.model, options_.group, failure.what()));
    listener_.on_group_ended(options_.group);
  }
}

void WorkerGroup::request_stop(Deadline drain) {
  MutexLock lock(mutex_);
  if (!stop_by_ || drain.when() < stop_by_->when()) stop_by_ = drain;
  changed_.notify_all();
  told_.set();
}

void WorkerGroup::stop(Deadline drain) {
  request_stop(drain);
  MutexLock lock(joining_);
  if (thread_.joinable()) thread_.join();
}

void WorkerGroup::restart(const Error& why) {
  MutexLock lock(mutex_);
  if (state_ != GroupState::kReady || stop_by_ || restart_) return;
  restart_ = why;
  told_.set();
}

// What restart() was called with in this epoch.
std::optional<Error> WorkerGroup::take_restart() {
  MutexLock lock(mutex_);
  if (!stop_by_) told_.clear();
  return std::exchange(restart_, std::nullopt);
}

GroupState WorkerGroup::state() const {
  MutexLock lock(mutex_);
  return state_;
}

std::optional<Error> WorkerGroup::last_failure() const {
  MutexLock lock(mutex_);
  return last_failure_;
}

std::vector<pid_t> WorkerGroup::pids() const {
  MutexLock lock(mutex_);
  return pids_;
}

std::optional<Deadline> WorkerGroup::stop_by() const {
  MutexLock lock(mutex_);
  return stop_by_;
}

void WorkerGroup::set_state(GroupState state) {
  MutexLock lock(mutex_);
  state_ = state;
}

// What goes wrong here (no descriptor, no memory) is this group's failure, not the server's.
void WorkerGroup::run() {
  try {
    live();
  } catch (const std::exception& failure) {
    ever_ready_ = false;  // it does not start again by itself
    report_loss(error(Code::kInternal, "model '{}': worker group {} cannot be looked after: {}", options_.model, options_.group, failure.what()));
    MutexLock lock(mutex_);
    pids_.clear();
  }
  if (state() != GroupState::kFailed) set_state(GroupState::kStopped);
  listener_.on_group_ended(options_.group);
}

// The life of the group: start, serve until a rank is lost, wait a while, start again.
void WorkerGroup::live() {
  while (!stop_by() && state() != GroupState::kFailed) {
    set_state(GroupState::kStarting);
    epoch_ += 1;
    const auto socket = options_.socket_folder / fmt::format("{}-{}.sock.0", options_.group, epoch_);
    auto ranks = launch(socket);
    if (!ranks) {
      if (!stop_by()) report_loss(ranks.error());
    } else {
      const auto client = make_client_(socket);
      const auto failure = serve(**ranks, client);
      if (failure) report_loss(*failure);
      const auto drain_by = stop_by();
      if (!failure && state() == GroupState::kReady && drain_by) drain(*client);
      const bool in_a_hurry = failure || !drain_by || stop_by()->passed();
      (*ranks)->kill_all(in_a_hurry ? kLostGrace : kStopGrace);
    }
    for (int rank = 0; rank < options_.num_ranks; ++rank) {
      std::error_code ignored;
      std::filesystem::remove(std::filesystem::path(socket).replace_extension(std::to_string(rank)), ignored);
    }
    {
      MutexLock lock(mutex_);
      pids_.clear();
    }
    if (state() == GroupState::kBackoff) back_off();
  }
}

// In slices: somebody in a hurry may have shortened the time meanwhile.
void WorkerGroup::drain(WorkerClient& client) {
  const auto slice = [this] { return Deadline::at(std::min(stop_by()->when(), Clock::now() + kDrainSlice)); };
  bool finished = false;
  while (!(finished = listener_.on_group_stopping(options_.group, slice())) && !stop_by()->passed()) {
  }
  while (!stop_by()->passed()) {
    const Deadline until = slice();
    finished = client.drain(until);
    if (finished || !until.passed()) break;  // else the worker is gone
  }
  if (!finished) spdlog::warn("model '{}': worker group {} has not finished its requests in time", options_.model, options_.group);
}

Result<std::unique_ptr<GroupRanks>> WorkerGroup::launch(const std::filesystem::path& socket) {
  std::error_code failed;
  std::filesystem::create_directories(options_.log_folder, failed);
  if (failed) {
    return error(Code::kInvalidArgument, "cannot make the log folder {}: {}; choose another with --log-dir", options_.log_folder.string(),
                 failed.message());
  }
  std::vector<std::uintmax_t> log_starts;
  for (int rank = 0; rank < options_.num_ranks; ++rank) {
    log_starts.push_back(cluster::log_size(options_.log_folder / fmt::format("rank-{}.log", rank)));
  }
  const auto failure = [this](const Error& why) { return error(why.code(), "model '{}': worker group {}: {}", options_.model, options_.group, why.message()); };
  cluster::RankGroupOptions group = local_ranks(socket);
  std::unique_ptr<RemoteRanks> remote;
  if (options_.elsewhere) {
    auto reserved = reserve_elsewhere();
    if (!reserved) return failure(reserved.error());
    remote = std::move(*reserved);
    const RanksElsewhere& elsewhere = *options_.elsewhere;
    group.world_size = options_.num_ranks + elsewhere.shape.num_hosts * elsewhere.shape.ranks_per_host;
    group.master_addr = elsewhere.rdzv_host.empty() ? remote->front_door() : elsewhere.rdzv_host;
    group.master_port = elsewhere.rdzv_port;
    group.others_on_this_machine = config::is_loopback(group.master_addr);
    group.job = cluster::new_job_name();
  }
  auto ranks = cluster::RankGroup::spawn(group);
  if (!ranks) return failure(ranks.error());
  if (remote) start_elsewhere(*remote, group, (*ranks)->master_port());
  spdlog::info("model '{}': worker group {} started: {} rank(s){}, logs in {}", options_.model, options_.group, std::max(group.world_size, options_.num_ranks),
               remote ? fmt::format(", {} here, the others on {}", options_.num_ranks, remote->machines()) : "", options_.log_folder.string());
  MutexLock lock(mutex_);
  pids_ = (*ranks)->pids();
  return std::make_unique<GroupRanks>(std::move(*ranks), std::move(remote), options_.log_folder, std::move(log_starts));
}

cluster::RankGroupOptions WorkerGroup::local_ranks(const std::filesystem::path& socket) const {
  cluster::RankGroupOptions group;
  group.num_ranks = options_.num_ranks;
  group.variables = options_.variables;
  group.log_folder = options_.log_folder;
  group.process.argv = options_.command;
  group.process.argv.insert(group.process.argv.end(), {options_.socket_option, socket.string()});
  group.process.env = options_.environment;
  group.process.env.push_back(fmt::format("OMP_NUM_THREADS={}", options_.omp_threads));
  if (!options_.cores.empty()) {
    group.cores_per_rank = options_.omp_threads;
    group.cores = options_.cores;
  }
  const bool has_others = options_.num_ranks > 1 || options_.elsewhere || options_.variables == cluster::RankVariables::kTorchrun;
  if (has_others) group.process.env.push_back("LOGLEVEL=INFO");  // as torchrun's workers have it
  group.process.unset = options_.hidden_variables;
  if (options_.visible_devices) group.process.env.push_back("CUDA_VISIBLE_DEVICES=" + *options_.visible_devices);
  return group;
}

// The first start waits for machines while the server is young: their agents need it to be there. Later ones do not: requests wait for them.
Result<std::unique_ptr<RemoteRanks>> WorkerGroup::reserve_elsewhere() {
  const RanksElsewhere& elsewhere = *options_.elsewhere;
  for (bool told = false;; told = true) {
    const uint64_t now = elsewhere.agents->changes();
    auto reserved = elsewhere.agents->reserve(elsewhere.shape, told_);
    if (reserved || ever_ready_ || stop_by() || elsewhere.gather_until.passed()) return reserved;
    if (!told) spdlog::info("model '{}': worker group {} waits for machines: {}", options_.model, options_.group, reserved.error().message());
    elsewhere.agents->wait_for_change(now, Deadline::at(std::min(elsewhere.gather_until.when(), Clock::now() + kLookUp)));
  }
}

void WorkerGroup::start_elsewhere(RemoteRanks& remote, const cluster::RankGroupOptions& local, int master_port) const {
  cluster::StartRanks start;
  start.group = options_.log_folder.filename().string();
  start.arguments.assign(local.process.argv.begin() + 1, local.process.argv.end());
  start.model_folder = options_.elsewhere->model_folder;
  start.hidden_variables = options_.elsewhere->hidden_variables;
  start.world_size = local.world_size;
  start.master_addr = local.master_addr;
  start.master_port = master_port;
  start.job = local.job;
  start.omp_threads = options_.omp_threads;
  remote.start(start);
}

// Loads the model, takes requests, and watches the ranks. Answers why the group was lost; nullopt: it was told to stop.
std::optional<Error> WorkerGroup::serve(GroupRanks& ranks, const std::shared_ptr<WorkerClient>& client) {
  const auto info = load(ranks, *client);
  if (stop_by()) return std::nullopt;
  if (!info) return info.error();
  ever_ready_ = true;
  failures_ = 0;
  static_cast<void>(take_restart());  // one that came too late for the last epoch
  set_state(GroupState::kReady);
  spdlog::info("model '{}': worker group {} is ready: {}, {} stage(s), {} requests at once", options_.model, options_.group,
               info.value().architecture, info.value().num_stages, info.value().max_concurrent);
  listener_.on_group_ready(options_.group, client, info.value());
  while (!stop_by()) {
    if (const auto end = ranks.wait_any(Deadline::never(), told_.fd())) return describe_end(ranks, *end, "while it served");
    if (stop_by()) break;
    if (auto why = take_restart()) {
      // A rank's death says more than that its connection broke.
      if (const auto end = ranks.wait_any(Deadline::after(milliseconds(0)))) return describe_end(ranks, *end, "while it served");
      return why;
    }
  }
  return std::nullopt;
}

Result<WorkerInfo> WorkerGroup::load(GroupRanks& ranks, WorkerClient& client) {
  const Deadline deadline = Deadline::after(options_.startup_timeout);
  const auto began = Clock::now();
  while (!stop_by()) {
    if (const auto end = ranks.wait_any(Deadline::after(milliseconds(10)), told_.fd())) return describe_end(ranks, *end, "while it loaded the model");
    auto info = client.wait_ready(Deadline::after(kLookUp));
    if (info) info->load_time = std::chrono::duration_cast<milliseconds>(Clock::now() - began);
    if (info) return info;
    const Code code = info.error().code();
    // A worker that ends cancels what waits for it; why it does is known when it has ended.
    if (code != Code::kDeadlineExceeded && code != Code::kUnavailable && code != Code::kCancelled) {
      return error(code, "model '{}' cannot be loaded: {}", options_.model, info.error().message());
    }
    if (deadline.passed()) {
      return error(Code::kDeadlineExceeded, "model '{}': worker group {} did not load the model within {} s (startupTimeout){}",
                   options_.model, options_.group, to_seconds(options_.startup_timeout), ranks.log_tail(0));
    }
  }
  return Error(Code::kCancelled, "stopped while loading");
}

// Says so to everyone, and decides whether the group is started again.
void WorkerGroup::report_loss(const Error& failure) {
  if (failures_++ == 0) lost_since_ = Clock::now();
  const auto next_start = Clock::now() + fibonacci(failures_) * options_.backoff_unit;
  const bool for_good = !ever_ready_ || next_start - lost_since_ > options_.max_retry;
  {
    MutexLock lock(mutex_);
    last_failure_ = failure;
    state_ = for_good ? GroupState::kFailed : GroupState::kBackoff;
  }
  // A first start that fails is told to whoever started the server, as the program's last words.
  if (ever_ready_) spdlog::error("{}: {}", for_good ? "lost for good" : "lost, will be started again", failure.message());
  const char* advice = for_good ? "it stays down" : "it is being started again: try again";
  listener_.on_group_lost(options_.group, error(Code::kUnavailable, "{}; {}", failure.message(), advice), for_good);
}

void WorkerGroup::back_off() {
  const Deadline next_start = Deadline::after(fibonacci(failures_) * options_.backoff_unit);
  MutexLock lock(mutex_);
  while (!stop_by_ && !next_start.passed()) (void)changed_.wait(mutex_, next_start);
}

Error WorkerGroup::describe_end(GroupRanks& ranks, const RankEnd& first, std::string_view when) const {
  // One rank's end brings the others down with library errors: a rank that was killed explains more than one that exited.
  RankEnd cause = first;
  const Deadline gather = Deadline::after(kGatherExits);
  while (!cause.explains) {
    const auto next = ranks.wait_any(gather);
    if (!next) break;
    if (next->explains) cause = *next;
  }
  // Log lines are for the operator who waits for the first start; later losses are also told to clients, without them.
  return error(cause.bad_input ? Code::kInvalidArgument : Code::kUnavailable, "model '{}': rank {} of worker group {} {} {}{}", options_.model, cause.rank,
               options_.group, cause.how, when, ever_ready_ ? "" : cause.log_tail);
}

}  // namespace penstock::frontend
