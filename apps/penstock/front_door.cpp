#include "front_door.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <utility>

#include "base/log.h"
#include "cluster/descriptor_limit.h"
#include "cluster/executable_path.h"
#include "config/python_settings.h"
#include "listeners.h"
#include "rpc/grpc_worker_client.h"
#include "rpc/http_access_keys.h"
#include "rpc/http_inference.h"
#include "rpc/http_management.h"
#include "rpc/http_openai.h"
#include "rpc/model_openapi.h"
#include "rpc/ts_worker_client.h"
#include "worker_program.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

// How long running requests may go on after the first stop signal, and then the workers.
constexpr int kManyFiles = 11000;  // HttpServerOptions::max_connections, and some for workers, logs and gRPC
constexpr seconds kDrainJobs{30};
constexpr seconds kDrainWorkers{5};
// Management calls that run at once, and that wait. Loading a model takes minutes, so a few may wait; more is a mistake of the client.
constexpr int kManagementCalls = 8;
constexpr size_t kManagementCallsWaiting = 64;
// Conversations that are made prompts at once, and that wait for it.
constexpr int kTextCalls = 2;
constexpr size_t kTextCallsWaiting = 1024;
constexpr size_t kTextBytesWaiting = size_t{64} << 20;

std::optional<frontend::ModelStore> open_store(const config::ServerConfig& config) {
  if (config.model_store.empty()) return std::nullopt;
  return frontend::ModelStore::open(config.model_store).value();
}

std::vector<std::string> usable_devices(const config::ServerConfig& config) {
  auto devices = cluster::visible_devices();
  if (config.number_of_gpu && static_cast<size_t>(*config.number_of_gpu) < devices.size()) {
    devices.resize(static_cast<size_t>(*config.number_of_gpu));
  }
  return devices;
}

std::string devices_text(const frontend::ServedModel& model) {
  std::string text;
  for (const auto& worker : model.workers()) {
    if (!worker.devices.empty()) text += (text.empty() ? "GPU " : " | ") + cluster::device_list(worker.devices);
  }
  return text.empty() ? "CPU" : text;
}

frontend::WorkerPrograms worker_programs() { return {worker_program(), cluster::executable_folder() / "penstock-handler"}; }

std::shared_ptr<frontend::WorkerClient> make_client(const frontend::ModelSpec& spec, size_t num_devices, const fs::path& socket,
                                                    const config::PythonSettings& python) {
  if (spec.handler_kind != frontend::HandlerKind::kPython) return rpc::make_grpc_worker_client(socket);
  rpc::TsLoad load;
  load.model = spec.name;
  load.folder = fs::absolute(spec.config.handler.model_path).string();
  load.batch_size = spec.config.batch_size.value_or(1);
  load.handler = spec.handler;
  load.gpu = num_devices > 0 ? 0 : -1;  // the worker sees no others
  load.envelope = spec.envelope.empty() ? python.service_envelope : spec.envelope;
  load.limit_image_pixels = python.limit_max_image_pixels;
  std::vector<fs::path> sockets;
  for (int rank = 0; rank < spec.config.num_ranks(); ++rank) sockets.push_back(fs::path(socket).replace_extension(std::to_string(rank)));
  const auto audience = spec.config.divides_layers() ? rpc::TsAudience::kAllRanks : rpc::TsAudience::kFirstRank;
  return rpc::make_ts_worker_client(std::move(sockets), audience, std::move(load), milliseconds(spec.config.max_batch_delay_ms.value_or(100)));
}

void print_models(const std::vector<std::shared_ptr<frontend::ServedModel>>& models) {
  if (models.empty()) return;
  fmt::print("  {:<18} {:<7} {:<7} {:<8} {:<20} {}\n", "model", "groups", "ranks", "context", "architecture", "devices");
  for (const auto& model : models) {
    const auto info = model->info().value_or(frontend::WorkerInfo{});
    fmt::print("  {:<18} {:<7} {:<7} {:<8} {:<20} {}\n", model->name(), model->range().min, model->num_ranks(), info.max_sequence_tokens,
               info.architecture, devices_text(*model));
  }
}

}  // namespace

