#include "rpc/http_client.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include <algorithm>
#include <string_view>

namespace penstock::rpc {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using tcp = asio::ip::tcp;

constexpr size_t kMaxAnswer = 1 << 20;

// One POST, step by step; everything runs in the thread of the context.
class Post {
 public:
  Post(asio::io_context& context, const HttpUrl& url, const std::string& body) : resolver_(context), stream_(context), url_(url) {
    request_.method(http::verb::post);
    request_.target(url.path);
    request_.set(http::field::host, url.host + ":" + url.port);
    request_.set(http::field::content_type, "application/json");
    request_.set(http::field::connection, "close");
    request_.body() = body;
    request_.prepare_payload();
    parser_.body_limit(kMaxAnswer);
  }

  void start(Deadline deadline) {
    stream_.expires_at(deadline.when());
    resolver_.async_resolve(url_.host, url_.port, [this](beast::error_code failed, const tcp::resolver::results_type& found) {
      if (failed) return end("find the host", failed);
      stream_.async_connect(found, [this](beast::error_code refused, const tcp::endpoint&) { refused ? end("connect", refused) : write(); });
    });
  }
  [[nodiscard]] const std::optional<Error>& outcome() const { return outcome_; }

 private:
  void write() {
    http::async_write(stream_, request_, [this](beast::error_code failed, size_t) { failed ? end("send", failed) : read(); });
  }
  void read() {
    http::async_read(stream_, buffer_, parser_, [this](beast::error_code failed, size_t) {
      if (failed) return end("read the answer", failed);
      const unsigned status = parser_.get().result_int();
      outcome_.reset();
      if (status / 100 != 2) outcome_ = error(Code::kUnavailable, "{}:{}{} has answered {}", url_.host, url_.port, url_.path, status);
    });
  }
  void end(const char* step, beast::error_code failed) {
    const Code code = failed == beast::error::timeout ? Code::kDeadlineExceeded : Code::kUnavailable;
    outcome_ = error(code, "{}:{}: cannot {}: {}", url_.host, url_.port, step, failed.message());
  }

  tcp::resolver resolver_;
  beast::tcp_stream stream_;
  const HttpUrl url_;
  http::request<http::string_body> request_;
  beast::flat_buffer buffer_;
  http::response_parser<http::string_body> parser_;
  std::optional<Error> outcome_ = Error(Code::kDeadlineExceeded, "no answer in time");
};

}  // namespace

Result<HttpUrl> parse_http_url(const std::string& url) {
  constexpr std::string_view kScheme = "http://";
  if (url.starts_with("https://")) {
    return error(Code::kUnimplemented, "expected http://HOST[:PORT], found '{}': TLS is not supported there; run a collector on this machine", url);
  }
  const Error wrong = error(Code::kInvalidArgument, "expected http://HOST[:PORT][/PATH], found '{}'", url.substr(0, 200));
  const bool clean = std::all_of(url.begin(), url.end(), [](char c) { return c > ' ' && c < 0x7F; });
  if (!url.starts_with(kScheme) || !clean || url.find_first_of("@?#") != std::string::npos) return wrong;
  const std::string rest = url.substr(kScheme.size());
  const size_t slash = std::min(rest.find('/'), rest.size());
  HttpUrl parsed;
  parsed.path = rest.substr(slash);
  std::string address = rest.substr(0, slash);
  const size_t bracket = address.rfind(']');
  const size_t colon = address.rfind(':');
  const bool has_port = colon != std::string::npos && (bracket == std::string::npos || colon > bracket);
  parsed.port = has_port ? address.substr(colon + 1) : "80";
  if (has_port) address.resize(colon);
  if (address.starts_with('[') && address.ends_with(']')) address = address.substr(1, address.size() - 2);
  parsed.host = address;
  const bool number = !parsed.port.empty() && parsed.port.size() <= 5 && parsed.port.find_first_not_of("0123456789") == std::string::npos;
  if (parsed.host.empty() || !number) return wrong;
  return parsed;
}

std::optional<Error> post_json(const HttpUrl& url, const std::string& body, Deadline deadline) {
  asio::io_context context;
  Post post(context, url, body);
  post.start(deadline);
  context.run_until(deadline.when());
  return post.outcome();
}

}  // namespace penstock::rpc
