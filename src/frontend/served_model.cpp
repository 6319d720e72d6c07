#include "frontend/served_model.h"

#include <algorithm>
#include <cstdlib>
#include <system_error>
#include <thread>
#include <utility>

#include "base/log.h"
#include "config/environment.h"
#include "config/python_settings.h"
#include "frontend/serving_metrics.h"

namespace penstock::frontend {
namespace {

// What groups get to end their processes in when nothing is left to drain.
constexpr seconds kStopTime{5};

JobQueueOptions job_options(const ModelSpec& spec, const ServingContext& context) {
  const config::ServerConfig& server = context.config;
  const config::ModelConfig& config = spec.config;
  JobQueueOptions options;
  options.model = spec.name;
  options.max_waiting = static_cast<size_t>(config.job_queue_size > 0 ? config.job_queue_size : server.job_queue_size);
  options.client_timeout = config.client_timeout;
  options.needs_free_worker = config.use_job_ticket;
  options.move_lost = config.handler.retry;
  options.response_timeout = config.response_timeout.value_or(server.default_response_timeout);
  options.reporter = {spec.name, spec.version, context.metrics ? context.metrics->meter(spec.name, spec.version) : nullptr, context.spans};
  if (config.sequences.batching) {
    options.sequences.max_sequences = static_cast<size_t>(config.sequences.max_sequences);
    options.sequences.max_waiting = static_cast<size_t>(config.sequences.max_waiting);
    const bool given = config.sequences.max_idle > milliseconds(0);
    options.sequences.max_idle = given ? config.sequences.max_idle : options.response_timeout;
    options.sequences.max_life = config.sequences.max_life;
  }
  return options;
}

// As TorchServe names its workers, by a port from 9000 on.
std::string worker_name(const ModelSpec& spec, int group) { return fmt::format("W-{}-{}_{}", 9000 + group, spec.name, spec.version); }

std::string log_name(const ModelSpec& spec, int group) {
  return spec.version == kDefaultVersion ? fmt::format("{}-{}", spec.name, group) : fmt::format("{}:{}-{}", spec.name, spec.version, group);
}

// Of each rank: as the model says, else as this process was told, else one.
int omp_threads(const config::ModelConfig& config) {
  if (config.torchrun.omp_num_threads > 0) return config.torchrun.omp_num_threads;
  const auto inherited = config::process_environment()("OMP_NUM_THREADS");
  return inherited ? std::clamp(std::atoi(inherited->c_str()), 1, 1024) : 1;
}

}  // namespace

Result<std::shared_ptr<ServedModel>> ServedModel::create(ModelSpec spec, const ServingContext& context, std::optional<WorkerRange> range) {
  auto command = worker_command(spec, context.programs);
  std::shared_ptr<ServedModel> model(new ServedModel(std::move(spec), context, range, std::move(command)));
  if (auto failure = model->add_groups(model->range().min)) return *failure;
  return model;
}

ServedModel::ServedModel(ModelSpec spec, const ServingContext& context, std::optional<WorkerRange> range, Result<WorkerCommand> command)
    : spec_(std::move(spec)), context_(context), command_(std::move(command)), jobs_(job_options(spec_, context)) {
  const config::ModelConfig& config = spec_.config;
  const int min = config.min_workers > 0 ? config.min_workers : std::max(1, context.config.default_workers_per_model);
  range_ = range.value_or(WorkerRange{min, std::max(min, config.max_workers)});
}

ServedModel::~ServedModel() {
  stop(Deadline::after(milliseconds(0)));
  MutexLock lock(mutex_);
  for (const auto& [number, slot] : slots_) {
    if (!slot.running) release_resources(slot.held, context_.devices, context_.cores);
  }
}

std::shared_ptr<WorkerGroup> ServedModel::make_group(int number, const GroupResources& held, int rendezvous) {
  const config::ModelConfig& config = spec_.config;
  WorkerGroupOptions options;
  options.model = name();
  options.group = number;
  options.command = command_.value().arguments;
  options.socket_option = command_.value().socket_option;
  options.environment = command_.value().environment;
  if (spec_.handler_kind == HandlerKind::kPython) {
    const bool decode = config::python_settings(context_.config).decode_input_request;
    options.environment.push_back(fmt::format("TS_DECODE_INPUT_REQUEST={}", decode));
  }
  options.log_folder = context_.log_folder / log_name(spec_, number);
  options.socket_folder = context_.socket_folder;
  options.variables = command_.value().variables;
  options.num_ranks = config.ranks_per_host();
  if (config.torchrun.nnodes > 1) options.elsewhere = ranks_elsewhere(held, rendezvous);
  options.omp_threads = omp_threads(config);
  for (const std::string& core : held.cores) options.cores.push_back(std::stoi(core));
  if (!held.devices.empty()) options.visible_devices = cluster::device_list(held.devices);
  else if (config.device_type == config::DeviceType::kCpu) options.visible_devices = "";  // hides every GPU
  options.startup_timeout = startup_timeout();
  options.max_retry = config.max_retry_timeout;
  options.backoff_unit = context_.backoff_unit;
  options.hidden_variables = context_.hidden_variables;
  GroupListener& listener = *this;  // a private base: nobody else may report for the groups
  const auto make_client = [this, count = held.devices.size()](const std::filesystem::path& socket) { return context_.make_client(spec_, count, socket); };
  return std::make_shared<WorkerGroup>(std::move(options), make_client, listener);
}

RanksElsewhere ServedModel::ranks_elsewhere(const GroupResources& held, int rendezvous) const {
  const config::ModelConfig& config = spec_.config;
  RanksElsewhere elsewhere;
  elsewhere.agents = context_.agents;
  elsewhere.shape.num_hosts = config.torchrun.nnodes - 1;
  elsewhere.shape.ranks_per_host = config.ranks_per_host();
  elsewhere.shape.on_gpu = !held.devices.empty();
  elsewhere.shape.devices_per_host = config.devices_per_host();
  elsewhere.shape.device_ids = config.device_ids;
  elsewhere.shape.cores_per_rank = config.torchrun.omp_num_threads;
  elsewhere.rdzv_host = config.torchrun.rdzv_host;
  if (config.torchrun.rdzv_port > 0) elsewhere.rdzv_port = config.torchrun.rdzv_port + rendezvous;
  elsewhere.hidden_variables = context_.config.blacklist_env_vars;
  elsewhere.model_folder = config.handler.model_path.string();
  if (spec_.loaded_at_startup) elsewhere.gather_until = Deadline::at(made_ + startup_timeout());
  return elsewhere;
}

// The smallest number that no group has that exists, or is just being made.
int ServedModel::free_rendezvous(std::span<const Slot> made) const {
  MutexLock lock(mutex_);
  for (int number = 0;; ++number) {
    const auto is_it = [number](const Slot& slot) { return slot.rendezvous == number; };
    if (std::any_of(made.begin(), made.end(), is_it)) continue;
    const auto has_it = [number](const auto& entry) { return !entry.second.ended && entry.second.rendezvous == number; };
    if (std::none_of(slots_.begin(), slots_.end(), has_it)) return number;
  }
}

// All or none.
std::optional<Error> ServedModel::add_groups(int count) {
  if (count == 0) return std::nullopt;  // a model that no worker can run may be registered, described and given workers later
  if (!command_) return command_.error();
  if (spec_.config.torchrun.nnodes > 1 && !context_.agents) {
    return error(Code::kFailedPrecondition, "model '{}': torchrun.nnodes {}: no other machine can join this front door; give it a port for agents with agent_address "
                 "and agent_token_file", name(), spec_.config.torchrun.nnodes);
  }
  int first = 0;
  {
    MutexLock lock(mutex_);
    first = next_group_;
  }
  std::vector<Slot> made;
  const auto give_back = [&] {
    for (const Slot& slot : made) release_resources(slot.held, context_.devices, context_.cores);
  };
  try {
    for (int i = 0; i < count; ++i) {
      auto taken = take_resources(spec_, first + i, context_.devices, context_.cores);
      if (!taken) {
        give_back();
        return taken.error();
      }
      const int rendezvous = free_rendezvous(made);
      Slot& slot = made.emplace_back();
      slot.held = std::move(*taken);
      slot.rendezvous = rendezvous;
      slot.group = make_group(first + i, slot.held, rendezvous);
    }
  } catch (...) {  // no descriptor, no memory
    give_back();
    throw;
  }
  for (int i = 0; i < count; ++i) {
    jobs_.add_group(first + i);
    MutexLock lock(mutex_);
    slots_.emplace(first + i, std::move(made[static_cast<size_t>(i)]));
    next_group_ = first + i + 1;
  }
  return std::nullopt;
}

void ServedModel::start() {
  std::vector<std::shared_ptr<WorkerGroup>> fresh;
  {
    MutexLock lock(mutex_);
    for (auto& [number, slot] : slots_) {
      if (std::exchange(slot.running, true)) continue;
      slot.started = std::chrono::system_clock::now();
      fresh.push_back(slot.group);
    }
  }
  for (const auto& group : fresh) group->start();
}

std::optional<Error> ServedModel::scale(WorkerRange range, Deadline drain) {
  MutexLock one_at_a_time(scaling_);
  if (stopped_) return error(Code::kUnavailable, "model '{}' is being taken away", name());
  forget_ended(/*failed_too=*/true);
  const int staying = num_staying();
  if (range.min > staying) {
    if (auto failure = add_groups(range.min - staying)) return failure;
  } else {
    dismiss(std::max(0, staying - range.max), drain);
  }
  {
    MutexLock lock(mutex_);
    range_ = range;
  }
  start();
  return std::nullopt;
}

void ServedModel::look_after() {
  MutexLock one_at_a_time(scaling_);
  if (stopped_) return;
  restart_useless_groups();
  forget_ended(/*failed_too=*/false);
  follow_load();
}

void ServedModel::restart_useless_groups() {
  for (const int group : jobs_.take_stuck()) {
    restart(group, error(Code::kUnavailable, "model '{}': worker group {} has left two requests in a row without a word for {} s each (responseTimeout)",
                         name(), group, response_timeout().count()));
  }
  for (const auto& [group, why] : jobs_.broken_groups()) {
    restart(group, error(Code::kUnavailable, "model '{}': worker group {} is of no more use: {}", name(), group, why.message()));
  }
}

void ServedModel::restart(int group, const Error& why) {
  std::shared_ptr<WorkerGroup> found;
  {
    MutexLock lock(mutex_);
    const auto slot = slots_.find(group);
    if (slot != slots_.end()) found = slot->second.group;
  }
  if (found) found->restart(why);
}

void ServedModel::follow_load() {
  const WorkerRange bounds = range();
  const LoadSample load = load_sample();
  const int wanted = planner_.plan(load, {bounds.min, bounds.max, spec_.config.scale_up_after, spec_.config.scale_down_after}, Clock::now());
  if (wanted > load.groups) {
    spdlog::info("model '{}': {} requests have waited for {} ms: from {} to {} worker group(s), of {} at most", name(), load.waiting,
                 spec_.config.scale_up_after.count(), load.groups, wanted, bounds.max);
    forget_ended(/*failed_too=*/true);  // the new one takes the place of one that failed
    if (const auto failure = add_groups(wanted - load.groups)) spdlog::warn("{}; it is tried again while requests wait", failure->message());
    start();
  } else if (wanted < load.groups) {
    spdlog::info("model '{}': a worker group was not needed for {} ms: from {} to {} group(s), of {} at least", name(),
                 spec_.config.scale_down_after.count(), load.groups, wanted, bounds.min);
    dismiss(load.groups - wanted, Deadline::after(context_.config.unregister_model_timeout));
  }
}

LoadSample ServedModel::load_sample() const {
  LoadSample load;
  load.waiting = jobs_.num_waiting();
  load.running = jobs_.num_running();
  std::vector<std::pair<std::shared_ptr<WorkerGroup>, bool>> staying;  // and whether it has told us that it has ended
  {
    MutexLock lock(mutex_);
    for (const auto& [number, slot] : slots_) {
      if (!slot.leaving) staying.emplace_back(slot.group, slot.ended);
    }
    if (info_) load.places_per_group = info_->max_concurrent;
  }
  for (const auto& [group, ended] : staying) {
    const GroupState state = group->state();
    if (state != GroupState::kFailed || !ended) load.groups += 1;  // one that is given up serves nobody, and must not keep another from coming
    if (state == GroupState::kStarting || state == GroupState::kBackoff) load.pending += 1;
  }
  return load;
}

// Those that serve go last, and of equals the newest go first.
void ServedModel::dismiss(int count, Deadline drain) {
  std::vector<std::pair<int, std::shared_ptr<WorkerGroup>>> leaving;
  {
    MutexLock lock(mutex_);
    std::vector<std::pair<bool, int>> order;
    for (const auto& [number, slot] : slots_) {
      if (!slot.leaving && !slot.ended) order.emplace_back(slot.ready, -number);
    }
    std::sort(order.begin(), order.end());
    order.resize(std::min(order.size(), static_cast<size_t>(count)));
    for (size_t i = 0; i < order.size(); ++i) {
      const int number = -order[i].second;
      slots_.at(number).leaving = true;
      leaving.emplace_back(number, slots_.at(number).group);
    }
  }
  for (const auto& [number, group] : leaving) {
    jobs_.leave_group(number);
    group->request_stop(drain);
  }
}

// Groups that are gone for good give their place free, those that failed when the model is scaled: until then they say why.
// Their threads have nothing left to do, so joining them is quick.
void ServedModel::forget_ended(bool failed_too) {
  std::map<int, Slot> gone;
  {
    MutexLock lock(mutex_);
    for (auto it = slots_.begin(); it != slots_.end();) {
      const auto next = std::next(it);
      if (it->second.ended && (it->second.leaving || failed_too)) gone.insert(slots_.extract(it));
      it = next;
    }
  }
  for (const auto& [number, slot] : gone) {
    if (slot.known_to_jobs) jobs_.remove_group(number, Error(Code::kUnavailable, "its worker is replaced"));
  }
}

int ServedModel::num_staying() const {
  MutexLock lock(mutex_);
  return static_cast<int>(std::count_if(slots_.begin(), slots_.end(), [](const auto& entry) { return !entry.second.leaving; }));
}

LoadOutcome ServedModel::wait_loaded(Deadline deadline) {
  for (;;) {
    if (auto failure = load_failure()) return {LoadState::kFailed, std::move(failure)};
    MutexLock lock(mutex_);
    const auto settled = [](const auto& entry) { return entry.second.leaving ? entry.second.ended : entry.second.loaded; };
    if (std::all_of(slots_.begin(), slots_.end(), settled)) return {LoadState::kLoaded, std::nullopt};
    // A group's failure is noted before it is told to us, so waking now and then covers the moment in between.
    const auto stopped = [](const auto& entry) { return entry.second.ended && !entry.second.loaded && !entry.second.leaving; };
    if (deadline.passed() || std::any_of(slots_.begin(), slots_.end(), stopped)) return {};
    (void)changed_.wait(mutex_, Deadline::at(std::min(deadline.when(), Clock::now() + milliseconds(50))));
  }
}

// Of a group that should run and never will.
std::optional<Error> ServedModel::load_failure() const {
  std::vector<std::shared_ptr<WorkerGroup>> staying;
  {
    MutexLock lock(mutex_);
    for (const auto& [number, slot] : slots_) {
      if (!slot.leaving) staying.push_back(slot.group);
    }
  }
  for (const auto& group : staying) {
    if (group->state() == GroupState::kFailed) return group->last_failure();
  }
  return std::nullopt;
}

bool ServedModel::serving() const {
  MutexLock lock(mutex_);
  return std::any_of(slots_.begin(), slots_.end(), [](const auto& entry) { return entry.second.ready && !entry.second.leaving; });
}

bool ServedModel::healthy() const {
  if (range().min == 0) return true;
  const auto all = groups();
  return std::any_of(all.begin(), all.end(), [](const auto& group) {
    const GroupState state = group->state();
    return state == GroupState::kReady || state == GroupState::kStarting || state == GroupState::kBackoff;
  });
}

void ServedModel::retire(Deadline drain, const Error& why) {
  jobs_.stop_intake(why);
  (void)jobs_.wait_idle(drain);
  stop(Deadline::after(kStopTime));
}

void ServedModel::stop(Deadline drain) {
  {
    MutexLock no_more_groups(scaling_);
    stopped_ = true;
  }
  jobs_.close(Error(Code::kUnavailable, "the model is being taken away, or the server stopped"));
  const auto all = groups();  // they stop side by side: one that drains slowly does not cost the others their time
  for (const auto& group : all) group->request_stop(drain);
  for (const auto& group : all) group->stop(drain);
}

bool ServedModel::stopped() const {
  MutexLock lock(scaling_);
  return stopped_;
}

std::vector<std::shared_ptr<WorkerGroup>> ServedModel::groups() const {
  MutexLock lock(mutex_);
  std::vector<std::shared_ptr<WorkerGroup>> all;
  for (const auto& [number, slot] : slots_) all.push_back(slot.group);
  return all;
}

WorkerRange ServedModel::range() const {
  MutexLock lock(mutex_);
  return range_;
}

seconds ServedModel::response_timeout() const { return spec_.config.response_timeout.value_or(context_.config.default_response_timeout); }
seconds ServedModel::startup_timeout() const { return spec_.config.startup_timeout.value_or(context_.config.default_startup_timeout); }
int ServedModel::job_queue_size() const {
  return spec_.config.job_queue_size > 0 ? spec_.config.job_queue_size : context_.config.job_queue_size;
}

std::optional<WorkerInfo> ServedModel::info() const {
  MutexLock lock(mutex_);
  return info_;
}

std::vector<WorkerStatus> ServedModel::workers() const {
  std::vector<std::pair<WorkerStatus, std::shared_ptr<WorkerGroup>>> found;
  {
    MutexLock lock(mutex_);
    for (const auto& [number, slot] : slots_) {
      if (slot.leaving && slot.ended) continue;
      WorkerStatus status;
      status.group = number;
      status.started = slot.started;
      status.leaving = slot.leaving;
      status.devices = slot.held.devices;
      found.emplace_back(std::move(status), slot.group);
    }
  }
  std::vector<WorkerStatus> all;
  for (auto& [status, group] : found) {
    status.state = group->state();
    status.pids = group->pids();
    all.push_back(std::move(status));
  }
  return all;
}

void ServedModel::on_group_ready(int group, std::shared_ptr<WorkerClient> client, const WorkerInfo& info) {
  jobs_.group_ready(group, std::move(client), info.max_concurrent, info.num_stages);
  if (context_.metrics) context_.metrics->worker_loaded(worker_name(spec_, group), info.load_time);
  {
    MutexLock lock(mutex_);
    slots_.at(group).ready = true;
    if (!info_) info_ = info;
  }
  announce();
  MutexLock lock(mutex_);
  slots_.at(group).loaded = true;  // last: who has waited for it finds the health service told
  changed_.notify_all();
}

void ServedModel::on_group_lost(int group, const Error& cause, bool for_good) {
  {
    MutexLock lock(mutex_);
    slots_.at(group).ready = false;
    changed_.notify_all();
  }
  jobs_.group_lost(group, cause, for_good);
  announce();
}

bool ServedModel::on_group_stopping(int group, Deadline until) {
  announce();
  return jobs_.wait_group_idle(group, until);
}

void ServedModel::on_group_ended(int group) {
  bool leaving = false;
  GroupResources held;
  {
    MutexLock lock(mutex_);
    Slot& slot = slots_.at(group);
    leaving = slot.leaving;
    slot.known_to_jobs = !leaving;
    slot.ready = false;
    held = std::exchange(slot.held, {});
  }
  release_resources(held, context_.devices, context_.cores);
  if (leaving) {
    jobs_.remove_group(group, error(Code::kUnavailable, "model '{}': worker group {} was taken away before the request had ended; try again",
                                    name(), group));
  }
  announce();
  MutexLock lock(mutex_);
  slots_.at(group).ended = true;  // last: the slot may be gone from now on
  changed_.notify_all();
}

// Tells the health service, once for each change.
void ServedModel::announce() {
  MutexLock lock(announce_mutex_);
  const bool now = serving();
  if (now == announced_) return;
  announced_ = now;
  if (context_.on_serving_changed) context_.on_serving_changed(name());
}

}  // namespace penstock::frontend
