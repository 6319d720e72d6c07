#include "server_address.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"

namespace penstock {

void add_server_options(CLI::App& command, ServerOptions& options) {
  command.add_option("--address", options.address, "Where the server listens, HOST:PORT")->capture_default_str();
  command.add_option("--key-file", options.key_file, "The server's key_file.json, if it asks for tokens")->type_name("FILE");
  command.add_option("--ca-file", options.ca_file, "Speak TLS, with a server whose certificate these PEM authorities have signed")->type_name("FILE");
}

rpc::ServerAddress server_address(const ServerOptions& options) {
  constexpr size_t kMaxBytes = 1 << 20;
  rpc::ServerAddress server{options.address, "", ""};
  if (!options.ca_file.empty()) server.authorities = read_file(options.ca_file, kMaxBytes).value();
  if (options.key_file.empty()) return server;
  const auto json = nlohmann::json::parse(read_file(options.key_file, kMaxBytes).value(), nullptr, /*allow_exceptions=*/false);
  const auto key = nlohmann::json::json_pointer("/inference/key");
  if (!json.contains(key) || !json[key].is_string()) {
    throw error(Code::kInvalidArgument, "--key-file: {}: expected a server's key_file.json with an inference key", options.key_file);
  }
  server.key = json[key].get<std::string>();
  return server;
}

}  // namespace penstock
