// `penstock serve`: the command line of the front door.
#include <csignal>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "commands.h"
#include "config/server_config.h"
#include "front_door.h"
#include "rpc/grpc_server.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

struct ServeOptions {
  std::string ts_config;
  std::string model_store;
  std::vector<std::string> models;
  std::vector<std::string> overrides;
  std::string address;
  std::optional<int> port;
  bool enable_model_api = false;
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
  if (config.load_models == std::vector<std::string>{"all"}) config.load_all_models = true;
  config.enable_model_api = config.enable_model_api || options.enable_model_api;
  for (const std::string& note : config.notes) spdlog::warn("{}", note);
  return config;
}

void serve(const ServeOptions& options) {
  init_logging("serve");
  rpc::route_grpc_log();
  std::signal(SIGPIPE, SIG_IGN);  // whoever read our stdout may go; the server stays
  std::optional<Error> failure;
  try {
    FrontDoor door({read_config(options), options.log_folder});
    door.run();
  } catch (const Error& wrong) {
    failure = wrong;  // told after the workers are gone, as the last line
  }
  if (failure) fail("serve", *failure);
}

}  // namespace

void add_serve_command(CLI::App& app) {
  auto options = std::make_shared<ServeOptions>();
  auto* command = app.add_subcommand("serve", "Serve models over gRPC, with TorchServe's inference and management API");
  command->add_option("--models", options->models, "NAME=FOLDER or NAME ..., or all. With a model store, folders lie inside it")
      ->type_name("MODEL ...");
  command->add_option("--model-store", options->model_store, "Folder of model folders")->type_name("DIR");
  command->add_option("--ts-config", options->ts_config, "TorchServe's config.properties; flags override it")->type_name("FILE");
  command->add_option("--set", options->overrides, "A key of config.properties, as KEY=VALUE; may be repeated")->type_name("KEY=VALUE")->allow_extra_args(false);
  command->add_option("--port", options->port, "gRPC port; 0 = any free one (default 7070)")->check(CLI::Range(0, 65535));
  command->add_flag("--enable-model-api", options->enable_model_api, "Models may be registered and unregistered through the management API");
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
