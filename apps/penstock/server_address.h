#pragma once
// Which server a command talks to, and what it shows there.
#include <CLI/CLI.hpp>
#include <string>

#include "rpc/client_channel.h"

namespace penstock {

struct ServerOptions {
  std::string address = "127.0.0.1:7070";
  std::string key_file;
  std::string ca_file;
};

// --address, --key-file, --ca-file. `options` must outlive the command.
void add_server_options(CLI::App& command, ServerOptions& options);

// Keys and authorities come from files: a key on a command line is seen by everybody on the machine. Throws Error.
[[nodiscard]] rpc::ServerAddress server_address(const ServerOptions& options);

}  // namespace penstock
