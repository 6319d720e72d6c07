#include "listeners.h"

#include <filesystem>
#include <string>

#include "agent_token.h"
#include "base/log.h"

namespace penstock {

std::unique_ptr<frontend::AccessKeys> make_access_keys(const config::ServerConfig& config, bool by_default) {
  if (!config.token_authorization.value_or(by_default)) return nullptr;
  frontend::AccessKeyOptions options;
  options.file = std::filesystem::absolute("key_file.json");
  options.lifetime = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::ratio<60>>(config.token_expiration_min));
  options.failures_per_minute = config.token_failure_limit;
  return std::make_unique<frontend::AccessKeys>(std::move(options));
}

std::optional<rpc::TlsFiles> read_tls(const config::ServerConfig& config) {
  if (!config.uses_tls()) return std::nullopt;
  return rpc::read_tls_files({config.certificate_file, config.private_key_file, config.client_ca_file}).value();
}

void warn_of_open_doors(const config::ServerConfig& config, bool asks_for_keys) {
  if (asks_for_keys) return;
  const bool certificates = !config.client_ca_file.empty();
  std::string open;
  const auto add = [&open](bool is_open, const std::string& address) {
    if (is_open) open += (open.empty() ? "" : ", ") + address;
  };
  for (const auto& [host, port] : {std::pair(config.grpc_inference_address, config.grpc_inference_port),
                                   std::pair(config.grpc_management_address, config.grpc_management_port)}) {
    add(!config::is_loopback(host) && !(config.enable_grpc_ssl && certificates), rpc::join_address(host, port));
  }
  for (const config::HttpAddress& address : {config.inference_address, config.management_address}) {
    add(!address.is_local() && !(address.tls && certificates), address.text());
  }
  const config::HttpAddress& metrics = config.metrics_address;  // keys would not close it
  add(config.enable_metrics_api && !metrics.is_local() && !(metrics.tls && certificates), metrics.text());
  if (open.empty()) return;
  spdlog::warn("other machines reach {}, and nobody there is asked who he is; ask for tokens with --set disable_token_authorization=false or for "
               "certificates with client_ca_file, or listen on 127.0.0.1 only (docs/security.md)", open);
}

rpc::GrpcServerOptions grpc_options(const config::ServerConfig& config, frontend::AccessKeys* access_keys, const std::optional<rpc::TlsFiles>& tls) {
  rpc::GrpcServerOptions options;
  options.max_request_bytes = config.max_request_size;
  options.max_response_bytes = config.max_response_size;
  options.max_memory_bytes = static_cast<size_t>(config.grpc_memory_mb) << 20;
  options.access_keys = access_keys;
  if (config.enable_grpc_ssl) options.tls = tls;
  return options;
}

rpc::AgentServerOptions agent_options(const config::ServerConfig& config, const std::optional<rpc::TlsFiles>& tls) {
  rpc::AgentServerOptions options;
  options.host = config.agent_address->host;
  options.port = config.agent_address->port;
  options.failures_per_minute = config.token_failure_limit;
  if (!config.agent_token_file.empty()) options.token = read_agent_token(config.agent_token_file, "agent_token_file").value();
  if (config.enable_grpc_ssl) options.tls = tls;
  else if (!config::is_loopback(options.host)) {
    spdlog::warn("agents join at {} without encryption: whoever can read what they send learns the token; enable_grpc_ssl=true speaks TLS there", rpc::join_address(options.host, options.port));
  }
  return options;
}

rpc::HttpServerOptions http_options(const config::ServerConfig& config, frontend::AccessKeys* access_keys, const std::optional<rpc::TlsFiles>& tls) {
  rpc::HttpServerOptions options;
  options.max_request_bytes = static_cast<size_t>(config.max_request_size);
  options.header_timeout = config.http_header_timeout;
  options.body_timeout = config.http_body_timeout;
  options.cors = {config.cors_allowed_origin, config.cors_allowed_methods, config.cors_allowed_headers};
  options.access_keys = access_keys;
  options.tls = tls;
  return options;
}

}  // namespace penstock
