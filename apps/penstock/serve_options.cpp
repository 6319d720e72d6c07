#include "serve_options.h"

#include <filesystem>

#include "base/log.h"

namespace penstock {

config::ServerConfig read_server_config(const ServeOptions& options) {
  const std::filesystem::path file = config::choose_config_file(options.ts_config);
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

}  // namespace penstock
