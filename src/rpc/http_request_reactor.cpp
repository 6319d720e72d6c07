#include "rpc/http_request_reactor.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <boost/asio/ip/tcp.hpp>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/uuid.h"
#include "rpc/grpc_server.h"

namespace penstock::rpc {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

std::string peer_address(HttpStream::Socket& socket) {
  beast::error_code failed;
  const auto endpoint = socket.remote_endpoint(failed);
  if (failed) return "unknown";
  if (endpoint.protocol().family() == AF_UNIX) return "unix";
  asio::ip::tcp::endpoint tcp;
  tcp.resize(endpoint.size());
  std::memcpy(tcp.data(), endpoint.data(), endpoint.size());
  return join_address(tcp.address().to_string(), tcp.port());
}

NotedRequest note(const http::request_header<>& header, bool spans) {
  const auto field = [&](const char* name) { return std::string_view(header[name].data(), header[name].size()); };
  NotedRequest noted;
  noted.method = std::string(header.method_string());
  noted.target = std::string(header.target());
  if (header.version() == 10) noted.version = "HTTP/1.0";
  const std::string_view id = field("x-request-id");
  noted.request_id = frontend::sane_request_id(id) ? std::string(id) : make_uuid();
  const auto [first, last] = header.equal_range("traceparent");
  std::string state;
  const auto [first_state, last_state] = header.equal_range("tracestate");
  for (auto it = first_state; it != last_state; ++it) state += (state.empty() ? "" : ",") + std::string(it->value());
  noted.trace = frontend::begin_trace(
      frontend::read_trace(field("traceparent"), static_cast<size_t>(std::distance(first, last)), state), spans);
  return noted;
}

const char* ambiguity(const http::request_header<>& header) {
  const auto count = [&](http::field name) {
    const auto [first, last] = header.equal_range(name);
    return std::distance(first, last);
  };
  if (count(http::field::content_length) > 1) return "Content-Length is given twice";
  if (count(http::field::transfer_encoding) > 1) return "Transfer-Encoding is given twice";
  const bool encoded = count(http::field::transfer_encoding) == 1;
  if (encoded && count(http::field::content_length) > 0) return "both Content-Length and Transfer-Encoding are given";
  if (encoded && !beast::iequals(header[http::field::transfer_encoding], "chunked")) return "Transfer-Encoding: expected chunked";
  if (encoded && header.version() < 11) return "Transfer-Encoding needs HTTP/1.1";
  if (header.version() != 10 && header.version() != 11) return "expected HTTP/1.0 or HTTP/1.1";
  if (count(http::field::host) > 1) return "Host is given twice";
  if (count(http::field::host) == 0 && header.version() == 11) return "Host is missing";
  return nullptr;
}

std::string peer_name(int socket) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  char text[INET6_ADDRSTRLEN] = "";
  if (::getpeername(socket, reinterpret_cast<sockaddr*>(&address), &length) != 0) return "an unknown address";
  if (address.ss_family == AF_INET) {
    (void)::inet_ntop(AF_INET, &reinterpret_cast<sockaddr_in&>(address).sin_addr, text, sizeof text);
    return text;
  }
  if (address.ss_family != AF_INET6) return "the unix socket";
  in6_addr ip = reinterpret_cast<sockaddr_in6&>(address).sin6_addr;
  if (IN6_IS_ADDR_V4MAPPED(&ip)) return ::inet_ntop(AF_INET, &ip.s6_addr[12], text, sizeof text);
  std::fill(ip.s6_addr + 8, ip.s6_addr + 16, 0);
  return fmt::format("{}/64", ::inet_ntop(AF_INET6, &ip, text, sizeof text));
}

Result<HttpRequest> from_wire(http::request<http::string_body>& message) {
  HttpRequest request;
  request.method = std::string(message.method_string());
  std::string_view target(message.target().data(), message.target().size());
  if (!target.starts_with('/')) return Error(Code::kInvalidArgument, "the request's target does not begin with '/'");
  const size_t mark = target.find('?');
  request.target = target;
  request.path = target.substr(0, mark);
  auto query = decode_query(mark == std::string_view::npos ? "" : target.substr(mark + 1));
  if (!query) return Error(Code::kInvalidArgument, "the query has a broken % escape");
  request.query = std::move(*query);
  for (const auto& field : message) request.headers.emplace_back(field.name_string(), field.value());
  request.body = std::move(message.body());
  return request;
}

}  // namespace penstock::rpc
