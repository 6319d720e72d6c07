// `penstock serve`: the front door. Reads the configuration, starts worker groups, answers gRPC, shuts down in order.
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/mutex.h"
#include "base/temp_dir.h"
#include "cluster/device_assignment.h"
#include "commands.h"
#include "config/server_config.h"
#include "frontend/model_registry.h"
#include "frontend/model_store.h"
#include "rpc/grpc_server.h"
#include "rpc/grpc_worker_client.h"
#include "stop_signals.h"
#include "worker_program.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

// How long running requests may go on after the first stop signal, and then the workers.
constexpr seconds kDrainJobs{30};
constexpr seconds kDrainWorkers{5};

struct ServeOptions {
  std::string ts_config;
  std::string model_store;
  std::vector<std::string> models;
  std::vector<std::string> overrides;
  std::string address;
  std::optional<int> port;
  std::string log_folder = "logs";
};

// config.properties, overridden by the flags.
config::ServerConfig read_config(const ServeOptions& options) {
  const fs::path file = config::choose_config_file(options.ts_config);
  if (!file.empty()) spdlog::info("configuration: {}", file.string());
  if (!options.ts_config.empty() && file != options.ts_config) {
    spdlog::warn("--ts-config {} is not read: TS_CONFIG_FILE names another file", options.ts_config);
  }
  config::ServerConfig config = config::load_server_config(file, config::process_environment(), options.overrides).value();
  if (!options.model_store.empty()) config.model_store = options.model_store;
  if (!options.address.empty()) config.grpc_inference_address = options.address;
  if (options.port) config.grpc_inference_port = *options.port;
  if (!options.models.empty()) {
    config.load_all_models = false;
    config.load_models = options.models;
  }
  if (config.load_all_models) config.load_models = {"all"};
  for (const std::string& note : config.notes) spdlog::warn("{}", note);
  return config;
}

std::vector<frontend::ModelFolder> find_models(const config::ServerConfig& config) {
  std::optional<frontend::ModelStore> store;
  if (!config.model_store.empty()) store = frontend::ModelStore::open(config.model_store).value();
  auto models = frontend::resolve_models(store, config.load_models).value();
  if (!models.empty()) return models;
  throw Error(Code::kInvalidArgument, "no model to serve; give --models NAME=FOLDER, or --model-store DIR --models all");
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
  for (const auto& devices : model.devices()) {
    if (!devices.empty()) text += (text.empty() ? "GPU " : " | ") + cluster::device_list(devices);
  }
  return text.empty() ? "CPU" : text;
}

// One run of the front door, from configuration to exit code.
//
// Threads: the main thread runs it; model groups call on_serving_changed() from theirs.
class FrontDoor {
 public:
  explicit FrontDoor(const ServeOptions& options)
      : options_(options),
        config_(read_config(options)),
        folders_(find_models(config_)),
        devices_(usable_devices(config_)),
        context_{config_,
                 devices_,
                 find_worker_program(),
                 fs::absolute(options.log_folder),
                 sockets_.path(),
                 &rpc::make_grpc_worker_client,
                 [this](const std::string& model, bool serving) { on_serving_changed(model, serving); }},
        registry_(frontend::ModelRegistry::create(folders_, context_).value()) {}

  int run() {
    rpc::GrpcServerOptions options;
    options.host = config_.grpc_inference_address;
    options.port = config_.grpc_inference_port;
    options.max_request_bytes = config_.max_request_size;
    options.max_response_bytes = config_.max_response_size;
    options.connection_age = config_.grpc_inference_age;
    const auto server = std::move(rpc::GrpcServer::start(options, *registry_)).value();
    server_ = server.get();
    for (const auto& model : registry_->models()) model->start();

    const auto failure = wait_loaded();
    if (!failure && signals_.count() == 0) {
      print_started(server->address());
      (void)signals_.wait(1, Deadline::never());
    }
    shut_down(*server);
    server_ = nullptr;
    if (failure) throw *failure;
    return 0;
  }

 private:
  // Why a model could not be loaded; nullopt when all are, or a stop signal came first.
  std::optional<Error> wait_loaded() {
    for (const auto& model : registry_->models()) {
      auto state = frontend::LoadState::kLoading;
      while (state == frontend::LoadState::kLoading && signals_.count() == 0) {
        state = model->wait_loaded(Deadline::after(milliseconds(100)));
      }
      if (state == frontend::LoadState::kFailed) return model->load_failure();
    }
    return std::nullopt;
  }

