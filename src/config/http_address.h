#pragma once
// Where an HTTP listener is: "http://HOST:PORT", "https://HOST:PORT", "unix:/PATH".
#include <string>

#include "base/error.h"

namespace penstock::config {

struct HttpAddress {
  std::string host;          // no brackets around an IPv6 address; empty with a unix_path
  int port = 0;              // 0 = any free one
  bool tls = false;
  std::string unix_path = {};  // of the socket file; empty = TCP

  bool operator==(const HttpAddress&) const = default;
  // Whether only this machine reaches it.
  [[nodiscard]] bool is_local() const;
  // As it is written; with the port that was taken when 0 was asked for, if that is known by now.
  [[nodiscard]] std::string text() const;
};

// kInvalidArgument "expected ..., found '...'".
[[nodiscard]] Result<HttpAddress> parse_http_address(const std::string& text);

// Whether only this machine reaches a host that is listened on: 127.0.0.0/8, ::1, localhost.
[[nodiscard]] bool is_loopback(const std::string& host);

}  // namespace penstock::config
