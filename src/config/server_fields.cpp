#include "config/server_fields.h"

namespace penstock::config {
namespace {

constexpr const char* kJava = "not applicable: a setting of TorchServe's Java program";
constexpr const char* kNetty = "not applicable: a setting of Netty; the front door sizes its threads by itself";
constexpr const char* kPython = "not applicable: a setting of Python workers";
constexpr const char* kPorts = "not applicable: workers are reached over unix sockets in a private folder";

constexpr double kMaxTokenMinutes = 100.0 * 365 * 24 * 60;

// A key that does nothing here: its type, and why.
struct IdleKey {
  enum Type { kInteger, kBoolean, kText } type;
  const char* key;
  const char* why;
};

constexpr IdleKey kIdleKeys[] = {
    {IdleKey::kText, "workflow_store", "not supported yet: workflows"},
    {IdleKey::kBoolean, "ts_open_inference_protocol", "not needed: the Open Inference protocol is always served"},
    {IdleKey::kText, "metrics_config", "not applicable: the front door's metrics have fixed names and are always counted"},

    {IdleKey::kText, "keystore", "not applicable: Java's key store"},
    {IdleKey::kText, "keystore_pass", "not applicable: Java's key store"},
    {IdleKey::kText, "keystore_type", "not applicable: Java's key store"},
    {IdleKey::kBoolean, "async_logging", kJava},
    {IdleKey::kText, "vmargs", kJava},
    {IdleKey::kText, "plugins_path", kJava},
    {IdleKey::kBoolean, "debug", "not applicable: the environment variable PENSTOCK_LOG=debug makes the log say more"},
    {IdleKey::kInteger, "number_of_netty_threads", kNetty},
    {IdleKey::kInteger, "netty_client_threads", kNetty},
    {IdleKey::kBoolean, "use_native_io", kNetty},
    {IdleKey::kInteger, "io_ratio", kNetty},
    {IdleKey::kBoolean, "prefer_direct_buffer", kNetty},
    {IdleKey::kInteger, "initial_worker_port", kPorts},
    {IdleKey::kInteger, "initial_distribution_port", kPorts},
    {IdleKey::kBoolean, "install_py_dep_per_model", kPython},
    {IdleKey::kText, "default_service_handler", kPython},
    {IdleKey::kBoolean, "model_metrics_auto_detect", kPython},
    {IdleKey::kText, "system_metrics_cmd", kPython},
    {IdleKey::kBoolean, "ipex_enable", kPython},
    {IdleKey::kBoolean, "ipex_gpu_enable", kPython},
    {IdleKey::kBoolean, "cpu_launcher_enable", kPython},
    {IdleKey::kText, "cpu_launcher_args", kPython},
};

Field idle_field(const IdleKey& idle, RawServerConfig& raw) {
  switch (idle.type) {
    case IdleKey::kInteger: return noted(integer_field(idle.key, raw.idle_integer, {0}, ""), idle.why);
    case IdleKey::kBoolean: return noted(boolean_field(idle.key, raw.idle_boolean, ""), idle.why);
    case IdleKey::kText: break;
  }
  return noted(text_field(idle.key, raw.idle_text, ""), idle.why);
}

}  // namespace

std::vector<Field> server_fields(ServerConfig& c, RawServerConfig& raw) {
  std::vector<Field> fields = {
      text_field("inference_address", raw.inference_address, ""),
      text_field("management_address", raw.management_address, ""),
      text_field("metrics_address", raw.metrics_address, ""),
      boolean_field("enable_metrics_api", c.enable_metrics_api, ""),
      choice_field<MetricsMode>("metrics_mode", c.metrics_mode,
                                {{"log", MetricsMode::kLog}, {"prometheus", MetricsMode::kPrometheus}, {"legacy", MetricsMode::kLegacy}}, ""),
      seconds_field("metric_time_interval", c.metric_time_interval, {1}, ""),
      boolean_field("disable_system_metrics", c.disable_system_metrics, ""),
      choice_field<AccessLog>("access_log", c.access_log,
                              {{"auto", AccessLog::kAuto}, {"torchserve", AccessLog::kTorchServe}, {"json", AccessLog::kJson}, {"off", AccessLog::kOff}}, ""),
      text_field("otlp_endpoint", c.otlp_endpoint, ""),
      text_field("grpc_inference_address", c.grpc_inference_address, ""),
      integer_field("grpc_inference_port", c.grpc_inference_port, {0, 65535}, ""),
      integer_field("grpc_inference_max_connection_age_ms", c.grpc_inference_age.max_ms, {1}, ""),
      integer_field("grpc_inference_max_connection_age_grace_ms", c.grpc_inference_age.grace_ms, {0}, ""),
      text_field("grpc_management_address", c.grpc_management_address, ""),
      integer_field("grpc_management_port", c.grpc_management_port, {0, 65535}, ""),
      integer_field("grpc_management_max_connection_age_ms", c.grpc_management_age.max_ms, {1}, ""),
      integer_field("grpc_management_max_connection_age_grace_ms", c.grpc_management_age.grace_ms, {0}, ""),
      text_field("agent_address", raw.agent_address, ""),
      text_field("agent_token_file", c.agent_token_file, ""),
      boolean_field("agent_without_token", c.agent_without_token, ""),
      text_field("models", raw.models, ""),
      text_field("model_snapshot", raw.model_snapshot, ""),
      boolean_field("enable_model_api", c.enable_model_api, ""),
      text_field("allowed_urls", raw.allowed_urls, ""),
      integer_field("max_download_mb", c.max_download_mb, {1}, ""),
      seconds_field("download_timeout", c.download_timeout, {1}, ""),
      seconds_field("unregister_model_timeout", c.unregister_model_timeout, {1}, ""),
      text_field("model_store", c.model_store, ""),
      text_field("load_models", raw.load_models, ""),
      seconds_field("default_response_timeout", c.default_response_timeout, {1}, ""),
      seconds_field("default_startup_timeout", c.default_startup_timeout, {1}, ""),
      integer_field("job_queue_size", c.job_queue_size, {1}, ""),
      integer_field("number_of_gpu", raw.number_of_gpu, {0}, ""),
      integer_field("max_request_size", c.max_request_size, {1}, ""),
      integer_field("max_response_size", c.max_response_size, {1}, ""),
      text_field("ts_header_key_sequence_id", c.sequence_id_header, ""),
      text_field("ts_header_key_sequence_start", c.sequence_start_header, ""),
      text_field("ts_header_key_sequence_end", c.sequence_end_header, ""),
      integer_field("default_workers_per_model", c.default_workers_per_model, {0}, ""),
      text_field("blacklist_env_vars", c.blacklist_env_vars, ""),
      boolean_field("enable_grpc_ssl", c.enable_grpc_ssl, ""),
      text_field("certificate_file", c.certificate_file, ""),
      text_field("private_key_file", c.private_key_file, ""),
      text_field("client_ca_file", c.client_ca_file, ""),
      text_field("cors_allowed_origin", c.cors_allowed_origin, ""),
      text_field("cors_allowed_methods", c.cors_allowed_methods, ""),
      text_field("cors_allowed_headers", c.cors_allowed_headers, ""),
      seconds_field("http_header_timeout", c.http_header_timeout, {1, 3600}, ""),
      seconds_field("http_body_timeout", c.http_body_timeout, {1, 3600}, ""),
      boolean_field("disable_token_authorization", raw.disable_token_authorization, ""),
      real_field("token_expiration_min", c.token_expiration_min, {.min = 0, .max = kMaxTokenMinutes, .min_excluded = true}, ""),
      integer_field("grpc_memory_mb", c.grpc_memory_mb, {1}, ""),
      integer_field("token_failure_limit", c.token_failure_limit, {0}, ""),
      boolean_field("enable_envvars_config", raw.enable_envvars_config, ""),
      boolean_field("use_env_allowed_urls", raw.use_env_allowed_urls, ""),
  };
  // Read by python_settings().
  fields.push_back(text_field("service_envelope", raw.idle_text, ""));
  for (const char* key : {"decode_input_request", "limit_max_image_pixels"}) fields.push_back(boolean_field(key, raw.idle_boolean, ""));
  for (const IdleKey& idle : kIdleKeys) fields.push_back(idle_field(idle, raw));
  return fields;
}

}  // namespace penstock::config
