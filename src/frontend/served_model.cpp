#include "frontend/served_model.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/log.h"

namespace penstock::frontend {
namespace {

std::string_view dtype_name(config::ComputeType type) {
  switch (type) {
    case config::ComputeType::kFloat32: return "float32";
    case config::ComputeType::kBfloat16: return "bfloat16";
    case config::ComputeType::kAuto: break;
  }
  return "auto";
}

JobQueueOptions job_options(const std::string& name, const config::ModelConfig& config, const ServingContext& context, int num_groups) {
  JobQueueOptions options;
  options.model = name;
  options.num_groups = num_groups;
  options.max_waiting = static_cast<size_t>(config.job_queue_size > 0 ? config.job_queue_size : context.config.job_queue_size);
  options.client_timeout = config.client_timeout;
  options.needs_free_worker = config.use_job_ticket;
  options.response_timeout = config.response_timeout.value_or(context.config.default_response_timeout);
  return options;
}

}  // namespace

Result<std::unique_ptr<ServedModel>> ServedModel::create(const std::string& name, const config::ModelConfig& config,
                                                         const ServingContext& context) {
  std::error_code ignored;
  if (!std::filesystem::exists(config.handler.model_path / "config.json", ignored)) {
    return error(Code::kInvalidArgument,
                 "model '{}': no config.json in {}; expected a Hugging Face directory there, or handler.model_path in model-config.yaml",
                 name, config.handler.model_path.string());
  }
  const int wanted = config.min_workers > 0 ? config.min_workers : context.config.default_workers_per_model;
  std::unique_ptr<ServedModel> model(new ServedModel(name, config, context, std::max(1, wanted)));
  if (auto failure = model->take_devices(config)) return *failure;
  model->make_groups(config);
  return model;
}

ServedModel::ServedModel(std::string name, const config::ModelConfig& config, const ServingContext& context, int num_groups)
    : name_(std::move(name)),
      context_(context),
      num_groups_(num_groups),
      num_stages_(config.num_stages()),
      ready_(static_cast<size_t>(num_groups)),
      loaded_(static_cast<size_t>(num_groups)),
      jobs_(job_options(name_, config, context, num_groups)) {}

ServedModel::~ServedModel() {
  stop(Deadline::after(milliseconds(0)));
  for (const auto& devices : devices_) context_.devices.release(devices);
}

// deviceType auto takes GPUs where there are any; what was asked for and is not there is an error, never quietly the CPU.
std::optional<Error> ServedModel::take_devices(const config::ModelConfig& config) {
  const bool any = context_.devices.num_devices() > 0;
  if (config.device_type == config::DeviceType::kGpu && !any) {
    return error(Code::kInvalidArgument, "model '{}': deviceType is gpu, but this machine shows no GPU; write deviceType: cpu", name_);
  }
  if (config.device_type == config::DeviceType::kCpu || !any) {
    devices_.resize(static_cast<size_t>(num_groups_));
    return std::nullopt;
  }
  for (int group = 0; group < num_groups_; ++group) {
    auto devices = context_.devices.acquire(num_stages_, config.device_ids);
    if (!devices) {
      return error(devices.error().code(),
                   "model '{}': worker group {} needs {} GPU(s): {}; lower minWorkers or parallelLevel, or write deviceType: cpu", name_,
                   group, num_stages_, devices.error().message());
    }
    devices_.push_back(std::move(*devices));
  }
  return std::nullopt;
}

void ServedModel::make_groups(const config::ModelConfig& config) {
  GroupListener& listener = *this;  // a private base: nobody else may report for the groups
  for (int group = 0; group < num_groups_; ++group) {
    WorkerGroupOptions options;
    options.model = name_;
    options.group = group;
    options.worker_program = context_.worker_program;
    options.model_folder = config.handler.model_path;
    options.log_folder = context_.log_folder / fmt::format("{}-{}", name_, group);
    options.socket_folder = context_.socket_folder;
    options.num_ranks = num_stages_;
    options.omp_threads = config.torchrun.omp_num_threads;
    options.max_concurrent = config.handler.max_concurrent;
    options.max_sequence_tokens = config.handler.max_sequence_tokens;
    options.dtype = dtype_name(config.handler.dtype);
    const auto& devices = devices_[static_cast<size_t>(group)];
    if (!devices.empty()) options.visible_devices = cluster::device_list(devices);
    else if (config.device_type == config::DeviceType::kCpu) options.visible_devices = "";  // hides every GPU
    options.startup_timeout = config.startup_timeout.value_or(context_.config.default_startup_timeout);
    options.max_retry = config.max_retry_timeout;
    groups_.push_back(std::make_unique<WorkerGroup>(std::move(options), context_.make_client, listener));
  }
}

void ServedModel::start() {
  for (const auto& group : groups_) group->start();
}

LoadState ServedModel::wait_loaded(Deadline deadline) {
  const auto failed = [](const auto& group) { return group->state() == GroupState::kFailed; };
  for (;;) {
    if (std::any_of(groups_.begin(), groups_.end(), failed)) return LoadState::kFailed;
    MutexLock lock(mutex_);
    if (std::all_of(loaded_.begin(), loaded_.end(), [](bool loaded) { return loaded; })) return LoadState::kLoaded;
    // A group's failure is noted before it is told to us, so waking now and then covers the moment in between.
    if (deadline.passed()) return LoadState::kLoading;
    (void)changed_.wait(mutex_, Deadline::at(std::min(deadline.when(), Clock::now() + milliseconds(50))));
  }
}

Error ServedModel::load_failure() const {
  for (const auto& group : groups_) {
    if (group->state() == GroupState::kFailed) return group->last_failure().value();
  }
  throw Bug("load_failure() without a failed group");
}

bool ServedModel::serving() const {
  MutexLock lock(mutex_);
  return std::any_of(ready_.begin(), ready_.end(), [](bool ready) { return ready; });
}

bool ServedModel::healthy() const {
  return std::any_of(groups_.begin(), groups_.end(), [](const auto& group) {
    const GroupState state = group->state();
    return state == GroupState::kReady || state == GroupState::kStarting || state == GroupState::kBackoff;
  });
}

void ServedModel::stop(Deadline drain) {
  jobs_.close(Error(Code::kUnavailable, "the server is stopping"));
  std::vector<std::thread> stops;  // groups stop side by side: one that drains slowly does not cost the others their time
  for (const auto& group : groups_) stops.emplace_back([&group, drain] { group->stop(drain); });
  for (std::thread& stop : stops) stop.join();
}

std::optional<WorkerInfo> ServedModel::info() const {
  MutexLock lock(mutex_);
  return info_;
}

void ServedModel::on_group_ready(int group, std::shared_ptr<WorkerClient> client, const WorkerInfo& info) {
  jobs_.group_ready(group, std::move(client), info.max_concurrent);
  {
    MutexLock lock(mutex_);
    ready_[static_cast<size_t>(group)] = true;
    loaded_[static_cast<size_t>(group)] = true;
    if (!info_) info_ = info;
    changed_.notify_all();
  }
  announce();
}

void ServedModel::on_group_lost(int group, const Error& cause, bool for_good) {
  {
    MutexLock lock(mutex_);
    ready_[static_cast<size_t>(group)] = false;
    changed_.notify_all();
  }
  jobs_.group_lost(group, cause, for_good);
  announce();
}

// Tells the health service, once for each change.
void ServedModel::announce() {
  MutexLock lock(announce_mutex_);
  const bool now = serving();
  if (now == announced_) return;
  announced_ = now;
  if (context_.on_serving_changed) context_.on_serving_changed(name_, now);
}

}  // namespace penstock::frontend