FrontDoor::FrontDoor(FrontDoorOptions options)
    : options_(std::move(options)),
      config_(options_.config),
      store_(open_store(config_)),
      folders_(find_models()),
      access_keys_(make_access_keys(config_, options_.keys_by_default)),
      tls_(read_tls(config_)),
      devices_(usable_devices(config_)),
      cores_(cluster::core_names()),
      observability_(config_, options_.log_folder, options_.log_files),
      registry_({config_, devices_, cores_, worker_programs(), config::variables_matching(config_.blacklist_env_vars),
                 fs::absolute(options_.log_folder), sockets_.path(),
                 [python = config::python_settings(config_)](const auto& spec, size_t num_devices, const auto& socket) {
                   return make_client(spec, num_devices, socket, python);
                 },
                 [this](const std::string& model) { on_serving_changed(model); },
                 &observability_.metrics(), observability_.spans(), config_.agent_address ? &agents_ : nullptr}),
      snapshots_(options_.snapshot_folder, config_, registry_),
      management_({registry_, store_, archives_, config_, [this] { save_snapshot(frontend::SnapshotKind::kChange); }}),
      management_calls_("management calls", kManagementCalls, kManagementCallsWaiting),
      text_calls_("requests", kTextCalls, kTextCallsWaiting, kTextBytesWaiting) {
  warn_of_open_doors(config_, access_keys_ != nullptr);
  if (const int files = cluster::raise_descriptor_limit(); files < kManyFiles) {
    spdlog::warn("at most {} files and connections may be open at once (ulimit -Hn); a busy server takes more than {}", files, kManyFiles);
  }
  for (const frontend::ModelFolder& folder : folders_) {
    const auto failure = add_model(folder);
    if (!failure) continue;
    if (options_.wait_for_models) throw *failure;
    spdlog::error("model '{}' is not served: {}", folder.url, failure->message());
  }
  restore_models();
}

std::vector<frontend::ModelFolder> FrontDoor::find_models() const {
  if (config_.saved_models) return {};
  std::vector<std::string> wanted = config_.load_models;
  if (config_.load_all_models) wanted = {"all"};
  if (options_.wait_for_models) {
    auto models = frontend::resolve_models(store_, wanted).value();
    const bool may_come_later = store_ && config_.enable_model_api;
    if (!models.empty() || may_come_later) return models;
    throw Error(Code::kInvalidArgument,
                "no model to serve; give --models NAME=FOLDER, or --model-store DIR --models all, or --model-store DIR --enable-model-api");
  }
  std::vector<frontend::ModelFolder> models;
  for (const std::string& argument : wanted) {
    auto found = frontend::resolve_models(store_, std::vector<std::string>{argument});
    if (found) models.insert(models.end(), found->begin(), found->end());
    else spdlog::error("model '{}' is not served: {}", argument, found.error().message());
  }
  return models;
}

std::optional<Error> FrontDoor::add_model(const frontend::ModelFolder& folder) {
  const auto opened = archives_.open(folder);
  if (!opened) return opened.error();
  auto spec = frontend::read_model_spec(opened.value(), config_.models);
  if (!spec) return spec.error();
  spec->loaded_at_startup = true;
  const auto added = registry_.add(std::move(*spec));
  if (!added) return added.error();
  return std::nullopt;
}

// The models of a snapshot, as they were served. One that is not there any more ends the start.
void FrontDoor::restore_models() {
  if (!config_.saved_models) return;
  for (const config::SavedModel& saved : *config_.saved_models) {
    auto model = std::move(frontend::restore_model(saved, store_, archives_, config_.models)).value();
    (void)registry_.add(std::move(model.spec), model.range).value();
  }
}

