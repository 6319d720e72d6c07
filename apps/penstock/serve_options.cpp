#include "serve_options.h"

#include <filesystem>

#include "base/log.h"
#include "frontend/snapshots.h"

namespace penstock {

std::filesystem::path snapshot_folder(const std::string& log_folder) { return std::filesystem::path(log_folder) / "config"; }

config::ServerConfig read_server_config(const ServeOptions& options) {
  const auto last = options.snapshot_folder.empty() ? std::filesystem::path() : frontend::last_snapshot(options.snapshot_folder);
  const std::filesystem::path file = config::choose_config_file(options.ts_config, config::process_environment(), last);
  if (!file.empty()) spdlog::info("configuration: {}", file.string());
  if (!options.ts_config.empty() && file != options.ts_config) {
    spdlog::warn("--ts-config {} is not read: TS_CONFIG_FILE names another file", options.ts_config);
  }
  std::vector<std::string> overrides = options.overrides;  // the flags as keys, so that snapshots save them
  if (!options.model_store.empty()) overrides.push_back("model_store=" + options.model_store);
  if (!options.address.empty()) overrides.push_back("grpc_inference_address=" + options.address);
  if (options.port) overrides.push_back(fmt::format("grpc_inference_port={}", *options.port));
  if (options.enable_model_api) overrides.emplace_back("enable_model_api=true");
  config::ServerConfig config = config::load_server_config(file, config::process_environment(), overrides).value();
  if (!options.models.empty()) {
    config.load_all_models = false;
    config.load_models = options.models;
    config.saved_models.reset();  // what is asked for now is stronger than what was served once
  }
  if (config.load_models == std::vector<std::string>{"all"}) config.load_all_models = true;
  for (const std::string& note : config.notes) spdlog::warn("{}", note);
  return config;
}

}  // namespace penstock
