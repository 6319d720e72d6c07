#include "rpc/http_inference.h"

#include <utility>

#include "base/mutex.h"
#include "frontend/job.h"
#include "text/generation_request.h"
#include "text/json_input.h"

namespace penstock::rpc {
namespace {

constexpr const char* kText = "text/plain; charset=utf-8";

// Gathers a job's text and answers with it. Shared: the job may hold it longer than the request lives.
class WholeAnswer final : public frontend::GenerationObserver {
 public:
  WholeAnswer(std::shared_ptr<HttpReply> reply, size_t limit) : reply_(std::move(reply)), limit_(limit) {}

  bool on_event(const frontend::WorkerEvent& event) override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (finished_) return false;
    text_ += event.text;
    return text_.size() <= limit_;  // the job ends as cancelled; on_done() says why
  }
  void on_done(const std::optional<Error>& failure) override EXCLUDES(mutex_) {
    HttpResponse response;
    {
      MutexLock lock(mutex_);
      if (std::exchange(finished_, true)) return;
      if (text_.size() > limit_) {
        response = error_response(error(Code::kResourceExhausted,
                                        "the text is longer than {} bytes (max_response_size); ask for fewer max_tokens or stream it", limit_));
      } else if (failure) {
        response = error_response(*failure);
      } else {
        response = {200, kText, std::move(text_), {}};
      }
    }
    reply_->send(std::move(response));
  }

 private:
  const std::shared_ptr<HttpReply> reply_;
  const size_t limit_;
  Mutex mutex_;
  std::string text_ GUARDED_BY(mutex_);
  bool finished_ GUARDED_BY(mutex_) = false;
};

// One chunk for each piece of text. An error before the first piece still has a status line of its own.
class StreamedAnswer final : public frontend::GenerationObserver {
 public:
  explicit StreamedAnswer(std::shared_ptr<HttpReply> reply) : reply_(std::move(reply)) {}

  bool on_event(const frontend::WorkerEvent& event) override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (finished_) return false;
    if (event.text.empty()) return true;
    if (!std::exchange(begun_, true)) reply_->begin_stream({200, kText, "", {}});
    return reply_->chunk(event.text);
  }
  void on_done(const std::optional<Error>& failure) override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (std::exchange(finished_, true)) return;
    if (!begun_ && failure) return reply_->send(error_response(*failure));
    if (!begun_) reply_->begin_stream({200, kText, "", {}});
    reply_->end_stream(failure);
  }

 private:
  const std::shared_ptr<HttpReply> reply_;
  Mutex mutex_;  // held while the reply is called, which only queues: pieces and the end must not change places
  bool begun_ GUARDED_BY(mutex_) = false;
  bool finished_ GUARDED_BY(mutex_) = false;
};

// Takes "stream" out of a JSON body: how an answer is sent is not the generation's business.
Result<bool> take_stream_flag(std::string& body) {
  const size_t first = body.find_first_not_of(" \t\r\n");
  if (first == std::string::npos || body[first] != '{' || body.find("\"stream\"") == std::string::npos) return false;
  auto json = text::parse_json(body, "the request", Code::kInvalidArgument);
  if (!json) return json.error();
  const auto found = json->find("stream");
  if (found == json->end()) return false;
  if (!found->is_boolean()) return error(Code::kInvalidArgument, "stream: expected true or false, found {}", text::shown(*found));
  const bool streams = *found;
  json->erase(found);
  body = json->dump();
  return streams;
}

// Why there is no job; nullopt: there is one.
std::optional<Error> start_prediction(const HttpRequest& http, const std::shared_ptr<HttpReply>& reply,
                                      const frontend::ModelRegistry& registry, size_t max_response_bytes) {
  const auto version = http.parameters.find("model_version");
  auto model = registry.find(http.parameters.at("model_name"), version == http.parameters.end() ? "" : version->second);
  if (!model) return model.error();
  std::string body = http.body;
  auto streams = take_stream_flag(body);
  if (!streams) return streams.error();
  auto request = text::parse_generation_request(body);
  if (!request) return request.error();
  std::shared_ptr<frontend::GenerationObserver> observer;
  if (*streams && reply->can_stream()) observer = std::make_shared<StreamedAnswer>(reply);
  else observer = std::make_shared<WholeAnswer>(reply, max_response_bytes);
  auto job = (*model)->jobs().submit(std::move(*request), std::move(observer));
  if (!job) return job.error();
  reply->when_gone([model = *model, job = *job] { model->jobs().cancel(*job); });
  return std::nullopt;
}

}  // namespace

std::vector<HttpRoute> inference_routes(const frontend::ModelRegistry& registry, size_t max_response_bytes) {
  const auto ping = [&registry](const HttpRequest&, const std::shared_ptr<HttpReply>& reply) {
    const bool healthy = registry.all_healthy();
    reply->send({healthy ? 200 : 500, "application/json", fmt::format("{{\n  \"status\": \"{}\"\n}}\n", healthy ? "Healthy" : "Unhealthy"), {}});
  };
  const auto predict = [&registry, max_response_bytes](const HttpRequest& request, const std::shared_ptr<HttpReply>& reply) {
    if (const auto refused = start_prediction(request, reply, registry, max_response_bytes)) reply->send(error_response(*refused));
  };
  const auto no_workflow = [](const HttpRequest&, const std::shared_ptr<HttpReply>& reply) {
    reply->send(error_response(501, "NotImplementedException", "workflows are not supported"));
  };
  const char* text = "Text of a prompt; chunked with \"stream\": true";
  return {
      {"*", "/ping", "Health of the server", {}, ping},
      {"*", "/predictions/{model_name}", text, {}, predict},
      {"*", "/predictions/{model_name}/{model_version}", text, {}, predict},
      {"POST", "/models/{model_name}/invoke", text, {}, predict},
      {"POST", "/wfpredict/{workflow_name}", "Not implemented", {}, no_workflow},
  };
}

}  // namespace penstock::rpc
