#include "rpc/http_session.h"

#include <sys/socket.h>

#include <boost/asio/dispatch.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/mutex.h"
#include "base/uuid.h"
#include "frontend/request_watcher.h"
#include "rpc/http_request_reactor.h"
#include "rpc/http_stream_reactor.h"
#include "rpc/outbound_queue.h"

namespace penstock::rpc {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Socket = HttpStream::Socket;

constexpr seconds kLinger{2};
constexpr size_t kMaxDropped = 16 << 20;  // bytes
constexpr size_t kReadAhead = 64 << 10;  // bytes
constexpr milliseconds kLookAgain{250};
constexpr size_t kMaxHeaderLine = 60 << 10;  // bytes of an answer's header, name and value

using Request = http::request<http::string_body>;

// A handler's header may be longer than Beast holds (it throws then): the answer, or one that says so.
HttpResponse sendable(HttpResponse response) {
  for (const auto& [name, value] : response.headers) {
    const size_t bytes = name.size() + value.size();
    if (bytes <= kMaxHeaderLine) continue;
    return error_response(error(Code::kInternal, "the model's answer has a header of {} bytes; expected at most {}", bytes, kMaxHeaderLine));
  }
  return response;
}

// One connection: reads a request, has it answered, reads the next.
//
// Threads: what is not HttpReply runs on the connection's strand; HttpReply's methods from any thread.
class Session final : public HttpReply, public std::enable_shared_from_this<Session> {
 public:
  Session(Socket socket, std::shared_ptr<HttpShared> shared)
      : shared_(std::move(shared)),
        stream_(std::move(socket)),
        look_again_(stream_.get_executor()),
        peer_(peer_name(stream_.socket().native_handle())),
        peer_endpoint_(peer_address(stream_.socket())),
        buffer_(shared_->options.max_header_bytes + kReadAhead) {
    shared_->connections.fetch_add(1);
  }
  ~Session() override {
    finish_request();
    tell_watcher();
    shared_->connections.fetch_sub(1);
  }

  void start() {
    asio::dispatch(stream_.get_executor(), [self = shared_from_this()] { self->shared_->tls ? self->expect_tls() : self->read_header(); });
  }
  void refuse_busy() {
    asio::dispatch(stream_.get_executor(), [self = shared_from_this()] {
      if (self->shared_->tls) return self->linger();  // what is not TLS would only puzzle
      self->refuse(error_response(503, "ServiceUnavailableException", "too many connections; try again later"));
    });
  }

  void send(HttpResponse response) override {
    asio::post(stream_.get_executor(), [self = shared_from_this(), response = sendable(std::move(response))]() mutable { self->write(std::move(response)); });
  }
  bool can_stream() const override { return http_1_1_ && !headers_only_; }
  void begin_stream(HttpResponse head) override {
    asio::post(stream_.get_executor(), [self = shared_from_this(), head = sendable(std::move(head))]() mutable { self->prepare_head(std::move(head)); });
    act(chunks_->push({.is_head = true, .text = ""}));
  }
  bool chunk(std::string text) override {
    const size_t bytes = text.size();
    act(chunks_->push({.is_head = false, .text = std::move(text)}, bytes));
    return !chunks_->closed();
  }
  void end_stream(const std::optional<Error>& failure) override { act(chunks_->close(failure)); }

