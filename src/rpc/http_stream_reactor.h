#pragma once
// The bytes of one HTTP connection, plain or inside TLS. Private to rpc/*.cpp: it shows the types of Boost.
#include <poll.h>

#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>

#include <optional>
#include <utility>

namespace penstock::rpc {

// An AsyncStream in Asio's sense. One type for both forms, so that what reads and writes HTTP is compiled, and tested, once.
//
// Threads: those of its strand.
class HttpStream {
 public:
  using Socket = boost::asio::generic::stream_protocol::socket;  // of TCP or of a unix socket
  using Plain = boost::beast::basic_stream<boost::asio::generic::stream_protocol>;
  using Tls = boost::beast::ssl_stream<Plain>;
  using ErrorCode = boost::beast::error_code;
  using executor_type = Plain::executor_type;

  explicit HttpStream(Socket socket) : plain_(std::move(socket)) {}

  executor_type get_executor() { return plain().get_executor(); }
  // What TLS, if any, runs on: has the time-outs and the socket.
  Plain& plain() { return tls_ ? tls_->next_layer() : *plain_; }
  Socket& socket() { return plain().socket(); }
  [[nodiscard]] bool is_tls() const { return tls_.has_value(); }

  // TLS from now on; `read` holds what the client has sent already. REQUIRES: nothing is pending. Calls done(ErrorCode).
  template <typename Done>
  void handshake(boost::asio::ssl::context& context, boost::beast::flat_buffer& read, Done done) {
    tls_.emplace(std::move(*plain_), context);
    plain_.reset();
    tls_->async_handshake(Tls::server, read.data(), [&read, done = std::move(done)](ErrorCode failed, size_t used) mutable {
      read.consume(used);
      done(failed);
    });
  }
  // Says farewell inside TLS and waits for the client's. REQUIRES: is_tls(). Calls done(ErrorCode).
  template <typename Done>
  void farewell(Done done) {
    tls_->async_shutdown(std::move(done));
  }

  // Whether the client has ended the connection, though bytes of it may still wait to be read.
  [[nodiscard]] bool client_ended() {
    pollfd look{socket().native_handle(), POLLRDHUP, 0};
    return ::poll(&look, 1, 0) > 0;
  }

  template <typename Buffers, typename Handler>
  void async_read_some(const Buffers& buffers, Handler&& handler) {
    if (tls_) tls_->async_read_some(buffers, std::forward<Handler>(handler));
    else plain_->async_read_some(buffers, std::forward<Handler>(handler));
  }
  template <typename Buffers, typename Handler>
  void async_write_some(const Buffers& buffers, Handler&& handler) {
    if (tls_) tls_->async_write_some(buffers, std::forward<Handler>(handler));
    else plain_->async_write_some(buffers, std::forward<Handler>(handler));
  }

 private:
  std::optional<Plain> plain_;  // one of the two
  std::optional<Tls> tls_;
};

}  // namespace penstock::rpc
