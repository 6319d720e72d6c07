#pragma once
// TorchServe's config.properties: what `penstock serve` listens on, loads and allows.
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "config/environment.h"

namespace penstock::config {

struct ServerConfig {
  std::string inference_address = "http://127.0.0.1:8080";  // HTTP; not served yet, so giving it makes a note
  std::string grpc_inference_address = "127.0.0.1";         // host only
  int grpc_inference_port = 7070;                           // 0 = any free one

  std::string model_store;                                  // folder of model folders; empty = none; relative to the file's folder
  bool load_all_models = false;                             // load_models=all
  std::vector<std::string> load_models;                     // names within model_store, in order

  seconds default_response_timeout{120};                    // for models whose model-config.yaml gives none
  seconds default_startup_timeout{120};
  int job_queue_size = 100;                                 // requests waiting, per model
  std::optional<int> number_of_gpu;                         // at most so many GPUs are used; absent = all
  int max_request_size = 6553500;                           // bytes
  int max_response_size = 6553500;                          // bytes
  int default_workers_per_model = 0;                        // 0 = one

  std::vector<std::string> notes;                           // known keys that do nothing yet, one line each, to be logged
};

// Reads a config.properties. Every key of TorchServe is known; an unknown one is an error with the nearest known key.
// `$$VAR$$` in a value is replaced by the environment variable VAR; a missing one is an error.
// Errors: kNotFound; kInvalidArgument "FILE:LINE: key 'x': expected ..., found ...".
[[nodiscard]] Result<ServerConfig> load_server_config(const std::filesystem::path& file,
                                                      const Environment& environment = process_environment());

}  // namespace penstock::config