  void print_started(const std::string& address) const {
    fmt::print("Model server started.\n\n  {:<18} {:<7} {:<7} {:<8} {:<20} {}\n", "model", "groups", "stages", "context", "architecture",
               "devices");
    for (const auto& model : registry_->models()) {
      const auto info = model->info().value();
      fmt::print("  {:<18} {:<7} {:<7} {:<8} {:<20} {}\n", model->name(), model->num_groups(), model->num_stages(),
                 info.max_sequence_tokens, info.architecture, devices_text(*model));
    }
    fmt::print("\n  listens on  {}  (gRPC: TorchServe inference, health, reflection)\n", address);
    fmt::print("  try         penstock generate --address {} --model {} --prompt \"Once upon a time\"\n", address,
               registry_->models()[0]->name());
    fmt::print("  logs        {}\n  stop        Ctrl-C, or: kill {}\n\n", options_.log_folder, ::getpid());
    std::fflush(stdout);
  }

  // Health first, so that load balancers turn away; then requests, workers, and the port.
  void shut_down(rpc::GrpcServer& server) {
    spdlog::info("stopping: running requests may take {} s; a second signal ends them at once", kDrainJobs.count());
    server.stop_serving();
    for (const auto& model : registry_->models()) {
      model->jobs().stop_intake(Error(Code::kUnavailable, "the server is shutting down; send the request to another one"));
    }
    const int hurry_at = 2;
    const Deadline deadline = Deadline::after(kDrainJobs);
    for (const auto& model : registry_->models()) {
      while (signals_.count() < hurry_at && !deadline.passed() && !model->jobs().wait_idle(Deadline::after(milliseconds(50)))) {
      }
    }
    const bool hurry = signals_.count() >= hurry_at;
    const Deadline drained = Deadline::after(hurry ? seconds(0) : kDrainWorkers);
    for (const auto& model : registry_->models()) model->stop(drained);
    server.shutdown(Deadline::after(hurry ? milliseconds(100) : milliseconds(1000)));
    spdlog::info("stopped");
  }

  void on_serving_changed(const std::string& model, bool serving) {
    rpc::GrpcServer* server = server_.load();
    if (!server) return;
    MutexLock lock(health_mutex_);
    server->set_serving(model, serving);
    server->set_serving("", registry_->all_serving());
  }

  const ServeOptions options_;
  const StopSignals signals_;
  const TempDir sockets_;  // 0700: only this user reaches the workers
  const config::ServerConfig config_;
  const std::vector<frontend::ModelFolder> folders_;
  cluster::DeviceAssignment devices_;
  const frontend::ServingContext context_;
  const std::unique_ptr<frontend::ModelRegistry> registry_;
  Mutex health_mutex_;  // two models that change at once: the last word about "" must come from who saw both
  std::atomic<rpc::GrpcServer*> server_{nullptr};  // set while run() holds it; groups report only between start() and stop()
};

void serve(const ServeOptions& options) {
  init_logging("serve");
  rpc::route_grpc_log();
  std::signal(SIGPIPE, SIG_IGN);  // whoever read our stdout may go; the server stays
  std::optional<Error> failure;
  try {
    FrontDoor door(options);
    (void)door.run();
  } catch (const Error& wrong) {
    failure = wrong;  // told after the workers are gone, as the last line
  }
  if (failure) fail("serve", *failure);
}

}  // namespace

void add_serve_command(CLI::App& app) {
  auto options = std::make_shared<ServeOptions>();
  auto* command = app.add_subcommand("serve", "Serve models over gRPC, with TorchServe's inference API");
  command->add_option("--models", options->models, "NAME=FOLDER or NAME ..., or all. With a model store, folders lie inside it")
      ->type_name("MODEL ...");
  command->add_option("--model-store", options->model_store, "Folder of model folders")->type_name("DIR");
  command->add_option("--ts-config", options->ts_config, "TorchServe's config.properties; flags override it")->type_name("FILE");
  command->add_option("--set", options->overrides, "A key of config.properties, as KEY=VALUE; may be repeated")->type_name("KEY=VALUE")->allow_extra_args(false);
  command->add_option("--port", options->port, "gRPC port; 0 = any free one (default 7070)")->check(CLI::Range(0, 65535));
  command->add_option("--address", options->address, "Address to listen on (default 127.0.0.1: this machine only)")->type_name("HOST");
  command->add_option("--log-dir", options->log_folder, "Workers log to DIR/MODEL-GROUP/rank-R.log")->capture_default_str();
  command->footer("A model folder holds a Hugging Face directory and, if need be, TorchServe's model-config.yaml.\n"
                  "Examples:\n"
                  "  penstock serve --models tiny=runs/tiny/model\n"
                  "  penstock serve --model-store models --models all --port 7171\n"
                  "  penstock serve --ts-config config.properties\n"
                  "Ctrl-C or SIGTERM lets running requests finish (30 s), then ends with exit code 0; a second one ends at once.");
  command->callback([options] { serve(*options); });
}

}  // namespace penstock