  void when_gone(std::function<void()> gone) override EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      if (!answering_) return;  // the answer was faster
      if (!is_gone_) {
        gone_ = std::move(gone);
        return;
      }
    }
    gone();
  }

 private:
  struct Chunk {
    bool is_head = false;
    std::string text;
  };

  // A client that speaks plain HTTP to a TLS port is told so.
  void expect_tls() {
    expires_after(shared_->options.header_timeout);
    beast::async_detect_ssl(stream_.plain(), buffer_, [self = shared_from_this()](beast::error_code failed, bool tls) {
      if (failed) return self->linger();
      if (!tls) return self->refuse(error_response(403, "BadRequestException", "this port takes HTTPS requests only; use https://"));
      self->stream_.handshake(*self->shared_->tls, self->buffer_, [self](beast::error_code refused) {
        if (!refused) return self->read_header();
        spdlog::debug("TLS: no handshake with {}: {}", self->peer_, refused.message());
        self->linger();
      });
    });
  }

  void read_header() {
    parser_.emplace();
    cors_.clear();
    headers_only_ = false;
    parser_->header_limit(static_cast<std::uint32_t>(shared_->options.max_header_bytes));
    parser_->body_limit(shared_->options.max_request_bytes);
    expires_after(shared_->options.header_timeout);
    http::async_read_header(stream_, buffer_, *parser_, [self = shared_from_this()](beast::error_code failed, size_t) { self->on_header(failed); });
  }

  void on_header(beast::error_code failed) {
    const bool too_long = failed == http::error::body_limit;  // of whose request the header is there
    if (failed && !too_long) return on_bad_request(failed);
    const auto& header = parser_->get();
    noted_ = note(header, shared_->options.watcher && shared_->options.watcher->records_spans());
    http_1_1_ = header.version() == 11;
    headers_only_ = header.method() == http::verb::head;
    if (const char* why = ambiguity(header)) return refuse(400, "BadRequestException", why);
    cors_ = cors_headers(shared_->options.cors, std::string(header[http::field::origin]));
    if (is_preflight(header)) return answer_preflight();
    if (auto refusal = check_token(header)) return refuse(std::move(*refusal));
    if (const auto length = parser_->content_length(); too_long || (length && *length > shared_->options.max_request_bytes)) {
      return on_bad_request(http::error::body_limit);
    }
    expires_after(shared_->options.body_timeout);
    if (!beast::iequals(header[http::field::expect], "100-continue")) return read_body();
    asio::async_write(stream_, asio::buffer("HTTP/1.1 100 Continue\r\n\r\n", 25), [self = shared_from_this()](beast::error_code broken, size_t) {
      if (!broken) self->read_body();
    });
  }

  // A browser asks whether a page may send its request. It sends no token with that, and learns nothing but the rules.
  bool is_preflight(const http::request_header<>& header) const {
    return !cors_.empty() && header.method() == http::verb::options && header.find(http::field::access_control_request_method) != header.end();
  }
  void answer_preflight() {
    keep_alive_ = false;  // there may be a body, which nobody reads
    write({204, "", "", {}});
  }

  // Why this request may not pass. Two tokens are none: who looks at the first and who looks at the last would disagree.
  std::optional<HttpResponse> check_token(const http::request_header<>& header) {
    frontend::AccessKeys* access_keys = shared_->options.access_keys;
    if (!access_keys) return std::nullopt;
    const auto [first, last] = header.equal_range(http::field::authorization);
    const std::string authorization = std::distance(first, last) == 1 ? std::string(first->value()) : "";
    const std::string target(header.target());
    const auto lock = shared_->router.lock(std::string(header.method_string()), target.substr(0, target.find('?')));
    const auto refused = access_keys->check(lock.keys, authorization, peer_);
    return refused ? std::optional(lock.refuse(*refused)) : std::nullopt;
  }

  void read_body() {
    http::async_read(stream_, buffer_, *parser_, [self = shared_from_this()](beast::error_code failed, size_t) { self->on_request(failed); });
  }

  void on_request(beast::error_code failed) {
    if (failed) return on_bad_request(failed);
    Request message = parser_->release();
    keep_alive_ = message.keep_alive();
    auto request = from_wire(message);
    if (!request) return refuse(400, "BadRequestException", request.error().message());
    request->client = peer_;
    request->id = noted_->request_id;
    request->trace = noted_->trace;
    stream_.plain().expires_never();  // the router's handlers have limits of their own
    shared_->busy.fetch_add(1);
    chunks_ = std::make_shared<OutboundQueue<Chunk>>(shared_->options.max_waiting_chunks);
    {
      MutexLock lock(mutex_);
      answering_ = true;
    }
    watch_for_end();
    shared_->router.handle(std::move(*request), shared_from_this());
  }

  void on_bad_request(beast::error_code failed) {
    if (failed == http::error::header_limit) {
      return refuse(431, "BadRequestException", fmt::format("the header is longer than {} bytes", shared_->options.max_header_bytes));
    }
    if (failed == http::error::body_limit) {
      return refuse(413, "RequestEntityTooLargeException", fmt::format("the body is longer than {} bytes (max_request_size)", shared_->options.max_request_bytes));
    }
    const bool gone = failed == http::error::end_of_stream || failed == http::error::partial_message || failed == beast::error::timeout ||
                      failed.category() != http::make_error_code(http::error::bad_method).category();
    if (gone) return close();
    refuse(400, "BadRequestException", "not an HTTP request: " + failed.message());
  }

  // In the words of what lies at the request's path, if so much of it could be read.
  void refuse(int status, const char* type, const std::string& why) {
    const std::string target = noted_ ? noted_->target : "";
    refuse(shared_->router.refusal(status, type, target.substr(0, target.find('?')), why));
  }

  // Answers what was not read to its end, and closes: where the next request would begin is unknown.
  void refuse(HttpResponse response) {
    keep_alive_ = false;
    if (!noted_) noted_.emplace();
    write(std::move(response));
  }

  template <typename Message>
  void set_headers(Message& message, const HttpResponse& response) {
    if (response.status >= 400) keep_alive_ = false;
    message.version(http_1_1_ ? 11 : 10);
    message.result(static_cast<unsigned>(response.status));
    if (!response.content_type.empty()) message.set(http::field::content_type, response.content_type);
    if (noted_->request_id.empty()) noted_->request_id = make_uuid();
    if (!client_is_gone()) noted_->status = response.status;  // else nobody gets it
    message.set("x-request-id", noted_->request_id);
    if (noted_->trace.recorded) message.set("traceresponse", frontend::traceparent(*noted_->trace.context));
    message.set(http::field::pragma, "no-cache");
    message.set(http::field::cache_control, "no-cache; no-store, must-revalidate, private");
    message.set(http::field::expires, "Thu, 01 Jan 1970 00:00:00 UTC");
    for (const auto& [name, value] : cors_) message.set(name, value);
    for (const auto& [name, value] : response.headers) message.set(name, value);
    message.keep_alive(keep_alive_);
  }

  void write(HttpResponse response) {
    response_.emplace();
    set_headers(*response_, response);
    response_->body() = std::move(response.body);
    response_->prepare_payload();
    if (headers_only_) response_->body().clear();
    expires_after(shared_->options.write_timeout);
    http::async_write(stream_, *response_, [self = shared_from_this()](beast::error_code failed, size_t) { self->after_answer(failed); });
  }

  void prepare_head(HttpResponse response) {
    head_.emplace();
    set_headers(*head_, response);
    head_->chunked(true);
    head_writer_.emplace(*head_);
  }

  // What the queue says is to be done now.
  void act(Next next) {
    if (next == Next::kNothing) return;
    asio::post(stream_.get_executor(), [self = shared_from_this(), next] { next == Next::kWrite ? self->write_chunk() : self->write_end(); });
  }

  void write_chunk() {
    expires_after(shared_->options.write_timeout);
    const auto written = [self = shared_from_this(), chunks = chunks_](beast::error_code failed, size_t) {
      if (failed) self->on_gone();
      self->act(chunks->written(!failed));
    };
    if (chunks_->current().is_head) http::async_write_header(stream_, *head_writer_, written);
    else asio::async_write(stream_, http::make_chunk(asio::buffer(chunks_->current().text)), written);
  }

  void write_end() {
    expires_after(shared_->options.write_timeout);
    end_text_.clear();
    if (const auto& failure = chunks_->outcome()) {
      keep_alive_ = false;
      const std::string body = error_response(*failure).body;
      end_text_ = fmt::format("{:x}\r\n{}\r\n", body.size(), body);
    }
    end_text_ += "0\r\n\r\n";
    asio::async_write(stream_, asio::buffer(end_text_), [self = shared_from_this()](beast::error_code failed, size_t) { self->after_answer(failed); });
  }

  void after_answer(beast::error_code failed) {
    finish_request();
    tell_watcher();
    if (failed || !keep_alive_) return close();
    read_header();
  }

  // The answer has ended; once for each request.
  void finish_request() EXCLUDES(mutex_) {
    std::function<void()> dropped;  // destroyed without the lock: it may hold the last reference to a job
    MutexLock lock(mutex_);
    if (std::exchange(answering_, false)) shared_->busy.fetch_sub(1);
    dropped = std::exchange(gone_, nullptr);
  }

  // Once for each request whose header was read, or that was refused before.
  void tell_watcher() {
    if (shared_->options.watcher && noted_) {
      frontend::AnsweredRequest request;
      request.protocol = frontend::Protocol::kHttp;
      request.peer = peer_endpoint_;
      request.method = noted_->method;
      request.target = noted_->target;
      request.version = noted_->version;
      request.status = noted_->status;
      request.took = Clock::now() - noted_->began;
      request.request_id = noted_->request_id;
      request.trace = &noted_->trace;
      shared_->options.watcher->answered(request);
    }
    noted_.reset();
  }

  // While a request is answered nothing is read, so its client's end has to be looked for.
  void watch_for_end() {
    if (std::exchange(watching_, true)) return;
    stream_.socket().async_wait(Socket::wait_read, [self = shared_from_this()](beast::error_code failed) {
      self->watching_ = false;
      if (!failed) self->look_at_client();
    });
  }

  void look_at_client() EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      if (!answering_) return;
    }
    char byte = 0;
    const ssize_t count = ::recv(stream_.socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (count > 0) return look_again();
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return watch_for_end();
    on_gone();
  }

  // The next request is there already, or a part of it; it is read when this one is answered. Inside TLS it may as well be the client's farewell. Only the end
  // of the connection tells.
  void look_again() {
    if (stream_.client_ended()) return on_gone();
    watching_ = true;
    look_again_.expires_after(kLookAgain);
    look_again_.async_wait([self = shared_from_this()](beast::error_code failed) {
      self->watching_ = false;
      if (!failed) self->look_at_client();
    });
  }

  void on_gone() EXCLUDES(mutex_) {
    std::function<void()> gone;
    {
      MutexLock lock(mutex_);
      is_gone_ = true;
      gone = std::exchange(gone_, nullptr);
    }
    keep_alive_ = false;
    if (gone) gone();
  }

  bool client_is_gone() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return is_gone_;
  }

  void close() {
    if (!stream_.is_tls()) return linger();
    expires_after(kLinger);
    stream_.farewell([self = shared_from_this()](beast::error_code) { self->linger(); });
  }

  // What the client still sends is read and dropped for a moment: closing at once would make its system throw our answer away.
  void linger() {
    beast::error_code ignored;
    stream_.socket().shutdown(Socket::shutdown_send, ignored);
    expires_after(kLinger);
    drop_rest(kMaxDropped);
  }

  void drop_rest(size_t most) {
    stream_.plain().async_read_some(asio::buffer(dropped_), [self = shared_from_this(), most](beast::error_code failed, size_t count) {
      if (failed || count >= most) self->stream_.plain().close();
      else self->drop_rest(most - count);
    });
  }

  void expires_after(milliseconds time) { stream_.plain().expires_after(time); }

  const std::shared_ptr<HttpShared> shared_;
  HttpStream stream_;
  asio::steady_timer look_again_;
  const std::string peer_;          // for the count of wrong tokens
  const std::string peer_endpoint_;  // for logs
  std::optional<NotedRequest> noted_;  // of the request that is read or answered
  beast::flat_buffer buffer_;  // bounded: the end of a chunk's line or of the trailers might never come
  std::optional<http::request_parser<http::string_body>> parser_;
  std::optional<http::response<http::string_body>> response_;
  std::optional<http::response<http::empty_body>> head_;
  std::optional<http::response_serializer<http::empty_body>> head_writer_;
  std::shared_ptr<OutboundQueue<Chunk>> chunks_;  // of the request that is answered; the next one gets a new one
  std::string end_text_;
  std::vector<std::pair<std::string, std::string>> cors_;  // of the answer to this request
  std::array<char, 4096> dropped_;
  std::atomic<bool> http_1_1_{true};
  std::atomic<bool> headers_only_{false};  // the request is a HEAD
  bool keep_alive_ = true;
  bool watching_ = false;
  Mutex mutex_;
  bool answering_ GUARDED_BY(mutex_) = false;
  bool is_gone_ GUARDED_BY(mutex_) = false;
  std::function<void()> gone_ GUARDED_BY(mutex_);
};

}  // namespace

void start_http_session(asio::io_context& context, int socket, std::shared_ptr<HttpShared> shared, bool full) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  (void)::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length);
  Socket connection(asio::make_strand(context), {address.ss_family, 0}, socket);
  const auto session = std::make_shared<Session>(std::move(connection), std::move(shared));
  full ? session->refuse_busy() : session->start();
}

}  // namespace penstock::rpc
