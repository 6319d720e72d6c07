#pragma once
// TorchServe's config.properties: what `penstock serve` listens on, loads and allows.
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "config/environment.h"
#include "config/http_address.h"
#include "config/model_config.h"

namespace penstock::config {

// How long a gRPC connection may live; 0 = for ever.
struct ConnectionAge {
  int max_ms = 0;
  int grace_ms = 0;                                         // that calls get to end after max_ms
};

// What the key `models` says of one version of a model; its model-config.yaml and the management API are stronger.
struct ModelEntry {
  std::string name;
  std::string version;
  bool is_default = false;
  ModelSettings settings;
};

// What becomes of metrics besides being counted. GET /metrics answers in every mode, unlike TorchServe's, whose default shows nothing there.
enum class MetricsMode {
  kLog,         // each request's and each system figure is also a line of ts_metrics.log or model_metrics.log, if there are log files
  kPrometheus,  // no such lines
  kLegacy,      // lines; GET /metrics shows TorchServe's three ts_* counters only
};

// How access_log.log is written.
enum class AccessLog {
  kAuto,        // as kTorchServe, if there are log files
  kTorchServe,  // with kJson: asks for log files
  kJson,
  kOff,
};

// One version of a model in a snapshot (key model_snapshot), as it was served.
struct SavedModel {
  ModelEntry entry;                                         // its settings are stronger than the model's own file
  std::string source;                                       // folder or archive: within model_store, or a path
  std::string handler;                                      // empty = the manifest's
};

struct ServerConfig {
  HttpAddress inference_address{"127.0.0.1", 8080};
  HttpAddress management_address{"127.0.0.1", 8081};
  HttpAddress metrics_address{"127.0.0.1", 8082};
  std::string grpc_inference_address = "127.0.0.1";         // host only
  int grpc_inference_port = 7070;                           // 0 = any free one
  ConnectionAge grpc_inference_age;
  std::string grpc_management_address = "127.0.0.1";
  int grpc_management_port = 7071;                          // 0 = any free one
  ConnectionAge grpc_management_age;

  std::optional<HttpAddress> agent_address;                 // HOST:PORT, where `penstock agent` of other machines joins; absent = nowhere
  std::string agent_token_file;                             // the secret that these share with the front door; relative to the working folder
  bool agent_without_token = false;                         // agents on this machine need none

  std::optional<bool> token_authorization;                  // !disable_token_authorization; absent = the program's default
  double token_expiration_min = 60;                         // minutes that a key is good for
  int grpc_memory_mb = 2048;                                // MiB that the connections of one gRPC port may hold
  int token_failure_limit = 60;                             // wrong tokens that one peer may send in a minute; 0 = any number

  bool enable_grpc_ssl = false;                             // TLS on both gRPC ports
  std::string certificate_file;                             // these three: relative to the working folder, as in TorchServe
  std::string private_key_file;
  std::string client_ca_file;                               // who has no certificate of these authorities is not let in; empty = everybody is
  std::string cors_allowed_origin;                          // "*", or origins with commas between them; empty = no CORS
  std::string cors_allowed_methods;
  std::string cors_allowed_headers;
  seconds http_header_timeout{30};                          // for a whole header, for a TLS handshake, and for an idle connection
  seconds http_body_timeout{60};                            // for a whole body

  [[nodiscard]] bool uses_tls() const { return enable_grpc_ssl || inference_address.tls || management_address.tls || metrics_address.tls; }

  std::string model_store;                                  // folder of model folders; empty = none; relative to the file's folder
  bool load_all_models = false;                             // load_models=all
  std::vector<std::string> load_models;                     // names within model_store, in order
  std::vector<ModelEntry> models;                           // models={"NAME": {"VERSION": {...}}}
  bool enable_model_api = false;                            // models may be registered and unregistered through the management API
  std::vector<std::string> allowed_urls;                    // regular expressions, for UrlRules; none by default
  int max_download_mb = 65536;                              // MiB of an archive that is fetched from a URL
  seconds download_timeout{3600};                           // for fetching one
  seconds unregister_model_timeout{120};                    // that running requests get when their worker or model is taken away

  seconds default_response_timeout{120};                    // for models whose model-config.yaml gives none
  seconds default_startup_timeout{120};
  int job_queue_size = 100;                                 // requests waiting, per model
  std::optional<int> number_of_gpu;                         // at most so many GPUs are used; absent = all
  int max_request_size = 6553500;                           // bytes
  int max_response_size = 6553500;                          // bytes
  std::string blacklist_env_vars;                           // regular expression; variables whose names it matches in full are hidden from workers
  // Request headers that name a sequence, begin it and end it.
  std::string sequence_id_header = "ts_request_sequence_id";
  std::string sequence_start_header = "ts_request_sequence_start";
  std::string sequence_end_header = "ts_request_sequence_end";
  int default_workers_per_model = 0;                        // 0 = one

  bool enable_metrics_api = true;                           // GET /metrics at metrics_address
  MetricsMode metrics_mode = MetricsMode::kLog;
  bool disable_system_metrics = false;                      // processors, memory, disk, GPUs
  seconds metric_time_interval{60};                         // between two looks at these

  AccessLog access_log = AccessLog::kAuto;
  std::string otlp_endpoint;                                // http://HOST:PORT of a collector of spans; empty = as OTEL_EXPORTER_OTLP_* say

  std::optional<std::vector<SavedModel>> saved_models;      // absent = no snapshot; otherwise these are served, and load_models is not asked
  std::map<std::string, std::string> settings;              // every key that was given, with the value that counts: what snapshots save
  std::vector<std::string> notes;                           // keys that were given and do nothing, and why: one line each, to be logged
};

// Reads a config.properties; an empty path stands for an empty file. Every key of TorchServe is known and its type is checked, also of
// those that do nothing; an unknown one is an error with the nearest known key. `$$VAR$$` in a value is replaced by the environment
// variable VAR; a missing one is an error. With enable_envvars_config=true, the environment variable TS_KEY (upper case) overrides KEY,
// except TS_ALLOWED_URLS unless use_env_allowed_urls=true. `overrides`, "KEY=VALUE", come last. In a snapshot (a file with the key
// model_snapshot), which another version may have written, keys and fields that we do not know are noted and passed over.
// Errors: kNotFound; kInvalidArgument "FILE:LINE: key 'x': expected ..., found ..."; kUnimplemented where ignoring a key would be unsafe.
[[nodiscard]] Result<ServerConfig> load_server_config(const std::filesystem::path& file,
                                                      const Environment& environment = process_environment(),
                                                      const std::vector<std::string>& overrides = {});

// The file to read, in TorchServe's order: TS_CONFIG_FILE, the one that was `given` on the command line, the last snapshot (empty: there is none),
// ./config.properties if it is there. Empty: none.
[[nodiscard]] std::filesystem::path choose_config_file(const std::string& given, const Environment& environment = process_environment(),
                                                       const std::filesystem::path& last_snapshot = {});

}  // namespace penstock::config
