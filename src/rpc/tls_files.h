#pragma once
// The files that make a listener speak TLS, read and checked.
#include <string>

#include "base/error.h"

namespace penstock::rpc {

struct TlsPaths {
  std::string certificate_file;  // PEM: the server's certificate, then those that lead to its authority
  std::string private_key_file;  // PEM, without a password
  std::string client_ca_file;    // PEM: authorities of clients' certificates; empty = clients need none
};

// The contents, PEM, known to be sound and to belong together.
struct TlsFiles {
  std::string certificates;
  std::string private_key;
  std::string client_authorities;  // empty = clients need no certificate
};

// kInvalidArgument naming the key of config.properties, the file, and what is wrong: absent, unreadable, not PEM, a password, a key of another
// certificate. A certificate that has expired or is not valid yet is logged as a warning: clocks differ.
[[nodiscard]] Result<TlsFiles> read_tls_files(const TlsPaths& paths);

}  // namespace penstock::rpc
