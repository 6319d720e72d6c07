#pragma once
// What the command lines of `penstock serve` and `torchserve` have in common.
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "config/server_config.h"

namespace penstock {

struct ServeOptions {
  std::string ts_config;
  std::string model_store;
  std::vector<std::string> models;
  std::vector<std::string> overrides;  // KEY=VALUE of config.properties
  std::string address;                 // of gRPC inference
  std::optional<int> port;
  bool enable_model_api = false;
  std::string snapshot_folder;         // without another file, its last snapshot is read; empty = none is
};

// TorchServe's place for snapshots.
[[nodiscard]] std::filesystem::path snapshot_folder(const std::string& log_folder);

// config.properties, overridden by the flags. Logs which file was read, and the keys that do nothing. Throws Error.
[[nodiscard]] config::ServerConfig read_server_config(const ServeOptions& options);

}  // namespace penstock