void FrontDoor::save_snapshot(frontend::SnapshotKind kind) {
  if (!options_.snapshot_folder.empty()) snapshots_.save(kind);
}

void FrontDoor::run() {
  try {
    start_listeners();
    start_http();
    http_metrics_ = observability_.listen(registry_, http_options(config_, nullptr, tls_));
  } catch (...) {
    close_listeners(Deadline::after(milliseconds(0)));  // one port is taken, and on another somebody may ask already
    throw;
  }
  if (access_keys_) access_keys_->publish();
  start_models();
  const auto failure = options_.wait_for_models ? wait_loaded() : std::nullopt;
  if (!failure && signals_.count() == 0) {
    save_snapshot(frontend::SnapshotKind::kStartup);
    print_started();
    if (options_.on_started) options_.on_started();
    (void)signals_.wait(1, Deadline::never());
    save_snapshot(frontend::SnapshotKind::kShutdown);
  }
  shut_down();
  if (failure) throw *failure;
}

void FrontDoor::start_listeners() {
  rpc::GrpcServerOptions options = grpc_options(config_, access_keys_.get(), tls_);
  options.keys = frontend::kInferenceKey;
  options.watcher = &observability_.requests();
  options.host = config_.grpc_inference_address;
  options.port = config_.grpc_inference_port;
  options.connection_age = config_.grpc_inference_age;
  inference_ = std::move(rpc::GrpcServer::start_inference(options, registry_)).value();
  options.keys = frontend::kManagementKey;
  options.host = config_.grpc_management_address;
  options.port = config_.grpc_management_port;
  options.port_option = "--set grpc_management_port=N";
  options.connection_age = config_.grpc_management_age;
  management_server_ = std::move(rpc::GrpcServer::start_management(options, management_, management_calls_)).value();
  management_server_->set_serving("", true);
  health_ = inference_.get();
  if (config_.agent_address) agent_server_ = std::move(rpc::AgentServer::start(agent_options(config_, tls_), agents_)).value();
}

// One listener for each address: equal addresses serve both tables.
void FrontDoor::start_http() {
  const auto max_response = static_cast<size_t>(config_.max_response_size);
  auto text = rpc::openai_routes(registry_, text_calls_, max_response);
  auto inference = rpc::guarded(rpc::inference_routes(registry_, max_response, std::move(text)), frontend::kInferenceKey);
  auto management = rpc::guarded(rpc::management_routes(management_, management_calls_, registry_, rpc::ModelApi(inference)), frontend::kManagementKey);
  if (access_keys_) std::ranges::move(rpc::access_key_routes(*access_keys_, management_calls_), std::back_inserter(management));
  rpc::HttpServerOptions options = http_options(config_, access_keys_.get(), tls_);
  options.watcher = &observability_.requests();
  options.address = config_.inference_address;
  const bool one = config_.inference_address == config_.management_address && (config_.inference_address.port != 0 || !options.address.unix_path.empty());
  if (one) std::ranges::move(management, std::back_inserter(inference));
  const char* title = one ? "Penstock: inference and management" : "Penstock: inference";
  http_inference_ = std::move(rpc::HttpServer::start(options, {title, std::move(inference), rpc::openai_refusals()})).value();
  if (one) return;
  options.address = config_.management_address;
  options.address_key = "management_address";
  http_management_ = std::move(rpc::HttpServer::start(options, {"Penstock: management", std::move(management)})).value();
}

// No new call comes when it returns; those on the pools may still run, and what they use outlives the pools.
void FrontDoor::close_listeners(Deadline deadline) {
  for (rpc::GrpcServer* server : {inference_.get(), management_server_.get()}) {
    if (server) server->shutdown(deadline);
  }
  for (rpc::HttpServer* server : {http_inference_.get(), http_management_.get(), http_metrics_.get()}) {
    if (server) server->shutdown(deadline);
  }
}

