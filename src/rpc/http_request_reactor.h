#pragma once
// A request as it comes from the wire: what is ambiguous about it, our form of it, what logs and traces remember. Included by http_session.cpp only.
#include <boost/beast/http.hpp>

#include <optional>
#include <string>

#include "base/clock.h"
#include "frontend/request_watcher.h"
#include "rpc/http_message.h"
#include "rpc/http_stream_reactor.h"

namespace penstock::rpc {

inline constexpr int kClientGone = 499;  // what logs say of a request that had no answer

// What is remembered of a request for whoever watches.
struct NotedRequest {
  Clock::time_point began = Clock::now();
  std::string method = "-", target = "-";  // not read yet
  const char* version = "HTTP/1.1";
  std::string request_id;
  frontend::RequestTrace trace;
  int status = kClientGone;
};

// `spans`: they are recorded.
[[nodiscard]] NotedRequest note(const boost::beast::http::request_header<>& header, bool spans);

// Why two parsers might disagree about where this request ends, or whom it is for; nullptr: they cannot.
[[nodiscard]] const char* ambiguity(const boost::beast::http::request_header<>& header);

// Our form of a request; the error says what is wrong with its target.
[[nodiscard]] Result<HttpRequest> from_wire(boost::beast::http::request<boost::beast::http::string_body>& message);

// "127.0.0.1:1234".
[[nodiscard]] std::string peer_address(HttpStream::Socket& socket);

// Who is counted together when tokens are wrong: an IPv4 address, the network of an IPv6 address (64 bits), all of a unix socket.
[[nodiscard]] std::string peer_name(int socket);

}  // namespace penstock::rpc
