#include "config/http_address.h"

#include <arpa/inet.h>

#include <charconv>
#include <string_view>

namespace penstock::config {

bool HttpAddress::is_local() const { return !unix_path.empty() || is_loopback(host); }

std::string HttpAddress::text() const {
  if (!unix_path.empty()) return "unix:" + unix_path;
  const bool v6 = host.find(':') != std::string::npos;
  return fmt::format("{}://{}{}{}:{}", tls ? "https" : "http", v6 ? "[" : "", host, v6 ? "]" : "", port);
}

Result<HttpAddress> parse_http_address(const std::string& text) {
  const Error wrong = error(Code::kInvalidArgument, "expected http://HOST:PORT, https://HOST:PORT or unix:/PATH, found '{}'", text);
  std::string_view rest = text;
  const auto take = [&rest](std::string_view scheme) {
    if (!rest.starts_with(scheme)) return false;
    rest.remove_prefix(scheme.size());
    return true;
  };
  HttpAddress address;
  if (take("unix:")) {
    if (!rest.starts_with('/') || rest.ends_with('/')) return wrong;
    address.unix_path = rest;
    return address;
  }
  address.tls = take("https://");
  if (!address.tls && !take("http://")) return wrong;
  const size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos) return wrong;
  address.host = rest.substr(0, colon);
  if (address.host.starts_with('[') && address.host.ends_with(']')) address.host = address.host.substr(1, address.host.size() - 2);
  const char* end = rest.data() + rest.size();
  const auto [parsed, failed] = std::from_chars(rest.data() + colon + 1, end, address.port);
  const bool good = failed == std::errc() && parsed == end && address.port >= 0 && address.port <= 65535;
  if (!good || address.host.empty() || address.host.find_first_of("/@ \t") != std::string::npos) return wrong;
  return address;
}

bool is_loopback(const std::string& host) {
  in_addr address{};
  return host == "localhost" || host == "::1" || (::inet_pton(AF_INET, host.c_str(), &address) == 1 && (ntohl(address.s_addr) >> 24) == 127);
}

}  // namespace penstock::config
