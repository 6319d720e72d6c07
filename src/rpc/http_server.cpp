#include "rpc/http_server.h"

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>

#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "rpc/grpc_server.h"
#include "rpc/http_session.h"

namespace penstock::rpc {
namespace {

namespace asio = boost::asio;
using ErrorCode = boost::system::error_code;
using tcp = asio::ip::tcp;

constexpr int kThreads = 2;

}  // namespace

class HttpServer::Impl {
 public:
  Impl(const HttpServerOptions& options, HttpRouter router)
      : shared_(std::make_shared<HttpShared>(options, std::move(router))), acceptor_(asio::make_strand(context_)), pause_(context_) {}
  ~Impl() { shutdown(Deadline::after(milliseconds(0))); }

  std::optional<Error> listen() {
    const HttpServerOptions& options = shared_->options;
    ErrorCode failed;
    tcp::resolver resolver(context_);
    const auto found = resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, failed);
    if (!failed) {
      const tcp::endpoint endpoint = found.begin()->endpoint();
      acceptor_.open(endpoint.protocol(), failed);
      if (!failed) acceptor_.set_option(asio::socket_base::reuse_address(true), failed);
      if (!failed) acceptor_.bind(endpoint, failed);
      if (!failed) acceptor_.listen(asio::socket_base::max_listen_connections, failed);
    }
    if (failed) {
      return error(Code::kUnavailable, "cannot listen on {} (HTTP): {}; end the program that has it, or choose another with --set {}=http://HOST:PORT",
                   join_address(options.host, options.port), failed.message(), options.port_key);
    }
    address_ = "http://" + join_address(options.host, acceptor_.local_endpoint().port());
    accept();
    for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { context_.run(); });
    return std::nullopt;
  }

  [[nodiscard]] const std::string& address() const { return address_; }

  void shutdown(Deadline deadline) {
    if (threads_.empty()) return;
    asio::post(acceptor_.get_executor(), [this] {
      ErrorCode ignored;
      acceptor_.close(ignored);
      pause_.cancel();
    });
    while (shared_->busy.load() > 0 && !deadline.passed()) std::this_thread::sleep_for(milliseconds(5));
    context_.stop();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  void accept() {
    acceptor_.async_accept([this](ErrorCode failed, tcp::socket socket) {
      if (failed == asio::error::operation_aborted || !acceptor_.is_open()) return;
      if (failed) {
        // No file descriptors, most likely: give those that end a moment.
        spdlog::warn("HTTP: cannot accept a connection: {}", failed.message());
        pause_.expires_after(milliseconds(100));
        pause_.async_wait(asio::bind_executor(acceptor_.get_executor(), [this](ErrorCode stopped) {
          if (!stopped && acceptor_.is_open()) accept();
        }));
        return;
      }
      const bool full = shared_->connections.load() >= shared_->options.max_connections;
      start_http_session(context_, socket.release(), shared_, full);
      accept();
    });
  }

  asio::io_context context_{kThreads};  // first: what is pending in it when it goes are the connections, which use the rest
  const std::shared_ptr<HttpShared> shared_;
  tcp::acceptor acceptor_;
  asio::steady_timer pause_;
  std::string address_;
  std::vector<std::thread> threads_;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;

Result<std::unique_ptr<HttpServer>> HttpServer::start(const HttpServerOptions& options, HttpRouter router) {
  auto impl = std::make_unique<Impl>(options, std::move(router));
  if (auto failure = impl->listen()) return *failure;
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

const std::string& HttpServer::address() const { return impl_->address(); }
void HttpServer::shutdown(Deadline deadline) { impl_->shutdown(deadline); }

}  // namespace penstock::rpc
