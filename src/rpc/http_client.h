#pragma once
// One HTTP/1.1 POST, for what the front door reports to others.
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/error.h"

namespace penstock::rpc {

struct HttpUrl {
  std::string host;
  std::string port;
  std::string path;
};

// Of "http://HOST[:PORT][/PATH]"; kInvalidArgument otherwise, kUnimplemented for https.
[[nodiscard]] Result<HttpUrl> parse_http_url(const std::string& url);

// Sends a JSON body over a connection of its own. nullopt: answered with 2xx.
// Errors:  kUnavailable with the reason or the status; kDeadlineExceeded.
// Threads: any. Blocks until the deadline at most; a name server that does not answer may take longer.
[[nodiscard]] std::optional<Error> post_json(const HttpUrl& url, const std::string& body, Deadline deadline);

}  // namespace penstock::rpc
