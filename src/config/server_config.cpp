#include "config/server_config.h"

#include "base/file.h"
#include "config/fields.h"
#include "config/properties_reader.h"
#include "config/yaml_reader.h"

namespace penstock::config {
namespace {

// Values of keys whose meaning takes more than one variable.
struct RawServerConfig {
  std::string load_models;
  int number_of_gpu = 0;
  bool enable_grpc_ssl = false;
};

// TorchServe's keys that nothing here acts on yet.
constexpr const char* kLaterKeys[] = {
    "management_address",
    "metrics_address",
    "grpc_management_address",
    "grpc_management_port",
    "grpc_inference_max_connection_age_ms",
    "grpc_inference_max_connection_age_grace_ms",
    "grpc_management_max_connection_age_ms",
    "grpc_management_max_connection_age_grace_ms",
    "models",
    "model_snapshot",
    "allowed_urls",
    "use_env_allowed_urls",
    "unregister_model_timeout",
    "install_py_dep_per_model",
    "default_service_handler",
    "service_envelope",
    "workflow_store",
    "decode_input_request",
    "limit_max_image_pixels",
    "cors_allowed_origin",
    "cors_allowed_methods",
    "cors_allowed_headers",
    "ts_open_inference_protocol",
    "ts_header_key_sequence_id",
    "ts_header_key_sequence_start",
    "ts_header_key_sequence_end",
    "disable_token_authorization",
    "token_expiration_min",
    "enable_model_api",
    "keystore",
    "keystore_pass",
    "keystore_type",
    "private_key_file",
    "certificate_file",
    "blacklist_env_vars",
    "enable_metrics_api",
    "metrics_mode",
    "metrics_config",
    "model_metrics_auto_detect",
    "disable_system_metrics",
    "system_metrics_cmd",
    "metric_time_interval",
    "async_logging",
    "initial_worker_port",
    "initial_distribution_port",
    "number_of_netty_threads",
    "netty_client_threads",
    "use_native_io",
    "io_ratio",
    "prefer_direct_buffer",
    "enable_envvars_config",
    "debug",
    "ipex_enable",
    "ipex_gpu_enable",
    "cpu_launcher_enable",
    "cpu_launcher_args",
    "vmargs",
    "plugins_path",
};

std::vector<Field> fields_of(ServerConfig& c, RawServerConfig& raw) {
  std::vector<Field> fields = {
      text_field("inference_address", c.inference_address, ""),
      text_field("grpc_inference_address", c.grpc_inference_address, ""),
      integer_field("grpc_inference_port", c.grpc_inference_port, {0, 65535}, ""),
      text_field("model_store", c.model_store, ""),
      text_field("load_models", raw.load_models, ""),
      seconds_field("default_response_timeout", c.default_response_timeout, {1}, ""),
      seconds_field("default_startup_timeout", c.default_startup_timeout, {1}, ""),
      integer_field("job_queue_size", c.job_queue_size, {1}, ""),
      integer_field("number_of_gpu", raw.number_of_gpu, {0}, ""),
      integer_field("max_request_size", c.max_request_size, {1}, ""),
      integer_field("max_response_size", c.max_response_size, {1}, ""),
      integer_field("default_workers_per_model", c.default_workers_per_model, {0}, ""),
      boolean_field("enable_grpc_ssl", raw.enable_grpc_ssl, ""),
  };
  for (const char* key : kLaterKeys) fields.push_back(later(key));
  return fields;
}

// Replaces every $$NAME$$.
std::optional<Error> substitute(RawValue& value, const Environment& environment, const std::string& file) {
  std::string& text = value.items.at(0);
  for (size_t start = text.find("$$"); start != std::string::npos;) {
    const size_t end = text.find("$$", start + 2);
    if (end == std::string::npos) break;
    const std::string name = text.substr(start + 2, end - start - 2);
    const auto content = environment(name);
    if (!content) {
      return error(Code::kInvalidArgument, "{}key '{}': the environment variable {} is not set", place(file, value.line), value.key, name);
    }
    text.replace(start, end + 2 - start, *content);
    start = text.find("$$", start + content->size());
  }
  return std::nullopt;
}

std::string trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(" \t") - first + 1));
}

void read_load_models(const std::string& text, ServerConfig& config) {
  config.load_all_models = trimmed(text) == "all";
  if (config.load_all_models) return;
  for (size_t start = 0; start <= text.size();) {
    const size_t comma = std::min(text.find(',', start), text.size());
    if (std::string name = trimmed(std::string_view(text).substr(start, comma - start)); !name.empty()) config.load_models.push_back(name);
    start = comma + 1;
  }
}

std::optional<Error> check_host(const std::string& host, const std::string& where) {
  if (!host.empty() && host.find_first_of("/ \t") == std::string::npos) return std::nullopt;
  return error(Code::kInvalidArgument,
               "{}key 'grpc_inference_address': expected a host name or an IP address such as 127.0.0.1, found '{}'", where, host);
}

}  // namespace

Result<ServerConfig> load_server_config(const std::filesystem::path& path, const Environment& environment) {
  const std::string file = path.string();
  Result<std::string> text = read_file(path, kConfigFileLimit);
  if (!text) return text.error();
  Result<std::vector<RawValue>> values = parse_properties(*text, file);
  if (!values) return values.error();
  for (RawValue& value : *values) {
    if (auto problem = substitute(value, environment, file)) return *problem;
  }

  ServerConfig config;
  RawServerConfig raw;
  Result<Filled> filled = fill(fields_of(config, raw), *values, file);
  if (!filled) return filled.error();
  const auto where = [&](const char* key) { return place(file, filled->lines[key]); };

  if (auto problem = check_host(config.grpc_inference_address, where("grpc_inference_address"))) return *problem;
  if (raw.enable_grpc_ssl) {  // a note would be too little: what was asked to be encrypted must not be sent in the clear
    return error(Code::kUnimplemented, "{}key 'enable_grpc_ssl': TLS is not supported yet; expected false, found true",
                 where("enable_grpc_ssl"));
  }
  config.notes = std::move(filled->notes);
  if (filled->lines.contains("inference_address")) {
    config.notes.push_back(where("inference_address") + "inference_address: known, not applicable yet");
  }
  read_load_models(raw.load_models, config);
  if (filled->lines.contains("number_of_gpu")) config.number_of_gpu = raw.number_of_gpu;
  if (!config.model_store.empty()) {
    config.model_store = (std::filesystem::absolute(path).parent_path() / config.model_store).lexically_normal().string();
  }
  return config;
}

}  // namespace penstock::config
