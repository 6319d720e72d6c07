#include "rpc/http_server.h"

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>

#include <exception>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "rpc/http_session.h"
#include "rpc/listen_socket.h"

namespace penstock::rpc {
namespace {

namespace asio = boost::asio;
using ErrorCode = boost::system::error_code;
using Socket = asio::generic::stream_protocol::socket;

constexpr int kThreads = 2;

// TLS 1.2 and later.
std::shared_ptr<asio::ssl::context> make_tls_context(const TlsFiles& files) {
  const auto context = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_server);
  context->set_options(asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1 | asio::ssl::context::no_compression |
                       asio::ssl::context::single_dh_use);
  context->use_certificate_chain(asio::buffer(files.certificates));
  context->use_private_key(asio::buffer(files.private_key), asio::ssl::context::pem);
  constexpr unsigned char kName[] = "penstock";  // sessions that are resumed stay with this kind of server
  (void)::SSL_CTX_set_session_id_context(context->native_handle(), kName, sizeof kName - 1);
  if (files.client_authorities.empty()) return context;
  context->set_verify_mode(asio::ssl::verify_peer | asio::ssl::verify_fail_if_no_peer_cert);
  context->add_certificate_authority(asio::buffer(files.client_authorities));
  return context;
}

}  // namespace

class HttpServer::Impl {
 public:
  Impl(const HttpServerOptions& options, HttpRouter router, ListenSocket socket, std::shared_ptr<asio::ssl::context> tls)
      : shared_(std::make_shared<HttpShared>(options, std::move(router), std::move(tls))),
        socket_(std::move(socket)),
        acceptor_(asio::make_strand(context_), {socket_.family(), 0}, socket_.release()),
        pause_(context_),
        address_(socket_.address().text()) {
    accept();
    for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { run(); });
  }
  ~Impl() { shutdown(Deadline::after(milliseconds(0))); }

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
  // What a connection throws ends that connection: it is pending nowhere any more.
  void run() {
    for (bool ended = false; !ended;) {
      try {
        context_.run();
        ended = true;
      } catch (const std::exception& failure) {
        spdlog::error("HTTP: a connection of {} is given up: {}", address_, failure.what());
      }
    }
  }

  void accept() {
    acceptor_.async_accept([this](ErrorCode failed, Socket socket) {
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
  ListenSocket socket_;
  asio::basic_socket_acceptor<asio::generic::stream_protocol> acceptor_;
  asio::steady_timer pause_;
  const std::string address_;
  std::vector<std::thread> threads_;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;

Result<std::unique_ptr<HttpServer>> HttpServer::start(const HttpServerOptions& options, HttpRouter router) {
  std::shared_ptr<asio::ssl::context> tls;
  if (options.address.tls) {
    PENSTOCK_CHECK(options.tls.has_value(), "{}", options.address.text());
    try {
      tls = make_tls_context(*options.tls);
    } catch (const boost::system::system_error& refused) {
      return error(Code::kInvalidArgument, "{}: OpenSSL refuses certificate_file, private_key_file or client_ca_file: {}", options.address.text(),
                   refused.what());
    }
  }
  auto socket = ListenSocket::open(options.address, options.address_key);
  if (!socket) return socket.error();
  auto impl = std::make_unique<Impl>(options, std::move(router), std::move(*socket), std::move(tls));
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

const std::string& HttpServer::address() const { return impl_->address(); }
void HttpServer::shutdown(Deadline deadline) { impl_->shutdown(deadline); }

}  // namespace penstock::rpc
