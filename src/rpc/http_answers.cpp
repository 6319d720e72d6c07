#include "rpc/http_answers.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include "base/mutex.h"

namespace penstock::rpc {
namespace {

// Gathers a job's text and answers with it. Shared: the job may hold it longer than the request lives.
class WholeAnswer final : public frontend::RequestObserver {
 public:
  WholeAnswer(std::shared_ptr<HttpReply> reply, std::shared_ptr<const TextFormat> format, size_t limit)
      : reply_(std::move(reply)), format_(std::move(format)), limit_(limit) {}

  bool on_event(const frontend::WorkerEvent& event) override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (finished_) return false;
    text_ += event.bytes;
    return text_.size() <= limit_;  // the job ends as cancelled; on_done() says why
  }
  void on_done(const std::optional<Error>& failure) override EXCLUDES(mutex_) {
    HttpResponse response;
    {
      MutexLock lock(mutex_);
      if (std::exchange(finished_, true)) return;
      if (text_.size() > limit_) {
        response = error_response(answer_too_long(limit_));
      } else if (failure) {
        response = error_response(*failure);
      } else {
        response = {200, format_->whole_type(), format_->whole(text_), {}};
      }
    }
    reply_->send(std::move(response));
  }

 private:
  const std::shared_ptr<HttpReply> reply_;
  const std::shared_ptr<const TextFormat> format_;
  const size_t limit_;
  Mutex mutex_;
  std::string text_ GUARDED_BY(mutex_);
  bool finished_ GUARDED_BY(mutex_) = false;
};

// One chunk for each piece of text. An error before the first piece still has a status line of its own.
class StreamedAnswer final : public frontend::RequestObserver {
 public:
  StreamedAnswer(std::shared_ptr<HttpReply> reply, std::shared_ptr<const TextFormat> format)
      : reply_(std::move(reply)), format_(std::move(format)) {}

  bool on_event(const frontend::WorkerEvent& event) override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (finished_) return false;
    if (event.bytes.empty()) return true;
    begin();
    return reply_->chunk(format_->piece(event.bytes));
  }
  void on_done(const std::optional<Error>& failure) override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (std::exchange(finished_, true)) return;
    if (!begun_ && failure) return reply_->send(error_response(*failure));
    begin();
    reply_->end_stream(failure);
  }

 private:
  void begin() REQUIRES(mutex_) {
    if (!std::exchange(begun_, true)) reply_->begin_stream({200, format_->stream_type(), "", {}});
  }
  const std::shared_ptr<HttpReply> reply_;
  const std::shared_ptr<const TextFormat> format_;
  Mutex mutex_;  // held while the reply is called, which only queues: pieces and the end must not change places
  bool begun_ GUARDED_BY(mutex_) = false;
  bool finished_ GUARDED_BY(mutex_) = false;
};

// Headers that say how a message is sent: what the handler says of that is not true here.
bool is_transports(std::string_view name) {
  constexpr std::array<std::string_view, 9> kNames = {"connection", "content-length", "content-type", "keep-alive", "te",
                                                      "trailer", "transfer-encoding", "upgrade", "x-request-id"};
  std::string lower(name);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return std::find(kNames.begin(), kNames.end(), lower) != kNames.end();
}

bool is_name(std::string_view text) {
  const auto good = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos; };
  return !text.empty() && std::all_of(text.begin(), text.end(), good);
}

// No line end, which would begin a header or a body of its own.
bool is_value(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c == '\t' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7F); });
}

HttpResponse response_head(const handler::AnswerHead& head) {
  HttpResponse response{head.status, is_value(head.content_type) ? head.content_type : "", "", {}};
  for (const auto& [name, value] : head.headers) {
    if (is_name(name) && is_value(value) && !is_transports(name)) response.headers.emplace_back(name, value);
  }
  return response;
}

// Such an answer ends with its headers (RFC 9110); a body would be taken for the next answer.
bool has_no_body(int status) { return status == 204 || status == 304; }

// The answer of a handler. Shared: the job may hold it longer than the request lives.
class BytesAnswer final : public frontend::RequestObserver {
 public:
  BytesAnswer(std::shared_ptr<HttpReply> reply, size_t limit) : reply_(std::move(reply)), limit_(limit) {}

  bool on_event(const frontend::WorkerEvent& event) override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (finished_) return false;
    if (event.head) response_ = response_head(*event.head);
    if (has_no_body(response_.status)) return true;
    if (streaming_) return event.bytes.empty() || reply_->chunk(event.bytes);
    const bool whole = event.last || !reply_->can_stream();
    response_.body += event.bytes;
    if (whole) return response_.body.size() <= limit_;  // the job ends as cancelled; on_done() says why
    streaming_ = true;
    std::string first = std::exchange(response_.body, "");
    reply_->begin_stream(std::move(response_));
    return first.empty() || reply_->chunk(std::move(first));
  }
  void on_done(const std::optional<Error>& failure) override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (std::exchange(finished_, true)) return;
    if (streaming_) return reply_->end_stream(failure);
    if (response_.body.size() > limit_) {
      return reply_->send(error_response(answer_too_long(limit_)));
    }
    reply_->send(failure ? error_response(*failure) : std::move(response_));
  }

 private:
  const std::shared_ptr<HttpReply> reply_;
  const size_t limit_;
  Mutex mutex_;  // held while the reply is called, which only queues: pieces and the end must not change places
  HttpResponse response_ GUARDED_BY(mutex_);
  bool streaming_ GUARDED_BY(mutex_) = false;
  bool finished_ GUARDED_BY(mutex_) = false;
};

}  // namespace

Error answer_too_long(size_t limit) {
  return error(Code::kInternal, "the answer is longer than {} bytes (max_response_size); ask for less, have it streamed, or raise max_response_size", limit);
}

std::shared_ptr<frontend::RequestObserver> make_text_answer(std::shared_ptr<HttpReply> reply, std::shared_ptr<const TextFormat> format, bool streams,
                                                            size_t limit) {
  if (streams && reply->can_stream()) return std::make_shared<StreamedAnswer>(std::move(reply), std::move(format));
  return std::make_shared<WholeAnswer>(std::move(reply), std::move(format), limit);
}

std::shared_ptr<frontend::RequestObserver> make_bytes_answer(std::shared_ptr<HttpReply> reply, size_t limit) {
  return std::make_shared<BytesAnswer>(std::move(reply), limit);
}

}  // namespace penstock::rpc