void FrontDoor::start_models() {
  for (const auto& model : registry_.models()) model->start();
  caretaker_.emplace(registry_);
  if (registry_.models().empty()) inference_->set_serving("", true);
}

// Why a model could not be loaded; nullopt when all are, or a stop signal came first.
std::optional<Error> FrontDoor::wait_loaded() const {
  for (const auto& model : registry_.models()) {
    if (!model->spec().loaded_at_startup) continue;  // the management API was faster than we
    frontend::LoadOutcome outcome;
    while (outcome.state == frontend::LoadState::kLoading && signals_.count() == 0 && !model->stopped()) {
      outcome = model->wait_loaded(Deadline::after(milliseconds(100)));
    }
    if (outcome.failure) return outcome.failure;
  }
  return std::nullopt;
}

void FrontDoor::print_started() const {
  fmt::print("Model server started.\n\n");
  const auto models = registry_.models();
  if (options_.wait_for_models) print_models(models);
  fmt::print("\n  listens on  {}  (gRPC: TorchServe inference, health, reflection)\n", inference_->address());
  fmt::print("  management  {}  (gRPC: TorchServe management, health, reflection)\n", management_server_->address());
  fmt::print("  HTTP        {}  (TorchServe inference)\n  HTTP        {}  (TorchServe management)\n", http_inference_->address(),
             (http_management_ ? http_management_ : http_inference_)->address());
  if (http_metrics_) fmt::print("  metrics     {}/metrics\n", http_metrics_->address());
  if (agent_server_) fmt::print("  agents      {}  ({} joined)\n", agent_server_->address(), agents_.num_agents());
  if (!models.empty()) {
    const std::string key = access_keys_ ? " --key-file key_file.json" : "";
    fmt::print("  try         penstock generate --address {}{} --model {} --prompt \"Once upon a time\"\n", inference_->address(), key,
               models[0]->name());
  }
  if (access_keys_) fmt::print("  tokens      {}\n", access_keys_->file().string());
  const std::string stop = options_.how_to_stop.empty() ? fmt::format("Ctrl-C, or: kill {}", ::getpid()) : options_.how_to_stop;
  fmt::print("  logs        {}\n  stop        {}\n\n", options_.log_folder, stop);
  std::fflush(stdout);
}

// Health and ping first, so that load balancers turn away; then requests, workers, and the ports.
void FrontDoor::shut_down() {
  spdlog::info("stopping: running requests may take {} s; a second signal ends them at once", kDrainJobs.count());
  registry_.begin_shutdown();
  inference_->stop_serving();
  management_server_->stop_serving();
  caretaker_.reset();
  management_.stop();
  management_calls_.close();
  const int hurry_at = 2;
  const Deadline deadline = Deadline::after(kDrainJobs);
  for (const auto& model : registry_.models()) {
    model->jobs().stop_intake(Error(Code::kUnavailable, "the server is shutting down; send the request to another one"));
  }
  for (const auto& model : registry_.models()) {
    while (signals_.count() < hurry_at && !deadline.passed() && !model->jobs().wait_idle(Deadline::after(milliseconds(50)))) {
    }
  }
  const bool hurry = signals_.count() >= hurry_at;
  const Deadline drained = Deadline::after(hurry ? seconds(0) : kDrainWorkers);
  for (const auto& model : registry_.models()) model->stop(drained);
  const Deadline closed = Deadline::after(hurry ? milliseconds(100) : milliseconds(1000));
  close_listeners(closed);
  health_ = nullptr;
  spdlog::info("stopped");
}

void FrontDoor::on_serving_changed(const std::string& model) {
  rpc::GrpcServer* server = health_.load();
  if (!server) return;
  MutexLock lock(health_mutex_);
  server->set_serving(model, registry_.serving(model));
  server->set_serving("", registry_.all_serving());
}

}  // namespace penstock
